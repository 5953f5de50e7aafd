"""Publishing, promotion and roll-back: what is checked, and who is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.bundles.builtin import builtin_version
from shoplens.bundles.signing import Trust, make_key, sign_bundle
from shoplens.db import Database, open_database
from shoplens.errors import BundleUntrusted, ModelNotFound
from shoplens.registry import publishing
from shoplens.registry.entities import HistoryEntry
from shoplens.registry.errors import AliasChanged, NoEarlierChampion, RegistryDamaged
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.registry.publishing import RegistryService
from shoplens.storage import open_store
from shoplens.testing.registry_contract import Make
from shoplens.webhooks.service import WebhookService
from shoplens.webhooks.targets import Targets
from tests.registry_bundles import bundle_maker
from tests.unit.registry.test_object_registry import utc_now

NAME = "fruit"


@pytest.fixture
def database(database_file: Path) -> Iterator[Database]:
    """A migrated one."""
    with closing(open_database(f"sqlite:///{database_file}")) as opened:
        yield opened


@pytest.fixture
def audit(database: Database) -> AuditLog:
    """Of that database."""
    return AuditLog(database, clock=utc_now)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Fruit."""
    return bundle_maker(tmp_path / "made", NAME)


def service(
    tmp_path: Path, database: Database | None = None, audit: AuditLog | None = None, trust: Trust | None = None
) -> RegistryService:
    """Over a registry in a directory."""
    registry = ObjectRegistry(open_store(str(tmp_path / "registry")), "the registry", clock=utc_now)
    return RegistryService(
        registry, models_dir=tmp_path / "models", trust=trust or Trust(), database=database, audit=audit, clock=utc_now
    )


def publish(registry: RegistryService, make: Make, *versions: str) -> None:
    """With figures that tell them apart."""
    for version in versions:
        registry.publish(make(version), SYSTEM, why="a test", figures={"F1": float(version)})


def test_a_promotion_is_audited_and_sent_to_other_systems(
    tmp_path: Path, database: Database, audit: AuditLog, make: Make
) -> None:
    """With the reason; the figures are those of the version."""
    webhooks = WebhookService(database, targets=Targets(()), event_types=("model.promoted",), clock=utc_now)
    webhooks.add("https://shop.example/hooks", events=["model.promoted"])
    registry = service(tmp_path, database, audit)
    publish(registry, make, "1.0", "2.0")
    registry.set_alias(NAME, "champion", "1.0", SYSTEM, why="the first")
    registry.set_alias(NAME, "champion", "2.0", SYSTEM, why="better")
    entry = registry.roll_back(NAME, SYSTEM, why="worse after all")
    assert ("2.0", "1.0", {"F1": 1.0}) == (entry.before, entry.after, entry.figures)
    entries = audit.page(AuditFilter(), limit=10)
    told = [(each.action, each.target, each.details["why"]) for each in reversed(entries)]
    published = [("model.published", f"fruit@{version}", "a test") for version in ("1.0", "2.0")]
    assert [
        *published, ("model.promoted", NAME, "the first"), ("model.promoted", NAME, "better"),
        ("model.rolled_back", NAME, "worse after all"),
    ] == told  # fmt: skip
    assert ["model.promoted"] * 3 == [view.type for view in webhooks.deliveries(limit=10)]


def test_without_a_database_the_registry_alone_keeps_the_history(tmp_path: Path, make: Make) -> None:
    """As on a machine that only trains."""
    registry = service(tmp_path)
    publish(registry, make, "1.0")
    registry.set_alias(NAME, "champion", "1.0", SYSTEM, why="the first")
    live = registry.live(NAME, utc_now())
    assert live is not None
    assert ("1.0", "the first", registry.model(NAME).live) == (live.after, live.why, live)


def test_nothing_earlier_is_nothing_to_roll_back_to(tmp_path: Path, make: Make) -> None:
    """Also for a model that nobody knows."""
    registry = service(tmp_path)
    publish(registry, make, "1.0")
    registry.set_alias(NAME, "champion", "1.0", SYSTEM, why="the first")
    with pytest.raises(NoEarlierChampion, match="Promote a version instead"):
        registry.roll_back(NAME, SYSTEM, why="?")
    for unknown in ("berry", "../x"):
        with pytest.raises(ModelNotFound):
            registry.roll_back(unknown, SYSTEM, why="?")


def test_a_page_that_is_out_of_date_changes_nothing(tmp_path: Path, make: Make) -> None:
    """What somebody decided on what is no longer there."""
    registry = service(tmp_path)
    publish(registry, make, "1.0", "2.0")
    registry.set_alias(NAME, "champion", "1.0", SYSTEM, why="the first")
    seen = registry.model(NAME).aliases
    registry.set_alias(NAME, "champion", "2.0", SYSTEM, why="better")
    with pytest.raises(AliasChanged):
        registry.roll_back(NAME, SYSTEM, why="late", expected=seen)


def test_where_keys_are_required_an_unsigned_model_is_neither_published_nor_promoted(
    tmp_path: Path, make: Make
) -> None:
    """No server would load it. A signed one is."""
    key = make_key(tmp_path / "key.pem")
    strict = service(tmp_path, trust=Trust(keys=frozenset({key}), required=True))
    with pytest.raises(BundleUntrusted):
        publish(strict, make, "1.0")
    publish(service(tmp_path), make, "1.0")
    with pytest.raises(BundleUntrusted, match="no server would load it"):
        strict.set_alias(NAME, "champion", "1.0", SYSTEM, why="the first")
    sign_bundle(make("2.0"), tmp_path / "key.pem")
    publish(strict, make, "2.0")
    assert "2.0" == strict.set_alias(NAME, "champion", "2.0", SYSTEM, why="signed").after


def test_of_a_long_history_as_much_is_read_as_is_needed(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is live since when, what a roll-back leads to, and what was live at a moment, over several pages."""
    monkeypatch.setattr(publishing, "_READ_AT_ONCE", 2)
    registry = ObjectRegistry(open_store(str(tmp_path / "registry")), "the registry", clock=utc_now)
    for number in range(1, 4):
        registry.publish(make(f"{number}.0", float(number)), by="ann", why="a test", figures={})
    service = RegistryService(registry, models_dir=tmp_path, trust=Trust(), database=None, audit=None, clock=utc_now)
    entries = [service.set_alias("fruit", "champion", f"{each}.0", SYSTEM, why="first") for each in (1, 2)]
    for number in range(6):
        challenger = "3.0" if number % 2 == 0 else None
        service.set_alias("fruit", "challenger", challenger, SYSTEM, why="a trial")
    model = service.model("fruit")
    assert (entries[1], "1.0") == (model.live, model.previous)
    assert "1.0" == service.roll_back("fruit", SYSTEM, why="It was slow.").after
    store = open_store(str(tmp_path / "registry"))
    page = service.changes("fruit", limit=1)
    assert ["1.0"] == [entry.after for entry in page.entries]
    store.delete("fruit/_history/000001.json")  # older than what is asked for
    assert entries[1] == service.live("fruit", entries[1].at)
    with pytest.raises(RegistryDamaged):
        service.live("fruit", entries[0].at.replace(year=2020))


def test_a_model_that_replaced_a_built_in_one_is_rolled_back_to_it(tmp_path: Path) -> None:
    """The built-in model is published and in the history before its first successor, so every server can go back."""
    name = "fashion-mnist"
    built_in = builtin_version(name)
    registry = service(tmp_path)
    publish(registry, bundle_maker(tmp_path / "made", name), "2.0")
    assert ("2.0", built_in) == _moved(registry.set_alias(name, "champion", "2.0", SYSTEM, why="trained here"))
    assert built_in == registry.model(name).previous
    entry = registry.roll_back(name, SYSTEM, why="worse after all")
    assert (built_in, "2.0") == _moved(entry)
    assert entry.figures["accuracy"] > 0.9
    model = registry.model(name)
    assert ({built_in, "2.0"}, None) == ({each.ref.version for each in model.versions}, model.previous)
    assert [None, built_in, "2.0"] == [each.before for each in model.history]


def test_a_champion_from_before_the_built_in_model_was_recorded_is_rolled_back_to_it(tmp_path: Path) -> None:
    """A registry of an earlier release has no entry for what answered before its first champion."""
    name = "fashion-mnist"
    registry = service(tmp_path)
    publish(registry, bundle_maker(tmp_path / "made", name), "2.0")
    old = ObjectRegistry(open_store(str(tmp_path / "registry")), "the registry", clock=utc_now)
    old.set_alias(name, "champion", "2.0", by="ann", why="the first", figures={}, expected=old.aliases(name))
    assert builtin_version(name) == registry.model(name).previous
    assert (builtin_version(name), "2.0") == _moved(registry.roll_back(name, SYSTEM, why="worse after all"))


def _moved(entry: HistoryEntry) -> tuple[str | None, str | None]:
    return entry.after, entry.before
