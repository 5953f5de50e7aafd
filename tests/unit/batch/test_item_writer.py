"""Several processes import the same photo, or the database accepts only some rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.batch.entities import ItemFilter, ItemResult, ItemState, References
from shoplens.batch.item_writer import Dedup, ImportOutcome, ItemWriter, NewFile, PreparedItem
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.storage import Store, open_store
from tests.samples import NOON, make_run

Prepare = Callable[..., PreparedItem]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Empty."""
    return open_store(str(tmp_path / "blobs"))


@pytest.fixture
def writer(database: Database, store: Store) -> ItemWriter:
    """Over an empty database and store."""
    return ItemWriter(database, store, channel="returns", clock=lambda: NOON, max_image_bytes=1_000)


@pytest.fixture
def prepare(writer: ItemWriter) -> Prepare:
    """Prepare a photo as another process would, without knowing of the others."""

    def prepared(data: bytes, name: str, *, changed_ms: int = 1, dedup: Dedup | None = None) -> PreparedItem:
        file = NewFile(
            name=name, byte_count=len(data), changed_ms=changed_ms, chunks=lambda: (data,), references=References()
        )
        return writer.prepare(file, dedup or Dedup())

    return prepared


def test_the_same_file_gets_the_same_id_and_key(prepare: Prepare) -> None:
    """However often it is prepared."""
    first, second = prepare(b"photo", "a.jpg"), prepare(b"photo", "a.jpg")
    assert first == second
    assert {first.item.id, first.item.key} & {prepare(b"photo", "b.jpg").item.id} == set()


def test_of_equal_photos_in_a_batch_one_is_stored(writer: ItemWriter, prepare: Prepare, store: Store) -> None:
    """And it is committed first, wherever it is in the batch."""
    dedup = Dedup()
    batch = [prepare(b"photo", name, dedup=dedup) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert [True, False, False] == [each.stored for each in batch]
    outcomes = writer.commit(batch[::-1])
    assert [ImportOutcome.TAKEN, ImportOutcome.DUPLICATE, ImportOutcome.DUPLICATE] == [
        outcomes[each.item.id] for each in batch
    ]
    assert [batch[0].item.key] == list(store.list(""))


@pytest.mark.parametrize(
    ("name", "changed_ms", "outcome"),
    [("a.jpg", 1, ImportOutcome.KNOWN), ("a.jpg", 2, ImportOutcome.KNOWN), ("b.jpg", 1, ImportOutcome.DUPLICATE)],
)
def test_the_slower_process_deletes_its_copy(
    writer: ItemWriter, prepare: Prepare, store: Store, name: str, changed_ms: int, outcome: ImportOutcome
) -> None:
    """Unless the faster one stored it under the same key."""
    first, second = prepare(b"photo", "a.jpg"), prepare(b"photo", name, changed_ms=changed_ms)
    assert second.stored
    assert {first.item.id: ImportOutcome.TAKEN} == writer.commit([first])
    assert {second.item.id: outcome} == writer.commit([second])
    assert [first.item.key] == list(store.list(""))


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_process_that_is_slower_than_a_run_leaves_no_second_photo(
    writer: ItemWriter, prepare: Prepare, database: Database, store: Store, is_recorded: bool
) -> None:
    """The run moved the photo, and the slower process stored it at the old place again."""
    first, late = prepare(b"photo", "a.jpg"), prepare(b"photo", "a.jpg")
    writer.commit([first])
    settled = ItemResult(item_id=first.item.id, state=ItemState.DONE, attempts=1, target_key="returns/processed/a.jpg")
    run = make_run(bound=1, planned=1)
    with database.transaction() as tx:
        RunRepository(tx).add(run)
        ItemRepository(tx).lease("returns", owner="runner", run_id=run.id, bound=1, limit=1)
        ItemRepository(tx).complete([settled], owner="runner")
    store.move(first.item.key or "", "returns/processed/a.jpg")
    if is_recorded:
        with database.transaction() as tx:
            ItemRepository(tx).moved([(first.item.id, "returns/processed/a.jpg")])
    store.put(late.item.key or "", b"photo", durable=True)
    assert {late.item.id: ImportOutcome.KNOWN} == writer.commit([late])
    assert ["returns/processed/a.jpg"] == list(store.list(""))


def test_a_refused_row_does_not_affect_the_others(writer: ItemWriter, prepare: Prepare, database: Database) -> None:
    """An id that exists already stands for every reason that a database may have."""
    taken = prepare(b"first", "first.jpg")
    writer.commit([taken])
    good, other = prepare(b"good", "good.jpg"), prepare(b"other", "other.jpg")
    bad = PreparedItem(item=replace(other.item, id=taken.item.id), stored=True)
    assert {taken.item.id: ImportOutcome.REFUSED, good.item.id: ImportOutcome.TAKEN} == writer.commit([bad, good])
    with database.reading() as tx:
        assert 2 == len(ItemRepository(tx).page(ItemFilter(), limit=100_000))
