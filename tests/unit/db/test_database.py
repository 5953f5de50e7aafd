"""Opening a database: what is refused, and that every refusal says what to do."""

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from shoplens.db import Database, current_revision, open_database, upgrade
from shoplens.db.database import make_engine, parse_url
from shoplens.db.sqlite import driver as sqlite3
from shoplens.errors import DatabaseUnavailable, DatabaseUnusable, Misconfigured
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository
from tests.samples import make_record
from tests.unit.db.blocker import blocked


def run_sql(path: Path, sql: str) -> None:
    """Behind the program's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    """Both to who opens and to who upgrades."""
    url = f"sqlite:///{tmp_path}/missing/shoplens.db"
    for attempt in (open_database, upgrade, current_revision):
        with pytest.raises(DatabaseUnavailable, match="missing of the database does not exist"):
            attempt(url)


def test_a_missing_file_is_reported_and_not_created(tmp_path: Path) -> None:
    """A mistyped path must not become an empty database."""
    with pytest.raises(DatabaseUnavailable, match="run `shoplens db upgrade`"):
        open_database(f"sqlite:///{tmp_path}/shoplens.db")
    assert [] == list(tmp_path.iterdir())


def test_an_empty_file_needs_an_upgrade(tmp_path: Path) -> None:
    """It is a valid database without tables."""
    path = tmp_path / "shoplens.db"
    path.touch()
    with pytest.raises(DatabaseUnavailable, match="has no tables yet; run `shoplens db upgrade`"):
        open_database(f"sqlite:///{path}")


def test_an_older_schema_needs_an_upgrade(database_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from a program that has one migration more."""
    monkeypatch.setattr("shoplens.db.database.HEAD", "9998")
    with pytest.raises(DatabaseUnavailable, match="at schema 0005 and this program needs 9998; run `shoplens db up"):
        open_database(f"sqlite:///{database_file}")


def test_a_newer_schema_needs_a_newer_program(database_file: Path) -> None:
    """Neither opening nor upgrading touches it."""
    run_sql(database_file, "UPDATE alembic_version SET version_num = '9999'")
    for attempt in (open_database, upgrade):
        with pytest.raises(DatabaseUnavailable, match="schema 9999, which is newer than this program"):
            attempt(f"sqlite:///{database_file}")


def test_a_file_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    """And left as it is."""
    path = tmp_path / "shoplens.db"
    path.write_bytes(b"these are not the pages of a database" * 100)
    for attempt in (open_database, upgrade):
        with pytest.raises(DatabaseUnavailable, match="is not an SQLite database; restore it"):
            attempt(f"sqlite:///{path}")
    assert path.read_bytes().startswith(b"these are not")


def test_a_damaged_file_is_reported(database_file: Path) -> None:
    """Pages overwritten in the middle."""
    with database_file.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (database_file.stat().st_size - 4096))
    with pytest.raises(DatabaseUnavailable, match="is damaged; restore it from a backup"):
        opened = open_database(f"sqlite:///{database_file}")
        with opened.reading() as tx:
            PredictionRepository(tx).page(RecordFilter(), limit=5)


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_database_that_is_no_longer_the_same_file_is_refused_at_once(database_file: Path, replaced: bool) -> None:
    """SQLite itself would write into the removed file, or make an empty one: answered rows would be lost in silence."""
    opened = open_database(f"sqlite:///{database_file}")
    with opened.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(1)])
    other = Path(shutil.copy(database_file, database_file.with_name("other.db")))
    database_file.rename(database_file.with_name("moved.db"))
    if replaced:
        other.rename(database_file)
    message = "was replaced by another file" if replaced else "it does not exist. Put it back"
    for use in (opened.check, opened.reading().__enter__, opened.transaction().__enter__):
        with pytest.raises(DatabaseUnusable, match=message):
            use()
    opened.close()
    with pytest.raises(DatabaseUnusable, match=message):
        opened.check()
    assert replaced is database_file.exists()


def test_a_database_that_is_removed_within_a_transaction_does_not_report_it_as_committed(database_file: Path) -> None:
    """What was committed went into a file that nobody finds again."""
    opened = open_database(f"sqlite:///{database_file}")
    with pytest.raises(DatabaseUnusable), opened.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(1)])
        database_file.unlink()
    opened.close()


def test_a_database_that_is_put_back_is_used_again(database_file: Path) -> None:
    """It is the same file."""
    opened = open_database(f"sqlite:///{database_file}")
    moved = database_file.rename(database_file.with_name("moved.db"))
    with pytest.raises(DatabaseUnusable):
        opened.check()
    moved.rename(database_file)
    opened.check()
    opened.close()


def test_a_path_with_signs_of_a_url_is_one_file(empty_database_file: Path, tmp_path: Path) -> None:
    """It goes to SQLite as a URI."""
    path = Path(shutil.copy(empty_database_file, tmp_path / "orders &c. #1.db"))
    opened = open_database(f"sqlite:///{path}")
    opened.check()
    opened.close()
    assert {path.name} == {each.name for each in tmp_path.iterdir()}


def test_a_read_only_database_reads_and_says_why_it_does_not_write(database_file: Path) -> None:
    """The readiness check fails with the same sentence."""
    opened = open_database(f"sqlite:///file:{database_file}?mode=ro&uri=true")
    with opened.reading() as tx:
        assert [] == PredictionRepository(tx).page(RecordFilter(), limit=5)
    with pytest.raises(DatabaseUnavailable, match="is read-only; give this user write permission"):
        opened.check()
    with pytest.raises(DatabaseUnavailable, match="is read-only"), opened.transaction() as tx:
        PredictionRepository(tx).add_many([make_record()])
    opened.close()


def test_a_locked_database_is_reported(database_url: str) -> None:
    """After the time that a writer waits; reading still works."""
    impatient = open_database(database_url, busy_timeout_s=0.05)
    with blocked(database_url):
        with pytest.raises(DatabaseUnavailable, match="is locked by another process"):
            impatient.check()
        with impatient.reading() as tx:
            assert [] == PredictionRepository(tx).page(RecordFilter(), limit=5)
    impatient.check()
    impatient.close()


def test_a_check_waits_for_a_writer_and_changes_nothing(database: Database) -> None:
    """Readiness does not flicker while rows are written."""
    entered = threading.Event()

    def write() -> None:
        with database.transaction() as tx:
            entered.set()
            PredictionRepository(tx).add_many([make_record()])

    thread = threading.Thread(target=write)
    thread.start()
    entered.wait()
    database.check()
    thread.join()
    with database.reading() as tx:
        assert 1 == len(PredictionRepository(tx).page(RecordFilter(), limit=9))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shoplens.db", "cannot be read"),
        ("", "cannot be read"),
        ("postgresql://shop:secret@host:port/shop", "cannot be read"),
        ("postgresql://shop:se@cret/x@host/shop", "cannot be read"),
        ("mysql://localhost/shop", "'mysql' is not supported"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
    ],
)
def test_a_url_of_no_use_is_misconfigured(url: str, message: str) -> None:
    """With a sentence that says what it should be."""
    with pytest.raises(Misconfigured, match=message):
        open_database(url)


def test_postgresql_is_reached_through_psycopg() -> None:
    """However its URL is written."""
    assert "postgresql+psycopg" == parse_url("postgresql://user@host/shop").drivername


@pytest.mark.parametrize(("synchronous", "number"), [("NORMAL", 1), ("FULL", 2)])
def test_every_connection_has_the_habits(database_file: Path, synchronous: str, number: int) -> None:
    """Write-ahead log, foreign keys, waiting, and the durability that was asked for."""
    engine = make_engine(parse_url(f"sqlite:///{database_file}"), synchronous=synchronous)  # type: ignore[arg-type]
    with engine.connect() as connection:
        values = [
            connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        ]
    engine.dispose()
    assert ["wal", 1, 5000, number] == values
