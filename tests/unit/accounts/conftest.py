"""A desk for each test, on both databases."""

from __future__ import annotations

import pytest

from shoplens.db import Database
from tests.unit.accounts.desk import Desk


@pytest.fixture
def desk(database: Database) -> Desk:
    """The services over a database without rows."""
    return Desk(database)
