"""Returned items: leases in order and within the bound, and plans that do not walk over what is not asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemResult, ItemState, RunOwner
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import ItemNotReady, RecordRefused, RunLost
from tests.relabel import relabel
from tests.samples import NOON, make_item, make_run

ME, OTHER = "m" * 26, "o" * 26


@pytest.fixture
def run(database: Database) -> BatchRun:
    """An active one."""
    made = make_run(bound=100)
    with database.transaction() as tx:
        RunRepository(tx).add(made)
    return made


@pytest.fixture
def bring(database: Database) -> Callable[..., list[BatchItem]]:
    """Adds waiting items; each argument is how often one was tried before."""

    def add(*attempts: int) -> list[BatchItem]:
        arrived = [make_item(number, attempts=tried) for number, tried in enumerate(attempts)]
        with database.transaction() as tx:
            ItemRepository(tx).add_many(arrived)
        return arrived

    return add


Bring = Callable[..., list[BatchItem]]


def lease(database: Database, run: BatchRun, *, limit: int, bound: int = 100, owner: str = ME) -> list[str]:
    """The ids that were leased."""
    with database.transaction() as tx:
        return [
            item.id
            for item in ItemRepository(tx).lease("returns", owner=owner, run_id=run.id, bound=bound, limit=limit)
        ]


def test_the_least_tried_come_first_then_the_oldest(database: Database, run: BatchRun, bring: Bring) -> None:
    """Whatever fails again and again does not hold up the others."""
    items = bring(2, 0, 1, 0, 2)
    wanted = [items[at].id for at in (1, 3, 2, 0, 4)]
    assert (wanted[:3], wanted[3:], []) == tuple(lease(database, run, limit=3) for _ in range(3))


def test_what_arrived_beyond_the_bound_is_not_leased(database: Database, run: BatchRun, bring: Bring) -> None:
    """Also where it was tried less often."""
    items = bring(1, 0, 0)
    assert [items[0].id] == lease(database, run, limit=9, bound=1)


def test_an_item_whose_photo_is_on_its_way_is_not_leased(database: Database, run: BatchRun, bring: Bring) -> None:
    """Nobody could say where it is; once it has arrived it is leased."""
    (item,) = bring(0)
    with database.transaction() as tx:
        relabel(tx, item.id, label="x", target_key="returns/processed/x/1", now=NOON)
        ReviewRepository(tx).retry(ItemRepository(tx).get(item.id), item.id, in_place=True)
    assert [] == lease(database, run, limit=9)
    with database.transaction() as tx:
        ItemRepository(tx).moved([(item.id, "returns/processed/x/1")])
    assert [item.id] == lease(database, run, limit=9)


def test_only_the_holder_of_a_lease_completes_items(database: Database, run: BatchRun, bring: Bring) -> None:
    """Once; one stranger among many undoes all."""
    items = bring(0, 0)
    lease(database, run, limit=1)
    lease(database, run, limit=1, owner=OTHER)
    done = [ItemResult(item_id=item.id, state=ItemState.DONE, attempts=1, target_key=None) for item in items]
    for settlements in (done, [done[1]], [done[0], done[0]]):
        with pytest.raises(RunLost), database.transaction() as tx:
            ItemRepository(tx).complete(settlements, owner=ME)
    with database.transaction() as tx:
        ItemRepository(tx).complete([done[0]], owner=ME)
    with database.reading() as tx:
        assert [ItemState.PROCESSING, ItemState.DONE] == [
            item.state for item in ItemRepository(tx).page(ItemFilter(), limit=9)
        ]


def test_leases_are_released_by_owner(database: Database, run: BatchRun, bring: Bring) -> None:
    """One's own but for some, or those of all others."""
    items = bring(0, 0, 0)
    lease(database, run, limit=2)
    lease(database, run, limit=1, owner=OTHER)
    with database.transaction() as tx:
        assert 1 == ItemRepository(tx).release("returns", ME, keep={items[0].id})
        assert ({items[0].id}, {items[2].id}) == (
            ItemRepository(tx).leased_by("returns", ME),
            ItemRepository(tx).leased_by("returns", OTHER),
        )
        assert 1 == ItemRepository(tx).release_others("returns", ME)
        assert ({items[0].id}, set()) == (
            ItemRepository(tx).leased_by("returns", ME),
            ItemRepository(tx).leased_by("returns", OTHER),
        )


def test_a_correction_waits_for_the_end_of_a_move(database: Database, bring: Bring) -> None:
    """Else the photo would be looked for where it never was."""
    (item,) = bring(0)
    with database.transaction() as tx:
        relabel(tx, item.id, label="x", target_key="returns/processed/x/1", now=NOON)
    with pytest.raises(ItemNotReady), database.transaction() as tx:
        relabel(tx, item.id, label="y", target_key="returns/processed/y/1", now=NOON)


def test_there_is_one_active_run(database: Database, run: BatchRun) -> None:
    """The database says so, not the program."""
    with pytest.raises(RecordRefused), database.transaction() as tx:
        RunRepository(tx).add(make_run())


def test_a_run_never_scans_the_table(database: Database, run: BatchRun, bring: Bring) -> None:
    """Every statement of a batch is answered by index searches, however many items there are."""
    items = bring(*[0] * 20)
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _k: object, statement: str, parameters: Any, _x: object, many: bool) -> None:
        statements.append((statement, parameters[0] if many else parameters))

    event.listen(database._engine, "before_cursor_execute", note)
    with database.transaction() as tx:
        RunRepository(tx).take_over(run, RunOwner(id=ME, host="h", pid=1), now=NOON)
        ItemRepository(tx).release_others("returns", ME)
        ItemRepository(tx).last_seq()
        ItemRepository(tx).count_waiting("returns", bound=100)
        ItemRepository(tx).lease("returns", owner=ME, run_id=run.id, bound=100, limit=5)
        ItemRepository(tx).leased_by("returns", ME)
        done = ItemResult(item_id=items[0].id, state=ItemState.DONE, attempts=1, target_key="returns/processed/x/1")
        ItemRepository(tx).complete([done], owner=ME)
        ItemRepository(tx).moved([(items[0].id, "returns/processed/x/1")])
        ItemRepository(tx).moving("returns", limit=5)
        ItemRepository(tx).count_own_states(run.id)
        ItemRepository(tx).work_ms(run.id)
    event.remove(database._engine, "before_cursor_execute", note)
    assert [] == [plan for each in statements for plan in walks(database, *each)]
    assert len(statements) > 10


def walks(database: Database, statement: str, parameters: Any) -> list[str]:
    """Where a walk over all items is what would be done. `max(seq)` is read from the end of the table."""
    if statement.startswith("BEGIN") or "max(batch_items.seq)" in statement:
        return []
    with database._engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            return postgres_walks(connection, statement, parameters)
        found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps = [str(row.detail) for row in found]
    return [step for step in steps if step.startswith("SCAN batch_items") and "ix_batch_items_moving" not in step]


def postgres_walks(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """Where even a planner that should not can only read the whole table."""
    connection.execute(text("SET enable_seqscan = off"))
    found = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    steps = [str(row[0]).strip() for row in found]
    connection.execute(text("RESET enable_seqscan"))
    return [step for step in steps if "Seq Scan on batch_items" in step]
