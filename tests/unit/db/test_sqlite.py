"""Which SQLite is used, and what is found in a damaged database."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from shoplens.db import open_database
from shoplens.db.sqlite import driver, has_wal_reset_bug
from shoplens.errors import DatabaseUnusable
from shoplens.predictions.repository import PredictionRepository
from tests.samples import make_record


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
        ((4, 0, 0), False),
    ],
)
def test_the_releases_with_the_wal_reset_bug_are_known(version: tuple[int, int, int], affected: bool) -> None:
    """Two older branches were mended too."""
    assert affected is has_wal_reset_bug(version)


def test_the_library_that_is_used_does_not_have_it() -> None:
    """Here it is Python's own or the packaged one."""
    pytest.importorskip("pysqlite3", reason="there is no wheel of it for this machine")
    assert not has_wal_reset_bug(driver.sqlite_version_info)


def test_the_engine_uses_that_library(database_file: Path) -> None:
    """Two copies in one process would drop each other's locks."""
    opened = open_database(f"sqlite:///{database_file}")
    with opened.reading() as tx:
        assert driver.sqlite_version == tx.execute(text("SELECT sqlite_version()")).scalar()
    opened.close()


def test_a_sound_database_has_no_faults_and_a_short_look_says_nothing(database_file: Path) -> None:
    """A check of a large database is ended in time."""
    opened = open_database(f"sqlite:///{database_file}")
    with opened.transaction() as tx:
        PredictionRepository(tx).add_many(make_record(number) for number in range(3_000))
    assert [] == opened.faults(within_s=60)
    assert opened.faults(within_s=0) is None
    opened.check()
    opened.close()


def test_a_damaged_page_is_found_although_the_database_opens(database_file: Path) -> None:
    """An index that lacks entries is seen by no query that does not use it."""
    opened = open_database(f"sqlite:///{database_file}")
    with opened.transaction() as tx:
        PredictionRepository(tx).add_many(make_record(number) for number in range(3_000))
    opened.close()
    size = database_file.stat().st_size
    with database_file.open("r+b") as file:
        for offset in range(size // 2 // 4096 * 4096, size // 2 // 4096 * 4096 + 10 * 4096, 4096):
            file.seek(offset + 8)
            file.write(b"\xff" * 64)
    damaged = open_database(f"sqlite:///{database_file}")
    try:
        found = damaged.faults(within_s=60)
    except DatabaseUnusable as error:  # SQLite gave up before it had a list
        found = [str(error)]
    damaged.close()
    assert found
