"""The objects of a bucket are offered, read and removed as safely as the files of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.batch.entities import References
from shoplens.batch.sources import FileSkipped, ObjectSource, SkippedFile, SourceFile
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import ObjectPrefix, open_prefix, open_store
from tests.unit.batch.drop_folder import LARGEST, Drop, make_importer

JPEG = b"\xff\xd8\xff\xe0 a photo "


@pytest.fixture
def objects() -> ObjectPrefix:
    """An empty prefix."""
    return open_prefix("memory://")


@pytest.fixture
def drop(database: Database, tmp_path: Path, objects: ObjectPrefix) -> Drop:
    """An importer from that prefix."""
    store = open_store(str(tmp_path / "blobs"))
    importer = make_importer(database, store, "memory://", open_source=lambda _: ObjectSource(objects))
    return Drop(folder=tmp_path, database=database, store=store, importer=importer)


def left(objects: ObjectPrefix) -> list[str]:
    """The names of the objects in the source."""
    return sorted(found.name for found in objects.list())


def photos(objects: ObjectPrefix) -> list[SourceFile]:
    """The photos that the source offers."""
    return [each.photo for each in ObjectSource(objects).candidates() if not isinstance(each, SkippedFile)]


def test_objects_are_imported_and_removed(drop: Drop, objects: ObjectPrefix) -> None:
    """With their sidecars and lists. Hidden and unfinished objects stay, and so do the objects that mark folders."""
    objects.put("4711_A_1.jpg", JPEG + b"1")
    objects.put("4711_A_1.jpg.json", b'{"reason": "torn"}')
    objects.put("monday/photo 1.jpg", JPEG + b"2")
    objects.put("monday/list.csv", b"file,order\nphoto 1.jpg,12\n")
    objects.put("tuesday/photo 1.jpg", JPEG + b"3")
    objects.put("tuesday/😀 'x'.jpg", JPEG + bytes(LARGEST))
    for name in (".hidden.jpg", "a.jpg.part", ".cache/a.jpg"):
        objects.put(name, JPEG)
    objects.put("folder", b"")
    summary = drop.ingest()
    assert (3, 1, ()) == (summary.taken, summary.quarantined, summary.notes)
    assert {
        "4711_A_1.jpg": References(order="4711", item="A", reason="torn"),
        "monday/photo 1.jpg": References(order="12"),
        "tuesday/photo 1.jpg": References(),
        "tuesday/😀 'x'.jpg": References(),
    } == {name: item.references for name, item in drop.items().items()}
    drop.require_nothing_lost_or_doubled([*(JPEG + end for end in (b"1", b"2", b"3")), JPEG + bytes(LARGEST)])
    assert [".cache/a.jpg", ".hidden.jpg", "a.jpg.part", "folder"] == left(objects)


def test_objects_that_are_kept_are_read_once(drop: Drop, objects: ObjectPrefix) -> None:
    """And again when they change."""
    objects.put("a.jpg", JPEG)
    summaries = [drop.ingest(keep_source=True) for _ in range(2)]
    objects.put("a.jpg", JPEG + b"new")
    summaries.append(drop.ingest(keep_source=True))
    assert [(1, 0), (0, 1), (1, 0)] == [(each.taken, each.known) for each in summaries]
    assert 2 * len(JPEG) + 3 == sum(each.byte_count for each in summaries)


@pytest.mark.parametrize("size", [100, 9_000_000])
def test_an_object_that_changed_after_it_was_listed_is_skipped(objects: ObjectPrefix, size: int) -> None:
    """It is neither read as the old one nor removed. An object that was deleted is no error."""
    objects.put("a.jpg", JPEG + bytes(size))
    (listed,) = photos(objects)
    objects.put("a.jpg", JPEG + b"1" * size)
    with pytest.raises(FileSkipped, match="being changed"):
        list(listed.chunks())
    assert (True, ["a.jpg"]) == (listed.remove(), left(objects))
    objects.delete("a.jpg")
    with pytest.raises(FileSkipped, match="was deleted"):
        list(listed.chunks())
    assert listed.remove()


def test_an_object_that_changes_while_it_is_read_is_skipped(objects: ObjectPrefix) -> None:
    """It is read in ranges of 8 MiB."""
    objects.put("a.jpg", JPEG + bytes(20_000_000))
    (listed,) = photos(objects)
    chunks = listed.chunks()
    next(chunks)
    objects.put("a.jpg", JPEG + b"1" * 20_000_000)
    with pytest.raises(FileSkipped, match="being changed"):
        list(chunks)


def test_a_bucket_that_does_not_answer_is_reported() -> None:
    """In one sentence."""
    options = {"region": "x", "endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    source = ObjectSource(open_prefix("s3://shop/drop", options=options))
    with pytest.raises(SourceUnavailable, match="s3://shop/drop did not do what was asked"):
        list(source.candidates())
