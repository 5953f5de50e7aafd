"""A services for each test, on both databases."""

from __future__ import annotations

import pytest

from shoplens.db import Database
from tests.unit.accounts.services import Services


@pytest.fixture
def services(database: Database) -> Services:
    """The services over a database without rows."""
    return Services(database)
