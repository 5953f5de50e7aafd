"""A server for tests of batches over HTTP and in the browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.batch_server import FRUIT, models_with_fruit
from tests.acceptance.catalogue_server import PAINT, models_with_paint
from tests.conftest import RunningServer, running_server


@pytest.fixture(scope="module")
def fruit_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server whose returns are classified by the tiny model: apple, pear and plum."""
    root = tmp_path_factory.mktemp("fruit")
    with running_server(root / "data", models_with_fruit(root / "models", models_dir), **FRUIT) as started:
        yield started


@pytest.fixture(scope="module")
def http(fruit_server: RunningServer) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=fruit_server.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def paint_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server with a channel `catalogue`, whose tiny model tells three colours by photo, text or both."""
    root = tmp_path_factory.mktemp("paint")
    with running_server(root / "data", models_with_paint(root / "models", models_dir), **PAINT) as started:
        yield started


@pytest.fixture(scope="module")
def paint(paint_server: RunningServer) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=paint_server.url, timeout=60, trust_env=False) as client:
        yield client
