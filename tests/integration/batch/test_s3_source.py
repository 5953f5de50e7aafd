"""Photos are imported from a real S3 into a real S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.seaweed import S3Place
from shoplens.batch.entities import References
from shoplens.batch.sources import FileSkipped, ObjectSource, SkippedFile, SourceFile
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import ObjectPrefix, open_prefix, open_store
from tests.integration.storage.raw_s3 import put_raw, remove_raw
from tests.unit.batch.drop_folder import LARGEST, Drop, make_importer

JPEG = b"\xff\xd8\xff\xe0 a photo "


@pytest.fixture
def objects(s3: S3Place) -> ObjectPrefix:
    """The prefix that photos are imported from."""
    return open_prefix(f"{s3.url}/drop", options=s3.options)


@pytest.fixture
def drop(database: Database, tmp_path: Path, s3: S3Place, objects: ObjectPrefix) -> Drop:
    """An importer from there into the same bucket."""
    store = open_store(f"{s3.url}/photos", options=s3.options)
    importer = make_importer(database, store, objects.place, open_source=lambda _: ObjectSource(objects))
    return Drop(folder=tmp_path, database=database, store=store, importer=importer)


def left(objects: ObjectPrefix) -> set[str]:
    """The objects in the source."""
    return {found.name for found in objects.list()}


def test_a_bucket_is_imported(drop: Drop, objects: ObjectPrefix, s3: S3Place) -> None:
    """With all kinds of names; hidden and unfinished objects stay."""
    names = ["4711_A_1.jpg", "a b 😀.jpg", "100%.jpg", "monday/q'\"x.jpg", "a+b&c=d.jpg", "%2e%2e%2f.jpg"]
    photos = {name: JPEG + name.encode() for name in names}
    huge = JPEG + bytes(30 * LARGEST)
    for name, data in photos.items():
        put_raw(s3, f"drop/{name}", data)
    objects.put("huge.jpg", huge)
    objects.put("100%.jpg.json", b'{"order": "12"}')
    objects.put("monday/list.csv", b'file,order\n"q\'""x.jpg",13\n')
    objects.put(".hidden.jpg", JPEG)
    objects.put("b.jpg.part", JPEG)
    put_raw(s3, "dropped/beside.jpg", JPEG)
    summary = drop.ingest()
    assert (6, 1, 0, 0) == (summary.taken, summary.quarantined, summary.unreadable, summary.not_removed)
    drop.require_nothing_lost_or_doubled([*photos.values(), huge])
    assert References(order="12") == drop.items()["100%.jpg"].references
    assert References(order="13") == drop.items()["monday/q'\"x.jpg"].references
    assert {".hidden.jpg", "b.jpg.part"} == left(objects)


def test_an_object_with_a_name_that_cannot_be_expressed_is_refused(
    drop: Drop, objects: ObjectPrefix, s3: S3Place
) -> None:
    """The message says what to do; nothing is removed. Without that object the import works."""
    objects.put("good.jpg", JPEG)
    put_raw(s3, "drop/new\nline.jpg", JPEG + b"1")
    with pytest.raises(SourceUnavailable, match="Rename or remove that object"):
        drop.ingest()
    remove_raw(s3, "drop/new\nline.jpg")
    assert {"good.jpg"} == left(objects)
    assert 1 == drop.ingest().taken


def test_more_than_a_page_of_objects_is_imported(drop: Drop, objects: ObjectPrefix) -> None:
    """They are kept and known the next time."""
    for number in range(30):
        objects.put(f"{number}.jpg", JPEG + b"%d" % number)
    counted = [drop.ingest(keep_source=True) for _ in range(2)]
    assert [(30, 0), (0, 30)] == [(each.taken, each.known) for each in counted]


def test_an_object_that_changed_after_it_was_listed_is_skipped(objects: ObjectPrefix) -> None:
    """It is neither read as the old one nor removed. An object that was deleted is no error."""
    objects.put("a.jpg", JPEG + b"1")
    (listed,) = photos(objects)
    objects.put("a.jpg", JPEG + b"2")
    with pytest.raises(FileSkipped, match="being changed"):
        list(listed.chunks())
    assert (True, {"a.jpg"}) == (listed.remove(), left(objects))
    (listed,) = photos(objects)
    assert (True, set()) == (listed.remove(), left(objects))
    assert (True, set()) == (listed.remove(), left(objects))


def test_an_object_that_changes_just_before_its_removal_stays(
    objects: ObjectPrefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal itself has the condition."""
    objects.put("a.jpg", JPEG + b"1")
    (found,) = objects.list()
    look = objects.look

    def changed_after_a_look(name: str) -> object:
        seen = look(name)
        objects.put("a.jpg", JPEG + b"2")
        return seen

    monkeypatch.setattr(objects, "look", changed_after_a_look)
    assert (False, {"a.jpg"}) == (objects.delete_unchanged(found), left(objects))


def photos(objects: ObjectPrefix) -> list[SourceFile]:
    """The photos that the source offers."""
    return [each.photo for each in ObjectSource(objects).candidates() if not isinstance(each, SkippedFile)]
