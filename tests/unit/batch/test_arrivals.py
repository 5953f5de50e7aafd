"""What the table of returned items knows about files that come again."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.repository import ItemRepository
from shoplens.db import Database
from shoplens.errors import RecordRefused
from tests.samples import id_at, moment


def arrived(number: int, content: str, name: str, *, duplicate_of: str | None = None) -> BatchItem:
    """An item of `number` seconds after noon."""
    return BatchItem(
        channel="returns",
        id=id_at(moment(number)),
        received_at=moment(number),
        source_name=name,
        source_stamp=f"stamp of {name}",
        sha256=content * 64,
        byte_count=1,
        state=ItemState.DUPLICATE if duplicate_of else ItemState.WAITING,
        duplicate_of=duplicate_of,
    )


def add(database: Database, items: Iterable[BatchItem]) -> None:
    """Commit these items."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many(list(items))


def test_stamps_arrivals_and_names_are_known_as_pairs(database: Database) -> None:
    """The stamp of one file under the name of another is not known."""
    add(database, [arrived(1, "a", "a.jpg"), arrived(2, "b", "b.jpg")])
    with database.reading() as tx:
        stamps = {("a.jpg", "stamp of a.jpg"), ("a.jpg", "stamp of b.jpg"), ("c.jpg", "stamp of a.jpg")}
        assert {("a.jpg", "stamp of a.jpg")} == ItemRepository(tx).known_stamps("returns", stamps)
        assert {("b" * 64, "b.jpg")} == ItemRepository(tx).known_arrivals(
            "returns", [("b" * 64, "b.jpg"), ("b" * 64, "a.jpg")]
        )
        assert {"a.jpg"} == ItemRepository(tx).known_names("returns", ["a.jpg", "c.jpg"], since=moment(1))
        assert set() == ItemRepository(tx).known_names("returns", ["a.jpg"], since=moment(2))
        assert set() == ItemRepository(tx).known_stamps("returns", [])


def test_content_leads_to_the_first_item_that_had_it(database: Database) -> None:
    """However often it came again."""
    first = arrived(1, "a", "a.jpg")
    add(database, [first, arrived(2, "a", "again.jpg", duplicate_of=first.id), arrived(3, "b", "b.jpg")])
    with database.reading() as tx:
        found = ItemRepository(tx).with_contents("returns", ["a" * 64, "c" * 64])
        assert {"a" * 64: "a.jpg"} == {content: item.source_name for content, item in found.items()}
        again = ItemRepository(tx).arrival("returns", "a" * 64, "again.jpg")
        assert again is not None
        assert first.id == again.duplicate_of
        assert ItemRepository(tx).arrival("returns", "a" * 64, "b.jpg") is None


def test_the_same_content_twice_is_refused_by_the_database_itself(database: Database) -> None:
    """Whatever two processes that come at once believed; all of a batch or none of it."""
    add(database, [arrived(1, "a", "a.jpg")])
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(RecordRefused):
            add(database, [arrived(2, "b", "other.jpg"), arrived(3, "a", name)])
    with database.reading() as tx:
        assert 1 == ItemRepository(tx).last_seq()
