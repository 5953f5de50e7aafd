"""The migrations: from nothing to this program's schema and back."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect, text

from shoplens.batch.repository import ItemRepository
from shoplens.db import Database, current_revision, downgrade, open_database, upgrade
from shoplens.db.database import HEAD, REVISIONS, make_engine, parse_url
from shoplens.db.migrate import SCRIPTS, all_tables
from shoplens.predictions.repository import PredictionRepository
from tests.conftest import ONLY_POSTGRESQL
from tests.samples import make_item, make_record

WORDS = "catalogue_search"
"""The index of words in products: written by hand, and on SQLite tables of its own."""


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database to be made: no file yet, or one without tables at the server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/with 100% and spaces.db"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def made_url(bare_url: str) -> str:
    """The same with all tables; it may be undone."""
    upgrade(bare_url)
    return bare_url


def table_names(url: str) -> set[str]:
    """What a stranger sees."""
    engine = make_engine(parse_url(url))
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_an_upgrade_makes_the_database(bare_url: str) -> None:
    """From an empty database."""
    upgrade(bare_url)
    assert HEAD == current_revision(bare_url)
    open_database(bare_url).close()


def test_an_upgrade_of_the_newest_keeps_everything(database: Database, database_url: str) -> None:
    """It may run at every start, also beside a running server."""
    record = make_record()
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([record])
    upgrade(database_url)
    with database.reading() as tx:
        assert record == PredictionRepository(tx).get(record.id)


def test_upgrades_at_once_make_one_schema(bare_url: str) -> None:
    """Two processes that start together: one waits for the other."""
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            upgrade(bare_url)
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([], HEAD) == (failures, current_revision(bare_url))


def test_a_downgrade_goes_back_to_nothing_and_an_upgrade_returns(made_url: str) -> None:
    """Every migration can be undone."""
    downgrade(made_url, "base")
    assert ({"alembic_version"}, None) == (table_names(made_url), current_revision(made_url))
    upgrade(made_url)
    found = {name for name in table_names(made_url) if not name.startswith(WORDS)}
    assert {"alembic_version", *all_tables().tables} == found


def test_photos_of_batches_get_their_file_names(made_url: str) -> None:
    """Those that were classified before file names were stored."""
    database = open_database(made_url)
    record, other = make_record(1), make_record(2)
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([record, other])
        ItemRepository(tx).add_many([make_item(1, source_name="2026/05/Coat 055.JPG", prediction_id=record.id)])
    database.close()
    downgrade(made_url, "0003")
    upgrade(made_url)

    database = open_database(made_url)
    with database.reading() as tx:
        found = [PredictionRepository(tx).get(each.id).file_name for each in (record, other)]
    database.close()
    assert ["Coat 055.JPG", None] == found


def test_the_migrations_lead_to_the_tables_of_the_program(database_url: str) -> None:
    """Alembic finds no difference: no forgotten column, index or type."""
    engine = make_engine(parse_url(database_url))
    with engine.connect() as connection:
        options = {"compare_type": True, "include_object": lambda _, name, *__: not str(name).startswith(WORDS)}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, all_tables())
    engine.dispose()
    assert [] == differences


def test_the_constraints_are_those_of_the_program(database_url: str) -> None:
    """Alembic does not compare checks, so the words that they allow are."""
    engine = make_engine(parse_url(database_url))
    found = {
        table: [words(check["sqltext"]) for check in inspect(engine).get_check_constraints(table)]
        for table in all_tables().tables
    }
    engine.dispose()
    wanted = {
        name: [words(str(each.sqltext)) for each in table.constraints if isinstance(each, CheckConstraint)]
        for name, table in all_tables().tables.items()
    }
    assert wanted == found
    assert any(found.values())


def words(check: str) -> set[str]:
    """What stands in quotation marks."""
    return set(re.findall("'([^']+)'", check))


@ONLY_POSTGRESQL
def test_texts_are_compared_byte_by_byte(database_url: str) -> None:
    """So order and ranges are those of SQLite with every locale of the server."""
    engine = make_engine(parse_url(database_url))
    with engine.connect() as connection:
        others = connection.execute(
            text(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
                " AND data_type IN ('text', 'character varying') AND collation_name IS DISTINCT FROM 'C'"
            )
        ).all()
    engine.dispose()
    assert [("alembic_version", "version_num")] == [tuple(row) for row in others]


def test_the_program_knows_every_migration() -> None:
    """The list that is read without Alembic is Alembic's."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert list(REVISIONS) == [script.revision for script in scripts.walk_revisions()][::-1]
