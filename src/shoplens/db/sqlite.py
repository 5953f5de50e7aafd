"""Which SQLite library this process uses: Python's own, or a newer one where that has the WAL-reset bug.

Every part takes `driver` from here. Two copies of SQLite that open the same file in one process would drop each
other's locks (https://sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import sqlite3
from types import ModuleType
from typing import Final

_FIXED_IN: Final = (3, 51, 3)
_FIXED_BRANCHES: Final = {(3, 44): 6, (3, 50): 7}
"""Older releases that got the fix too, with the first patch that has it."""


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can damage a database in WAL mode: two connections that write and checkpoint at the same
    moment may lose a transaction (https://sqlite.org/wal.html#walresetbug).
    """
    major, minor, patch = version[:3]
    fixed_from = _FIXED_BRANCHES.get((major, minor))
    return version < _FIXED_IN and (fixed_from is None or patch < fixed_from)


def _choose() -> ModuleType:
    if not has_wal_reset_bug(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        from pysqlite3 import dbapi2
    except ImportError:  # there are no wheels for this machine; `shoplens doctor` warns
        return sqlite3
    packaged: ModuleType = dbapi2
    return packaged if packaged.sqlite_version_info > sqlite3.sqlite_version_info else sqlite3


driver: Final = _choose()
"""The DB-API module, with the names of `sqlite3`."""
