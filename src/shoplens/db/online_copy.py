"""Consistent copies of a SQLite database that is in use, and restoring one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from shoplens.db.database import describe, parse_url
from shoplens.errors import DatabaseUnavailable

_BESIDE: Final = ("", "-wal", "-shm")


def file_of(url: str) -> Path | None:
    """The file of the database; None for a database on a server. Raises Misconfigured."""
    parsed = parse_url(url)
    return Path(describe(parsed)) if parsed.get_backend_name() == "sqlite" else None


def copy_database(database: Path, copy: Path) -> int:
    """Write the database as it is now to `copy`, completely or not at all, while others write; the size in bytes.

    Raises DatabaseUnavailable.
    """
    if not database.is_file():
        raise DatabaseUnavailable(f"There is no database at {database}.")
    with (
        _failures_of(database),
        _appearing(copy) as draft,
        closing(sqlite3.connect(database)) as source,
        closing(sqlite3.connect(draft)) as target,
    ):
        source.backup(target)  # in one step and one view, so no writer makes it start again
        target.execute("PRAGMA journal_mode = DELETE")
    return copy.stat().st_size


def restore_database(copy: Path, database: Path) -> int:
    """Restore a copy to a path without a database; the size in bytes. Raises DatabaseUnavailable, also for an existing
    database.
    """
    if not copy.is_file():
        raise DatabaseUnavailable(f"There is no copy of a database at {copy}.")
    # SQLite would apply the journal of a deleted database to the restored one.
    if there := [name for name in (f"{database}{end}" for end in _BESIDE) if Path(name).exists()]:
        raise DatabaseUnavailable(f"{there[0]} exists; nothing is written over it. Move it away first.")
    database.parent.mkdir(parents=True, exist_ok=True)
    with _failures_of(database), _appearing(database) as draft:
        shutil.copyfile(copy, draft)
        with closing(sqlite3.connect(draft)) as opened:
            opened.execute("PRAGMA journal_mode = WAL")
    return database.stat().st_size


@contextmanager
def _appearing(file: Path) -> Iterator[Path]:
    """A draft beside `file` that is synced and renamed to it at the end; it is deleted after an error."""
    draft = file.with_name(f".{file.name}-{os.urandom(6).hex()}")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(file)
    finally:
        for end in _BESIDE:
            Path(f"{draft}{end}").unlink(missing_ok=True)


@contextmanager
def _failures_of(database: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnavailable(f"The database {database} could not be copied: {error}") from error
