"""What happens when several bring the same photo, or the database takes some rows and others not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.batch.entities import BatchRun, ItemFilter, ItemState, References, RunState, Settlement
from shoplens.batch.intake import Claims, Content, Intake, Prepared, Verdict
from shoplens.db import Database
from shoplens.storage import Store, open_store
from tests.unit.db.samples import NOON, id_at

Prepare = Callable[..., Prepared]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Empty."""
    return open_store(str(tmp_path / "blobs"))


@pytest.fixture
def intake(database: Database, store: Store) -> Intake:
    """Over an empty database and store."""
    return Intake(database, store, channel="returns", clock=lambda: NOON, max_image_bytes=1_000)


@pytest.fixture
def prepare(intake: Intake) -> Prepare:
    """Prepare a photo as a process of its own would, knowing nothing of the others."""

    def prepared(data: bytes, name: str, *, changed_ms: int = 1, claims: Claims | None = None) -> Prepared:
        content = Content(
            name=name, byte_count=len(data), changed_ms=changed_ms, pieces=lambda: (data,), references=References()
        )
        return intake.prepare(content, claims or Claims())

    return prepared


def test_the_same_file_gets_the_same_id_and_place(prepare: Prepare) -> None:
    """However often it is begun anew."""
    first, second = prepare(b"photo", "a.jpg"), prepare(b"photo", "a.jpg")
    assert first == second
    assert {first.item.id, first.item.key} & {prepare(b"photo", "b.jpg").item.id} == set()


def test_of_equal_photos_in_a_batch_one_is_stored(intake: Intake, prepare: Prepare, store: Store) -> None:
    """And it comes first, wherever it stands."""
    claims = Claims()
    batch = [prepare(b"photo", name, claims=claims) for name in ("a.jpg", "b.jpg", "c.jpg")]
    assert [True, False, False] == [each.stored for each in batch]
    verdicts = intake.commit(batch[::-1])
    assert [Verdict.TAKEN, Verdict.DUPLICATE, Verdict.DUPLICATE] == [verdicts[each.item.id] for each in batch]
    assert [batch[0].item.key] == list(store.list(""))


@pytest.mark.parametrize(
    ("name", "changed_ms", "verdict"),
    [("a.jpg", 1, Verdict.KNOWN), ("a.jpg", 2, Verdict.KNOWN), ("b.jpg", 1, Verdict.DUPLICATE)],
)
def test_who_comes_second_takes_back_what_he_stored(
    intake: Intake, prepare: Prepare, store: Store, name: str, changed_ms: int, verdict: Verdict
) -> None:
    """Unless it lies where the first one's lies."""
    first, second = prepare(b"photo", "a.jpg"), prepare(b"photo", name, changed_ms=changed_ms)
    assert second.stored
    assert {first.item.id: Verdict.TAKEN} == intake.commit([first])
    assert {second.item.id: verdict} == intake.commit([second])
    assert [first.item.key] == list(store.list(""))


@pytest.mark.parametrize("is_noted", [False, True])
def test_who_comes_after_the_night_leaves_no_second_photo(
    intake: Intake, prepare: Prepare, database: Database, store: Store, is_noted: bool
) -> None:
    """The first one's was moved meanwhile, and the late one put it back to where it came from."""
    first, late = prepare(b"photo", "a.jpg"), prepare(b"photo", "a.jpg")
    intake.commit([first])
    settled = Settlement(item_id=first.item.id, state=ItemState.DONE, attempts=1, target_key="returns/processed/a.jpg")
    run = BatchRun(
        channel="returns",
        id=id_at(NOON),
        created_at=NOON,
        requested_by="test",
        state=RunState.REQUESTED,
        bound=1,
        planned=1,
    )
    with database.uow() as work:
        work.batch_runs.add(run)
        work.batch_items.lease("returns", owner="night", run_id=run.id, bound=1, limit=1)
        work.batch_items.settle([settled], owner="night")
    store.move(first.item.key or "", "returns/processed/a.jpg")
    if is_noted:
        with database.uow() as work:
            work.batch_items.moved([(first.item.id, "returns/processed/a.jpg")])
    store.put(late.item.key or "", b"photo", durable=True)
    assert {late.item.id: Verdict.KNOWN} == intake.commit([late])
    assert ["returns/processed/a.jpg"] == list(store.list(""))


def test_a_row_that_the_database_refuses_costs_no_other_its_place(
    intake: Intake, prepare: Prepare, database: Database
) -> None:
    """An id that is taken stands for whatever a database may refuse."""
    taken = prepare(b"first", "first.jpg")
    intake.commit([taken])
    good, other = prepare(b"good", "good.jpg"), prepare(b"other", "other.jpg")
    bad = Prepared(item=replace(other.item, id=taken.item.id), stored=True)
    assert {taken.item.id: Verdict.REFUSED, good.item.id: Verdict.TAKEN} == intake.commit([bad, good])
    with database.read_uow() as work:
        assert 2 == len(list(work.batch_items.stream(ItemFilter())))
