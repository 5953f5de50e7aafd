"""Photos are brought in from an object store as they are from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.batch.arrivals import Arrival, Left
from shoplens.batch.entities import References
from shoplens.batch.object_source import ObjectFolder, ObjectSource
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import ObjectPrefix, open_prefix, open_store
from tests.unit.batch.drop_folder import LARGEST, Drop, make_ingest

JPEG = b"\xff\xd8\xff\xe0 a photo "


@pytest.fixture
def objects() -> ObjectPrefix:
    """An empty prefix."""
    return open_prefix("memory://")


@pytest.fixture
def drop(database: Database, tmp_path: Path, objects: ObjectPrefix) -> Drop:
    """An ingest from that prefix."""
    store = open_store(str(tmp_path / "blobs"))
    ingest = make_ingest(database, store, "memory://", open_source=lambda _: ObjectSource(objects))
    return Drop(folder=tmp_path, database=database, store=store, ingest=ingest)


def left(objects: ObjectPrefix) -> list[str]:
    """What still lies there."""
    return sorted(found.name for found in objects.list())


def test_objects_become_items_and_go(drop: Drop, objects: ObjectPrefix) -> None:
    """With sidecars and lists of their folders; hidden and unfinished ones stay, and so do folders' stand-ins."""
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
    counted = [drop.ingest(keep_source=True) for _ in range(2)]
    objects.put("a.jpg", JPEG + b"new")
    counted.append(drop.ingest(keep_source=True))
    assert [(1, 0), (0, 1), (1, 0)] == [(each.taken, each.known) for each in counted]
    assert 2 * len(JPEG) + 3 == sum(each.byte_count for each in counted)


def test_an_object_that_changed_since_it_was_listed_is_left(objects: ObjectPrefix) -> None:
    """Neither read as the old one nor removed; one that is gone is no fault."""
    objects.put("a.jpg", JPEG + b"1")
    (listed,) = arrivals(objects)
    objects.put("a.jpg", JPEG + b"2")
    assert isinstance(listed.read(), Left)
    assert (True, ["a.jpg"]) == (listed.remove(), left(objects))
    with pytest.raises(SourceUnavailable, match="being changed"):
        list(listed.pieces())
    objects.delete("a.jpg")
    assert isinstance(listed.read(), Left)
    assert listed.remove()
    with pytest.raises(SourceUnavailable, match="gone"):
        list(listed.pieces())


def test_a_store_that_is_away_is_told() -> None:
    """In one sentence."""
    options = {"region": "x", "endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    source = ObjectSource(open_prefix("s3://shop/drop", options=options))
    (folder,) = source.folders()
    assert isinstance(folder, ObjectFolder)
    with pytest.raises(SourceUnavailable, match="s3://shop/drop did not do what was asked"):
        list(folder.offers())


def arrivals(objects: ObjectPrefix) -> list[Arrival]:
    """What is offered there."""
    offers = ObjectFolder(objects).offers()
    return [offer.photo for offer in offers if not isinstance(offer, Left)]
