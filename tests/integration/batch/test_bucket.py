"""Photos are imported from a bucket over the S3 protocol, with all kinds of names."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.batch.entities import References
from shoplens.batch.sources import ObjectSource
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import open_prefix, open_store
from tests.integration.s3_bucket import s3_bucket
from tests.unit.batch.drop_folder import LARGEST, Drop, make_importer

JPEG = b"\xff\xd8\xff\xe0 a photo "
URL = "s3://shop/drop"


def drop_of(database: Database, tmp_path: Path, options: dict[str, str]) -> Drop:
    """An importer from the bucket."""
    store = open_store(str(tmp_path / "blobs"))
    importer = make_importer(
        database, store, URL, open_source=lambda url: ObjectSource(open_prefix(url, options=options))
    )
    return Drop(folder=tmp_path, database=database, store=store, importer=importer)


def test_a_bucket_is_imported(database: Database, tmp_path: Path) -> None:
    """Objects beside the prefix and ignored objects stay."""
    names = ["4711_A_1.jpg", "a b 😀.jpg", "100%.jpg", "monday/q'\"x.jpg", "a+b&c=d.jpg", "%2e%2e%2f.jpg"]
    photos = {f"drop/{name}": JPEG + name.encode() for name in names}
    others = {"other/b.jpg": JPEG, "drop/c.jpg.part": JPEG, "drop/monday/": b""}
    huge = {"drop/huge.jpg": JPEG + bytes(30 * LARGEST)}
    sidecars = {"drop/100%.jpg.json": b'{"order": "12"}', "drop/monday/list.csv": b'file,order\n"q\'""x.jpg",13\n'}
    bucket = photos | others | huge | sidecars
    with s3_bucket(bucket) as options:
        drop = drop_of(database, tmp_path, options)
        summary = drop.ingest()
        assert (6, 1, 0) == (summary.taken, summary.quarantined, summary.not_removed)
        drop.require_nothing_lost_or_doubled([*photos.values(), *huge.values()])
        assert References(order="12") == drop.items()["100%.jpg"].references
        assert References(order="13") == drop.items()["monday/q'\"x.jpg"].references
        assert others == bucket


@pytest.mark.parametrize("name", ["a//b.jpg", "new\nline.jpg", "../x.jpg"])
def test_an_object_with_a_name_that_cannot_be_expressed_is_refused(
    database: Database, tmp_path: Path, name: str
) -> None:
    """The sentence says what to do; nothing is removed."""
    bucket = {f"drop/{name}": JPEG, "drop/good.jpg": JPEG + b"good"}
    with s3_bucket(bucket) as options:
        drop = drop_of(database, tmp_path, options)
        with pytest.raises(SourceUnavailable, match="Rename or remove that object"):
            drop.ingest()
    assert f"drop/{name}" in bucket
