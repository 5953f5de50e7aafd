"""The table of returns is read in order and by indexes, however many items there are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from shoplens.batch import repository
from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState, References, RunOwner, RunRange
from shoplens.batch.export import stream_rows
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.tables import batch_items
from shoplens.db import Database
from shoplens.db.sqlite import driver as sqlite3
from shoplens.errors import PredictionNotFound
from shoplens.predictions.repository import PredictionRepository
from tests.relabel import relabel
from tests.samples import id_at, make_item, make_record, make_run, moment

ANY = (None, "x")


def arrive(database: Database, count: int) -> list[BatchItem]:
    """So many waiting photos."""
    found = [make_item(number, references=References(item=f"i{number}")) for number in range(count)]
    with database.transaction() as tx:
        ItemRepository(tx).add_many(found)
    return found


def run_over(database: Database, number: int, bound: int, *, take: int = 0) -> BatchRun:
    """A finished run up to `bound`, that took so many items."""
    run = make_run(1_000 + number, bound=bound, planned=take)
    me = RunOwner(id=id_at(moment(number)), host="here", pid=1)
    with database.transaction() as tx:
        RunRepository(tx).add(run)
        RunRepository(tx).take_over(run, me, now=moment(0))
        if take:
            ItemRepository(tx).lease("returns", owner=me.id, run_id=run.id, bound=bound, limit=take)
        RunRepository(tx).finish(run.id, owner=me.id, now=moment(1), report_key=None)
    return run


def plan(path: Path, within: RunRange | None, wanted: ItemFilter) -> list[str]:
    """The steps that SQLite takes for a page of rows."""
    items = batch_items.c
    statement = repository._table(wanted, within).where(items.seq > 5, items.seq <= 50).order_by(items.seq).limit(500)
    sql = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]


@pytest.mark.parametrize(
    "within", [None, RunRange(channel="returns", run_id="r", beyond=3, bound=50)], ids=["all", "run"]
)
@pytest.mark.parametrize("state", [None, ItemState.DONE])
@pytest.mark.parametrize("label", ANY)
@pytest.mark.parametrize("text", ANY)
def test_the_table_is_walked_and_never_sorted(
    empty_database_file: Path, within: RunRange | None, state: ItemState | None, label: str | None, text: str | None
) -> None:
    """A page follows the page before it along the primary key; the prediction is one search per row."""
    steps = plan(empty_database_file, within, ItemFilter(state=state, label=label, text=text))
    assert "SEARCH batch_items USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" == steps[0]
    assert ["SEARCH predictions USING INDEX sqlite_autoindex_predictions_1 (id=?) LEFT-JOIN"] == steps[1:]


def test_the_numbers_of_a_run_are_counted_in_its_own_range(empty_database_file: Path) -> None:
    """However many runs there were before."""
    statement = repository._unassigned_states(RunRange(channel="returns", run_id="r", beyond=3, bound=50))
    sql = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with closing(sqlite3.connect(empty_database_file)) as connection:
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert "SEARCH batch_items USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" == steps[0]


def test_the_statement_is_also_one_of_postgresql() -> None:
    """It compiles for its dialect."""
    statement = repository._table(ItemFilter(text="x"), RunRange(channel="returns", run_id="r", beyond=3, bound=50))
    assert "coalesce" in str(statement.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


def test_more_rows_than_a_page_come_once_each_in_the_order_of_arrival(database: Database) -> None:
    """Also when others arrive while they are read."""
    arrived = arrive(database, 1_203)
    rows = stream_rows(database, ItemFilter(), None)
    found = [next(rows).item.id]
    with database.transaction() as tx:
        ItemRepository(tx).add_many([_later(arrived[0])])
    found += [row.item.id for row in rows]
    assert [item.id for item in arrived] == found


def test_a_run_begins_where_the_one_before_it_ended(database: Database) -> None:
    """The first one at the very beginning; a run over nothing new has an empty range."""
    runs = [run_over(database, number, bound) for number, bound in enumerate((4, 9, 9))]
    with database.reading() as tx:
        found = [ItemRepository(tx).range_of(run) for run in runs]
    assert [(0, 4), (4, 9), (9, 9)] == [(each.beyond, each.bound) for each in found]


def test_items_of_a_run_are_in_its_table_however_old_they_are(database: Database) -> None:
    """Left over from a run that was interrupted."""
    arrive(database, 6)
    run_over(database, 0, 6, take=2)
    late = run_over(database, 1, 6, take=3)
    with database.reading() as tx:
        within = ItemRepository(tx).range_of(late)
    found = [row.item.source_name for row in stream_rows(database, ItemFilter(), within)]
    assert ["2.jpg", "3.jpg", "4.jpg"] == found


def test_labels_are_those_of_the_last_runs_with_one_search_each(database: Database) -> None:
    """In alphabetical order, each once."""
    arrived = arrive(database, 4)
    run_over(database, 0, 4, take=4)
    with database.transaction() as tx:
        for item, label in zip(arrived, ("hat", "dress", "hat", "Ärmel"), strict=True):
            relabel(tx, item.id, label=label, target_key=None, now=moment(9))
    with database.reading() as tx:
        assert ["dress", "hat", "Ärmel"] == ItemRepository(tx).labels("returns")
        known = [ItemRepository(tx).knows_label("returns", label) for label in ("hat", "hats")]
    assert [True, False] == known


def test_a_photo_that_is_moved_is_followed_by_its_prediction(database: Database) -> None:
    """An unknown prediction is refused."""
    record = make_record(1)
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([record])
        PredictionRepository(tx).move_image(record.id, "returns/processed/hat/x.jpg")
        assert "returns/processed/hat/x.jpg" == PredictionRepository(tx).get(record.id).image_key
        with pytest.raises(PredictionNotFound):
            PredictionRepository(tx).move_image("nix", "x")


def _later(item: BatchItem) -> BatchItem:
    return BatchItem(
        channel="returns",
        id=id_at(moment(9_999)), received_at=moment(9_999), source_name="later.jpg", sha256="f" * 64,
        byte_count=item.byte_count, state=ItemState.WAITING, key="returns/incoming/later.jpg",
    )  # fmt: skip
