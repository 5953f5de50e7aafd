"""The registry in a directory and in memory: the contract, and what is particular to objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.signing import Trust
from shoplens.bundles.store import SharedBundles
from shoplens.registry.errors import RegistryDamaged
from shoplens.registry.object_registry import ObjectRegistry, copy_registry
from shoplens.storage import Store, open_store
from shoplens.storage.local import LocalStore
from shoplens.testing.registry_contract import Make, RegistryContract, promote, publish
from tests.registry_bundles import bundle_maker, damage

NAME = "fruit"


def utc_now() -> datetime:
    """A real clock."""
    return datetime.now(UTC)


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Empty."""
    return open_store("memory://" if request.param == "memory" else str(tmp_path / "registry"))


@pytest.fixture
def registry(store: Store) -> ObjectRegistry:
    """Over it."""
    return ObjectRegistry(store, "the store", clock=utc_now)


@pytest.fixture
def name() -> str:
    """The only one in the store."""
    return NAME


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Fruit."""
    return bundle_maker(tmp_path / "made", NAME)


@pytest.fixture
def tamper(store: Store) -> Callable[[ModelRef], None]:
    """By a client that may write to the store."""
    return partial(damage, store)


class TestObjectRegistry(RegistryContract):
    """A directory, and memory."""


def test_a_missing_entry_of_the_history_is_named(registry: ObjectRegistry, store: Store, make: Make) -> None:
    """What is left of it is not shown as if it were complete."""
    publish(registry, make("1.0"), make("2.0"), make("3.0"))
    for version in ("1.0", "2.0", "3.0"):
        promote(registry, NAME, version)
    store.delete("fruit/_history/000002.json")
    with pytest.raises(RegistryDamaged, match=r"fruit/_history/000002\.json"):
        registry.history(NAME)
    assert "3.0" == registry.aliases(NAME).champion


def test_aliases_that_cannot_be_read_are_no_champion(registry: ObjectRegistry, store: Store, make: Make) -> None:
    """They are an error that says what to do."""
    publish(registry, make("1.0"))
    store.put_pieces("fruit/_aliases.json", [b'{"by_alias": '])
    with pytest.raises(RegistryDamaged, match="Restore it"):
        registry.aliases(NAME)


def test_a_bundle_that_was_only_pushed_is_a_version_without_a_record(
    registry: ObjectRegistry, store: Store, make: Make
) -> None:
    """As earlier releases published; publishing it adds the record, and an alias can be given in both cases."""
    SharedBundles(store, "the store").push(make("1.0"))
    (pushed,) = registry.versions(NAME)
    assert (None, "", "") == (pushed.created_at, pushed.by, pushed.note)
    promote(registry, NAME, "1.0")
    publish(registry, make("1.0"))
    assert ["ann"] == [version.by for version in registry.versions(NAME)]


def test_a_clock_that_goes_back_does_not_change_the_order(store: Store, make: Make) -> None:
    """So what was live when stays what it was."""
    now = utc_now()
    times = iter([now, now, now, now - timedelta(hours=1)])
    registry = ObjectRegistry(store, "the store", clock=lambda: next(times))
    publish(registry, make("1.0"), make("2.0"))
    promote(registry, NAME, "1.0")
    promote(registry, NAME, "2.0")
    assert [now, now] == [entry.at for entry in registry.history(NAME)]


class LossyStore(LocalStore):
    """Writes, and then loses the answer, so that the client repeats the write."""

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """The repeated write."""
        super().put_if(key, data, seen=seen)
        return super().put_if(key, data, seen=seen)


def test_a_write_whose_answer_was_lost_is_the_writers_own(tmp_path: Path, make: Make) -> None:
    """Its change happened once, and is no conflict with itself."""
    registry = ObjectRegistry(LossyStore(tmp_path / "registry"), "the store", clock=utc_now)
    publish(registry, make("1.0"), make("2.0"))
    for version in ("1.0", "2.0"):
        promote(registry, NAME, version)
    assert ["1.0", "2.0"] == [entry.after for entry in registry.history(NAME)]


def test_a_copy_is_the_registry_of_one_moment(
    registry: ObjectRegistry, store: Store, make: Make, tmp_path: Path
) -> None:
    """A later one brings it up to date; one that is put back leaves what is there."""
    copy = open_store(str(tmp_path / "copy"))
    copied = ObjectRegistry(copy, "the copy", clock=utc_now)
    publish(registry, make("1.0"), make("2.0"))
    for version in ("1.0", "2.0"):
        promote(registry, NAME, version)
        copy_registry(store, copy, replace_aliases=True)
        assert registry.history(NAME) == copied.history(NAME)
    promote(registry, NAME, "1.0")
    later = registry.history(NAME)
    copy_registry(copy, store, replace_aliases=False)
    assert (later, "1.0") == (registry.history(NAME), registry.aliases(NAME).champion)
    assert make("2.0").digest == copied.fetch(make("2.0").ref, tmp_path / "models", Trust()).digest


def test_aliases_and_a_history_of_two_backups_are_refused(registry: ObjectRegistry, store: Store, make: Make) -> None:
    """A change would hide what happened."""
    publish(registry, make("1.0"), make("2.0"), make("3.0"))
    promote(registry, NAME, "1.0")
    old = store.get("fruit/_aliases.json")
    promote(registry, NAME, "2.0")
    promote(registry, NAME, "3.0")
    store.put_pieces("fruit/_aliases.json", [old])
    promote(registry, NAME, "3.0")
    with pytest.raises(RegistryDamaged, match="from the same one"):
        promote(registry, NAME, "1.0")
