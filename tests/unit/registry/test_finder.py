"""Which version a name means: the champion, and what happens without one, without a registry, and with a bad one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shoplens.bundles.signing import Trust
from shoplens.bundles.store import SharedBundles, install_bundle
from shoplens.errors import BundleInvalid, BundleTampered, ModelNotFound, StorageUnavailable
from shoplens.registry import finder as module
from shoplens.registry.finder import ModelFinder
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.registry.registry import Registry
from shoplens.storage import Store, open_store
from shoplens.testing.registry_contract import Make, promote, publish
from tests.registry_bundles import bundle_maker, damage
from tests.unit.registry.test_object_registry import utc_now

NAME = "fruit"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A directory."""
    return open_store(str(tmp_path / "registry"))


@pytest.fixture
def registry(store: Store) -> ObjectRegistry:
    """Over it."""
    return ObjectRegistry(store, "the registry", clock=utc_now)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Fruit."""
    return bundle_maker(tmp_path / "made", NAME)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Of the machine that serves; nothing is installed."""
    return tmp_path / "models"


@pytest.fixture
def away() -> Registry:
    """A registry on a server that is not there."""
    options = {"endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b", "region": "eu"}
    return ObjectRegistry(open_store("s3://shop/models", options=options, fail_fast=True), "s3", clock=utc_now)


def finder(models_dir: Path, registry: Registry, shared: SharedBundles | None = None) -> ModelFinder:
    """Without keys."""
    return ModelFinder(models_dir, registry=registry, shared=shared, trust=Trust())


def test_a_name_means_its_champion_and_a_version_means_itself(
    registry: ObjectRegistry, make: Make, models_dir: Path
) -> None:
    """Neither the newest nor the installed one; both are fetched and installed."""
    publish(registry, make("1.0"), make("2.0"), make("3.0"))
    install_bundle(make("3.0").root, models_dir)
    promote(registry, NAME, "2.0")
    found = finder(models_dir, registry).find("fruit")
    assert (make("2.0").digest, models_dir / "fruit" / "2.0") == (found.digest, found.root)
    assert "1.0" == finder(models_dir, registry).find("fruit@1.0").ref.version
    promote(registry, NAME, "1.0")
    assert "1.0" == finder(models_dir, registry).find("fruit").ref.version


def test_without_the_registry_what_was_champion_last_stays(
    registry: ObjectRegistry, away: Registry, make: Make, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Though a newer version is installed; the log says so."""
    publish(registry, make("1.0"), make("2.0"))
    promote(registry, NAME, "1.0")
    finder(models_dir, registry).find("fruit")
    install_bundle(make("2.0").root, models_dir)
    assert "1.0" == finder(models_dir, away).find("fruit").ref.version
    assert "model.registry_away" in caplog.text
    with pytest.raises(StorageUnavailable):
        finder(models_dir, away).find("berry")


def test_without_the_registry_a_model_without_a_champion_is_the_newest_installed(
    registry: ObjectRegistry, away: Registry, make: Make, models_dir: Path
) -> None:
    """As where nothing was ever published."""
    install_bundle(make("1.0").root, models_dir)
    install_bundle(make("2.0").root, models_dir)
    found = [finder(models_dir, each).find("fruit").ref.version for each in (away, registry)]
    assert ["2.0", "2.0"] == found


def test_a_champion_that_was_changed_is_refused_and_the_last_one_stays(
    registry: ObjectRegistry, store: Store, make: Make, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there was none before, it is an error."""
    publish(registry, make("1.0"), make("2.0"))
    promote(registry, NAME, "1.0")
    finder(models_dir, registry).find("fruit")
    damage(store, make("2.0").ref)
    promote(registry, NAME, "2.0")
    assert "1.0" == finder(models_dir, registry).find("fruit").ref.version
    assert "model.champion_refused" in caplog.text
    with pytest.raises(BundleTampered, match=r"fruit@2\.0"):
        finder(models_dir.with_name("other"), registry).find("fruit")


def test_what_was_refused_is_refused_to_single_requests_too(
    registry: ObjectRegistry, make: Make, models_dir: Path
) -> None:
    """A request that names its version would load it in the server itself. Another bundle is not meant."""
    publish(registry, make("1.0"), make("2.0"))
    models = finder(models_dir, registry)
    refused = models.find("fruit@2.0")
    models.refuse(refused, "It ended its process.")
    with pytest.raises(BundleInvalid, match=r"fruit@2\.0 was refused here before: It ended"):
        models.require_not_refused(refused)
    models.require_not_refused(models.find("fruit@1.0"))


def test_refusals_are_kept_for_each_digest_and_within_a_bound(
    models_dir: Path, registry: ObjectRegistry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second refusal forgets no first one; the oldest ones make room, and a damaged file says nothing."""
    publish(registry, make("1.0"), make("2.0", 2.0), make("3.0", 3.0))
    models = finder(models_dir, registry)
    bundles = [models.find(f"fruit@{version}.0") for version in (1, 2, 3)]
    for reason in ("It ended its process.", "It answers too slowly."):
        models.refuse(bundles[0], reason)
    models.refuse(bundles[1], "It ended its process.")
    for bundle, reason in zip(bundles[:2], ("too slowly", "ended"), strict=True):
        with pytest.raises(BundleInvalid, match=reason):
            models.require_not_refused(bundle)
    monkeypatch.setattr(module, "_MOST_REFUSALS", 2)
    models.refuse(bundles[2], "It ended its process.")
    models.require_not_refused(bundles[0])
    for bundle in bundles[1:]:
        with pytest.raises(BundleInvalid):
            models.require_not_refused(bundle)
    (models_dir / "fruit" / ".refused.json").write_text("{")
    models.require_not_refused(bundles[2])


def test_a_path_may_be_given_as_a_path(
    models_dir: Path, registry: ObjectRegistry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that looks like the name of a model."""
    made = make("1.0")
    models = finder(models_dir, registry)
    assert made.digest == models.find(made.root).digest == models.find(str(made.root)).digest
    monkeypatch.chdir(made.root.parent)
    assert made.digest == models.find(Path(made.root.name)).digest


def test_another_bundle_installed_under_the_champions_version_is_refused(
    registry: ObjectRegistry, make: Make, models_dir: Path
) -> None:
    """The sentence has both digests."""
    install_bundle(make("1.0", 2.0).root, models_dir)
    publish(registry, make("1.0"))
    promote(registry, NAME, "1.0")
    with pytest.raises(BundleTampered, match=f"{make('1.0', 2.0).digest[:12]}.*{make('1.0').digest[:12]}"):
        finder(models_dir, registry).find("fruit")


def test_what_is_published_goes_live_by_an_alias_only(
    registry: ObjectRegistry, store: Store, make: Make, models_dir: Path
) -> None:
    """Not because it is the newest, published or installed; what was only pushed is served as it always was."""
    shared = SharedBundles(store, "the registry")
    publish(registry, make("9.0"))
    with pytest.raises(ModelNotFound, match=r"no champion.*9\.0.*registry promote"):
        finder(models_dir, registry, shared).find("fruit")
    shared.push(make("1.0"))
    assert "1.0" == finder(models_dir, registry, shared).find("fruit").ref.version
    promote(registry, NAME, "9.0", "challenger")
    finder(models_dir, registry).find("fruit@9.0")
    assert "1.0" == finder(models_dir, registry, shared).find("fruit").ref.version


def test_a_champion_that_was_taken_away_is_forgotten(
    registry: ObjectRegistry, away: Registry, make: Make, models_dir: Path
) -> None:
    """Then the newest installed version answers, also when the registry is away later."""
    publish(registry, make("1.0"))
    promote(registry, NAME, "1.0")
    finder(models_dir, registry).find("fruit")
    install_bundle(make("2.0").root, models_dir)
    promote(registry, NAME, None)
    assert "2.0" == finder(models_dir, registry).find("fruit").ref.version
    assert "2.0" == finder(models_dir, away).find("fruit").ref.version


def test_a_remembered_champion_that_was_removed_is_not_served(
    registry: ObjectRegistry, away: Registry, make: Make, models_dir: Path
) -> None:
    """What is installed is."""
    publish(registry, make("1.0"))
    promote(registry, NAME, "1.0")
    finder(models_dir, registry).find("fruit")
    shutil.rmtree(models_dir / "fruit" / "1.0")
    install_bundle(make("2.0").root, models_dir)
    assert "2.0" == finder(models_dir, away).find("fruit").ref.version


def test_a_built_in_model_can_have_a_champion_of_the_shop(
    registry: ObjectRegistry, tmp_path: Path, models_dir: Path
) -> None:
    """Retrained under its name; without a champion it is the built-in one."""
    name = "fashion-mnist"
    built_in = finder(models_dir, registry).find(name)
    publish(registry, bundle_maker(tmp_path / "made", name)("9.0"))
    assert built_in.digest == finder(models_dir, registry).find(name).digest
    promote(registry, name, "9.0")
    assert "9.0" == finder(models_dir, registry).find(name).ref.version
