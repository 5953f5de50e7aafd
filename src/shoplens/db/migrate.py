"""Upgrade and downgrade of the schema. Alembic is imported only when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, MetaData

from shoplens.db.database import (
    HEAD,
    REVISIONS,
    begun,
    describe,
    hold_upgrades,
    make_engine,
    parse_url,
    read_revision,
    require_current,
    require_directory,
)
from shoplens.db.failures import translated
from shoplens.db.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

TABLES: Final = (
    "shoplens.db.turns",
    "shoplens.predictions.tables",
    "shoplens.batch.tables",
    "shoplens.accounts.tables",
    "shoplens.webhooks.tables",
    "shoplens.labels.tables",
    "shoplens.moderation.tables",
    "shoplens.retraining.tables",
    "shoplens.catalogue.tables",
    "shoplens.registry.tables",
    "shoplens.monitoring.tables",
    "shoplens.configuration.tables",
    "shoplens.mail.tables",
    "shoplens.monitoring.alerts.tables",
)
"""Modules of features whose tables this program needs; imported by name only where migrations run, since `db` knows
no feature."""
SCRIPTS: Final = Path(__file__).parent / "migrations"
_WAIT_FOR_OTHERS_S: Final = 30.0


def upgrade(url: str) -> None:
    """Create the database if it is missing and run the migrations that it lacks.

    All of them in one transaction, so that two processes at once, or a crash in the middle, do no harm.
    Raises DatabaseUnavailable: unreachable, not ours, or newer than this program.
    """
    if current_revision(url) == HEAD:
        return  # importing Alembic would take longer than all the rest of a start
    from alembic import command

    _migrate(parse_url(url), lambda config: command.upgrade(config, HEAD))


def downgrade(url: str, revision: str) -> None:
    """Undo migrations down to `revision` ("base" undoes all). Loses what the older schema cannot hold."""
    from alembic import command

    _migrate(parse_url(url), lambda config: command.downgrade(config, revision))


def current_revision(url: str) -> str | None:
    """The newest migration that was run on the database; None before the first one. Raises DatabaseUnavailable."""
    parsed = parse_url(url)
    require_directory(parsed)
    engine = make_engine(parsed)
    try:
        with translated(describe(parsed)), engine.connect() as connection:
            return read_revision(connection)
    finally:
        engine.dispose()


def all_tables() -> MetaData:
    """The tables of all features, as they are after the newest migration."""
    for module in TABLES:
        import_module(module)
    return metadata


def _migrate(url: URL, run: Callable[[Config], None]) -> None:
    from alembic.config import Config

    place = describe(url)
    require_directory(url)
    on_sqlite = url.get_backend_name() == "sqlite"
    engine = make_engine(url, busy_timeout_s=_WAIT_FOR_OTHERS_S, statement_timeout_s=None)
    try:
        with translated(place):
            if on_sqlite:  # a lasting property of the file: readers and the writer do not wait for each other
                with closing(engine.raw_connection()) as raw:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")
            with begun(engine, writes=True) as connection:
                if not on_sqlite:
                    hold_upgrades(connection)
                revision = read_revision(connection)
                if revision is not None and revision not in REVISIONS:
                    require_current(revision, place)
                config = Config()
                config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
                config.attributes["connection"] = connection
                run(config)
                connection.commit()
    finally:
        engine.dispose()
