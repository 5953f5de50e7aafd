"""The migrations: from nothing to this program's schema and back."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint

from shoplens.db import Database, current_revision, downgrade, open_database, upgrade
from shoplens.db.database import make_engine, parse_url
from shoplens.db.migrate import SCRIPTS
from shoplens.db.schema import HEAD, REVISIONS
from shoplens.db.tables import metadata
from tests.unit.db.samples import make_record


def table_names(path: Path) -> set[str]:
    """What a stranger sees; what SQLite keeps for itself (its counter of numbers) is no table of ours."""
    with closing(sqlite3.connect(path)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {name for name in names if not name.startswith("sqlite_")}


def test_an_upgrade_makes_the_database(tmp_path: Path) -> None:
    """From no file at all."""
    url = f"sqlite:///{tmp_path}/with 100% and spaces.db"
    upgrade(url)
    assert HEAD == current_revision(url)
    open_database(url).close()


def test_an_upgrade_of_the_newest_keeps_everything(database: Database, database_file: Path) -> None:
    """It may run at every start, also beside a running server."""
    record = make_record()
    with database.uow() as work:
        work.predictions.add_many([record])
    upgrade(f"sqlite:///{database_file}")
    with database.reading() as work:
        assert record == work.predictions.get(record.id)


def test_upgrades_at_once_make_one_schema(tmp_path: Path) -> None:
    """Two processes that start together: one waits for the other."""
    url = f"sqlite:///{tmp_path}/shoplens.db"
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            upgrade(url)
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([], HEAD) == (failures, current_revision(url))


def test_a_downgrade_goes_back_to_nothing_and_an_upgrade_returns(database_file: Path) -> None:
    """Every migration can be undone."""
    url = f"sqlite:///{database_file}"
    downgrade(url, "base")
    assert ({"alembic_version"}, None) == (table_names(database_file), current_revision(url))
    upgrade(url)
    assert {"alembic_version", *metadata.tables} == table_names(database_file)


def test_the_migrations_lead_to_the_tables_of_the_program(database_file: Path) -> None:
    """Alembic finds no difference: no forgotten column, index or type."""
    engine = make_engine(parse_url(f"sqlite:///{database_file}"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert [] == differences


def test_the_constraints_are_those_of_the_program(database_file: Path) -> None:
    """Alembic does not compare checks, so their text is."""
    checks = [
        f"CONSTRAINT {constraint.name} CHECK ({constraint.sqltext})"
        for constraint in metadata.tables["predictions"].constraints
        if isinstance(constraint, CheckConstraint)
    ]
    with closing(sqlite3.connect(database_file)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'predictions'").fetchone()
    assert (1, True) == (len(checks), checks[0] in sql), sql


def test_the_program_knows_every_migration() -> None:
    """The list that is read without Alembic is Alembic's."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert list(REVISIONS) == [script.revision for script in scripts.walk_revisions()][::-1]
