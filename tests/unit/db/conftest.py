"""A real database per test: migrated once, then copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoplens.db import Database, open_database, upgrade


@pytest.fixture(scope="session")
def empty_database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows; do not write to it."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def database_file(empty_database_file: Path, tmp_path: Path) -> Path:
    """A migrated database of this test alone."""
    return Path(shutil.copy(empty_database_file, tmp_path / "shoplens.db"))


@pytest.fixture
def database(database_file: Path) -> Iterator[Database]:
    """The same, opened."""
    opened = open_database(f"sqlite:///{database_file}")
    yield opened
    opened.close()
