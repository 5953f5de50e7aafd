"""The registry in a real S3: the contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from servers.seaweed import S3Place
from shoplens.bundles.manifest import ModelRef
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.storage import Store, open_store
from shoplens.testing.registry_contract import Make, RegistryContract
from tests.registry_bundles import bundle_maker, damage
from tests.unit.registry.test_object_registry import utc_now


@pytest.fixture
def store(s3: S3Place) -> Store:
    """Below a prefix of its own."""
    return open_store(s3.url, options=s3.options)


@pytest.fixture
def registry(store: Store) -> ObjectRegistry:
    """Over it."""
    return ObjectRegistry(store, "S3", clock=utc_now)


@pytest.fixture
def name() -> str:
    """The only one below the prefix."""
    return "fruit"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Fruit."""
    return bundle_maker(tmp_path / "made", "fruit")


@pytest.fixture
def tamper(store: Store) -> Callable[[ModelRef], None]:
    """By a client that may write to the bucket."""
    return partial(damage, store)


class TestS3Registry(RegistryContract):
    """A bucket."""
