"""What the tests of results share."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.db import Database
from tests.unit.batch.results_shop import Shop, open_shop


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    """An empty shop."""
    return open_shop(database, tmp_path)
