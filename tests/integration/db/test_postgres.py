"""What only a real PostgreSQL shows: many writers at once, lost connections, servers that hang, and poolers."""

from __future__ import annotations

import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import Connection, make_url, text

from servers.postgres import RunningPostgres, fresh_database, running_postgres
from shoplens.batch.entities import BatchItem, ItemFilter, ItemState, References, RunOwner
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database, GroupWriter, open_database, upgrade
from shoplens.errors import (
    DatabaseUnavailable,
    DatabaseUnusable,
    ExtraMissing,
    ItemNotReady,
    Misconfigured,
    RecordRefused,
    RunLost,
)
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository, add_records
from tests.relabel import relabel
from tests.samples import NOON, id_at, make_item, make_record, make_run, moment

EVERYTHING = RecordFilter()
PATIENCE_S = 20


@pytest.fixture
def database_url(postgres_tables: str) -> str:
    """Here there is one kind."""
    return postgres_tables


@pytest.fixture
def run_id(database: Database) -> str:
    """A run that is active."""
    run = make_run(bound=0)
    with database.transaction() as tx:
        RunRepository(tx).add(run)
    return run.id


def lease(tx: Connection, owner: str, run_id: str, limit: int) -> set[str]:
    """The numbers of what `owner` gets."""
    return {
        item.source_name
        for item in ItemRepository(tx).lease("returns", owner=owner, run_id=run_id, bound=10**6, limit=limit)
    }


def test_two_lessees_at_once_never_share_and_never_wait(database: Database, run_id: str) -> None:
    """The second one gets the next items while the first one's transaction is still open."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(number) for number in range(10)])
    first_owner, second_owner = id_at(NOON), id_at(NOON)
    with database.transaction() as first:
        taken = lease(first, first_owner, run_id, 4)
        began = time.monotonic()
        with database.transaction() as second:
            others = lease(second, second_owner, run_id, 4)
        took_s = time.monotonic() - began
    assert ({f"{n}.jpg" for n in range(4)}, {f"{n}.jpg" for n in range(4, 8)}) == (taken, others)
    assert took_s < 5


def test_many_lessees_share_everything_out_once(database: Database, run_id: str) -> None:
    """Eight at once, in small portions, until nothing is left."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(number, attempts=number % 3) for number in range(200)])

    def take_all(owner: str) -> list[str]:
        mine: list[str] = []
        while True:
            with database.transaction() as tx:
                got = lease(tx, owner, run_id, 7)
            if not got:
                return mine
            mine += got

    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(take_all, [id_at(NOON) for _ in range(8)]))
    assert sorted(f"{n}.jpg" for n in range(200)) == sorted(name for share in shares for name in share)


def test_a_run_is_taken_over_by_one_of_many(database: Database, run_id: str) -> None:
    """All have read the same state of it."""
    with database.reading() as tx:
        run = RunRepository(tx).get(run_id)
    gate = threading.Barrier(8)

    def attempt(number: int) -> bool:
        gate.wait()
        try:
            with database.transaction() as tx:
                RunRepository(tx).take_over(run, RunOwner(id=id_at(moment(number)), host="h", pid=number), now=NOON)
        except RunLost:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert [True] == [won for won in pool.map(attempt, range(8)) if won]


def test_a_process_that_lost_its_run_writes_nothing(database: Database, run_id: str) -> None:
    """Its transaction began before the takeover and waits for it."""
    old, new = (RunOwner(id=id_at(NOON), host="h", pid=number) for number in (1, 2))
    with database.reading() as tx:
        run = RunRepository(tx).get(run_id)
    with database.transaction() as tx:
        RunRepository(tx).take_over(run, old, now=NOON)
        run = RunRepository(tx).get(run_id)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as tx:
            RunRepository(tx).take_over(run, new, now=NOON)
            late = pool.submit(beat, database, run_id, old.id)
            time.sleep(0.2)
        assert isinstance(late.exception(PATIENCE_S), RunLost)


def beat(database: Database, run_id: str, owner: str) -> None:
    """A sign of life."""
    with database.transaction() as tx:
        RunRepository(tx).beat(run_id, owner=owner, now=NOON, finished_item=True)


def test_numbers_of_items_become_visible_in_their_order(database: Database) -> None:
    """An import waits for the one before it, so no item appears below a bound that was read already."""
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as slow:
            ItemRepository(slow).hold_arrivals()
            ItemRepository(slow).add_many([make_item(1)])
            quick = pool.submit(arrive, database, make_item(2))
            time.sleep(0.2)
            assert not quick.done()
        quick.result(PATIENCE_S)
    with database.reading() as tx:
        assert ["2.jpg", "1.jpg"] == [item.source_name for item in ItemRepository(tx).page(ItemFilter(), limit=100_000)]


def arrive(database: Database, item: BatchItem) -> None:
    """As an ingest does it."""
    with database.transaction() as tx:
        ItemRepository(tx).hold_arrivals()
        ItemRepository(tx).add_many([item])


def test_a_row_that_two_want_to_correct_is_corrected_one_after_the_other(database: Database) -> None:
    """Each sees what the other one has written."""
    item = make_item(1, state=ItemState.DONE)
    with database.transaction() as tx:
        ItemRepository(tx).add_many([item])

    def correct(label: str) -> str:
        with database.transaction() as tx:
            ItemRepository(tx).get(item.id, lock=True)
            relabel(tx, item.id, label=label, target_key=f"returns/{label}", now=NOON)
        return label

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(correct, label) for label in ("shirt", "shoe")]
        errors = [future.exception(PATIENCE_S) for future in futures]
    assert [ItemNotReady] == [type(error) for error in errors if error]


def test_a_deadlock_ends_one_transaction(database: Database) -> None:
    """The other one continues."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(1), make_item(2)])
    meeting = threading.Barrier(2)

    def change(*numbers: int) -> None:
        with database.transaction() as tx:
            for number in numbers:
                tx.execute(text(f"UPDATE batch_items SET label = 'x' WHERE source_name = '{number}.jpg'"))
                with suppress(threading.BrokenBarrierError):
                    meeting.wait(1)

    with ThreadPoolExecutor(2) as pool:
        errors = [future.exception(PATIENCE_S) for future in [pool.submit(change, 1, 2), pool.submit(change, 2, 1)]]
    (found,) = [error for error in errors if error]
    assert isinstance(found, DatabaseUnavailable)
    assert "two processes waited for each other; try again" in str(found)


def test_a_reader_sees_one_state(database: Database) -> None:
    """What is committed meanwhile appears in the next transaction."""
    with database.reading() as tx:
        before = len(PredictionRepository(tx).page(EVERYTHING, limit=9))
        with database.transaction() as other:
            PredictionRepository(other).add_many([make_record()])
        within = len(PredictionRepository(tx).page(EVERYTHING, limit=9))
    with database.reading() as tx:
        after = len(PredictionRepository(tx).page(EVERYTHING, limit=9))
    assert (0, 0, 1) == (before, within, after)


def test_a_reader_writes_nothing(database: Database) -> None:
    """The database refuses every write."""
    with pytest.raises(DatabaseUnavailable, match="read-only"), database.reading() as tx:
        tx.execute(text("DELETE FROM predictions"))


def test_a_nul_is_kept_as_a_mark(database: Database) -> None:
    """PostgreSQL has no text with it; who looks for it finds what it was written as."""
    record = make_record(label="va\x00se")
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([record])
        ItemRepository(tx).add_many([make_item(1, references=References(item="A\x00B"))])
    with database.reading() as tx:
        (found,) = PredictionRepository(tx).page(RecordFilter(label="va\x00se"), limit=5)
        (item,) = ItemRepository(tx).page(ItemFilter(text="a\x00"), limit=5)
    assert (record.id, "A\ufffdB") == (found.id, item.references.item)


def test_what_a_refusal_says_holds_no_values(database: Database) -> None:
    """The server adds the row to its message; it does not belong into logs."""
    record = make_record()
    with pytest.raises(RecordRefused) as refusal, database.transaction() as tx:
        PredictionRepository(tx).add_many([record, record])
    assert record.id not in str(refusal.value)


def test_nothing_is_left_on_a_connection(database: Database) -> None:
    """A pooler gives it to another client after each transaction."""
    for number in range(12):
        with database.transaction() as tx:
            PredictionRepository(tx).add_many([make_record(number)])
            RunRepository(tx).page("returns", limit=5)
    with database._engine.connect() as connection:
        settings = [connection.execute(text(f"SHOW {name}")).scalar() for name in ("lock_timeout", "statement_timeout")]
        prepared = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar()
    assert (["0", "0"], 0) == (settings, prepared)


def test_a_query_that_takes_too_long_is_ended(database: Database) -> None:
    """By the server, and the connection stays good."""
    with pytest.raises(DatabaseUnavailable, match="did not answer a query in time"), database.reading() as tx:
        tx.execute(text("SET LOCAL statement_timeout = 100"))
        tx.execute(text("SELECT pg_sleep(5)"))
    database.check()


def test_the_pool_is_bounded(database_url: str) -> None:
    """One more than the pool holds waits, and fails if that takes too long."""
    with closing(open_database(database_url, pool=2)) as small:
        small._engine.pool._timeout = 0.2  # type: ignore[attr-defined]
        with small.reading(), small.reading(), pytest.raises(DatabaseUnavailable, match="in use"):
            small.check()
        small.check()


def test_a_connection_that_the_server_cuts_is_replaced(database: Database, database_url: str) -> None:
    """An idle one is replaced unnoticed; a transaction that used it fails."""
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(1)])
    cut_off(database_url)
    database.check()
    with pytest.raises(DatabaseUnavailable, match="try again"), database.transaction() as tx:
        cut_off(database_url)
        PredictionRepository(tx).add_many([make_record(2)])
    with database.reading() as tx:
        assert 1 == len(PredictionRepository(tx).page(EVERYTHING, limit=9))


def cut_off(url: str) -> None:
    """End every connection of Shoplens to this database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'shoplens'"
        )


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RunningPostgres]]:
    """A server that tests may end; called, it is there again at the same port."""
    folder = tmp_path_factory.mktemp("mortal")
    running: list[Any] = []

    def start() -> RunningPostgres:
        port = None
        if running:
            manager, server = running.pop()
            manager.__exit__(None, None, None)
            port = server.port
        manager = running_postgres(folder, port=port)
        running.append((manager, manager.__enter__()))
        return running[0][1]  # type: ignore[no-any-return]

    upgrade(start().url)
    yield start
    running[0][0].__exit__(None, None, None)


def test_a_server_that_is_killed_and_comes_back(own_server: Callable[[], RunningPostgres]) -> None:
    """No committed row is lost, requests meanwhile fail, and the writer recovers by itself."""
    server = own_server()
    with closing(open_database(server.url)) as database:
        writer = GroupWriter(database, add_records)
        answered = [make_record(number) for number in range(50)]
        for record in answered:
            writer.submit(record).result(PATIENCE_S)
        server.kill()
        meanwhile = writer.submit(make_record(50)).exception(PATIENCE_S)
        own_server()
        after = make_record(51)
        writer.submit(after).result(PATIENCE_S)
        writer.close()
        database.check()
        with database.reading() as tx:
            stored = {record.id for record in PredictionRepository(tx).page(EVERYTHING, limit=1_000_000)}
    assert isinstance(meanwhile, DatabaseUnavailable)
    assert {record.id for record in answered} | {after.id} == stored


def test_a_server_that_hangs_is_given_up(
    own_server: Callable[[], RunningPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open without an answer; when it continues, the database works again."""
    monkeypatch.setattr("shoplens.db.postgres._ANSWER_S", 1.0)
    server = own_server()
    with closing(open_database(f"{server.url}?connect_timeout=2")) as database:
        database.check()
        processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        for process in processes:
            process.suspend()
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
            database.check()
        took_s = time.monotonic() - began
        for process in processes:
            process.resume()
        database.check()
    assert took_s < 8


def test_what_accepts_and_never_answers_is_given_up() -> None:
    """Within the time for connecting."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
            open_database(f"postgresql://shop:hush@127.0.0.1:{silent.getsockname()[1]}/shop?connect_timeout=2")
        assert time.monotonic() - began < 6


def test_a_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed on request only."""
    monkeypatch.delitem(sys.modules, "shoplens.db.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ExtraMissing, match=r"pip install '\.\[scale\]'"):
        open_database("postgresql://shop@127.0.0.1/shop")


def wrong(url: str, **parts: Any) -> str:
    """`url` with another part."""
    return make_url(url).set(**parts).render_as_string(hide_password=False)


class Greeting(BaseRequestHandler):
    """Speaks first, as many servers do."""

    def handle(self) -> None:
        """One line, and the end."""
        self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.fixture
def other_server() -> Iterator[int]:
    """The port of something that is no PostgreSQL."""
    with TCPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture(params=["password", "user", "database", "port", "host", "elsewhere", "schema", "option"])
def bad_url(
    request: pytest.FixtureRequest, postgres_database: str, free_port: int, other_server: int
) -> tuple[str, str]:
    """An URL with one fault, and what is to be said of it."""
    return {
        "password": (
            wrong(postgres_database, password="hush-hush"),
            "refused the user or the password; correct them in",
        ),
        "user": (wrong(postgres_database, username="nobody"), "refused the user or the password; correct them in"),
        "database": (wrong(postgres_database, database="missing"), "does not exist; create it with `createdb`, or"),
        "port": (wrong(postgres_database, port=free_port), "cannot be reached, nothing listens there; start it, or"),
        "host": (wrong(postgres_database, host="shop.invalid"), "cannot be found, nobody knows its host; correct"),
        "elsewhere": (
            wrong(postgres_database, port=other_server),
            "is no PostgreSQL: something else answers there; correct",
        ),
        "schema": (f"{postgres_database}?options=-csearch_path%3Dnone", "has no such schema; create it, or correct"),
        "option": (f"{postgres_database}?nonsense=1", "has an option that psycopg does not know"),
    }[request.param]


@pytest.fixture
def free_port() -> int:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_wrong_address_is_reported_in_one_sentence(bad_url: tuple[str, str]) -> None:
    """Which setting, why, and what to do; never the password."""
    url, advice = bad_url
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as raised:
        upgrade(url)
    assert time.monotonic() - began < 8
    sentence = str(raised.value)
    assert advice in sentence
    assert "database_url" in sentence
    assert "\n" not in sentence
    assert str(make_url(url).password) not in "".join(traceback.format_exception(raised.value))


def test_a_database_without_tables_is_reported(postgres_database: str) -> None:
    """It exists, but was not upgraded."""
    with pytest.raises(DatabaseUnavailable, match="has no tables yet; run `shoplens db upgrade`"):
        open_database(postgres_database)


def test_a_database_that_cannot_hold_every_letter_is_refused(postgres_url: str) -> None:
    """Before anything is written, with what to do."""
    name = "test_ascii"
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
        try:
            with pytest.raises(Misconfigured, match="needs UTF8"):
                upgrade(f"{postgres_url.rpartition('/')[0]}/{name}")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_user_without_rights_is_reported(postgres_database: str) -> None:
    """Who may connect may not create tables by that alone."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    try:
        with pytest.raises(DatabaseUnavailable, match="does not give this user the right"):
            upgrade(wrong(postgres_database, username="guest", password="guest"))
    finally:
        with psycopg.connect(postgres_database, autocommit=True) as connection:
            connection.execute("DROP ROLE guest")


def test_a_database_that_is_dropped_is_unusable_and_not_only_away(postgres_url: str) -> None:
    """A run does not wait ten minutes for it; for a server that restarts it would."""
    with fresh_database(postgres_url) as url:
        upgrade(url)
        opened = open_database(url)
        opened.check()
        with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
            connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")
        with suppress(DatabaseUnavailable):  # the connection that was cut
            opened.check()
        with pytest.raises(DatabaseUnusable, match="does not exist; create it"):
            opened.check()
        opened.close()
