"""Bundles are shared through a store: complete or invisible, verified, and never changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.bundles.bundle import CHECKSUMS, Bundle, open_bundle, write_bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.store import SharedBundles, resolve_bundle
from shoplens.errors import (
    BundleError,
    BundleIncomplete,
    BundleInvalid,
    BundleTampered,
    Misconfigured,
    ModelNotFound,
    StorageUnavailable,
)
from shoplens.storage import Store, open_store
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

Harm = Callable[[bytes], bytes | None]
FRUIT = ModelRef(name="fruit", version="1.2.0")


def fruit(root: Path, version: str = "1.2.0", *, weight: float = 1.0) -> Bundle:
    """A bundle of three fruits in a models directory."""
    manifest = replace(MANIFEST, version=version)
    return write_bundle(
        root / "fruit" / version, manifest=manifest, labels=LABELS, card=CARD, model=small_model(weight=weight)
    )


@pytest.fixture
def store() -> Store:
    """Empty."""
    return open_store("memory://")


@pytest.fixture
def shared(store: Store) -> SharedBundles:
    """Over it."""
    return SharedBundles(store, "memory://")


def test_a_bundle_that_was_pushed_is_found_by_another_machine(
    shared: SharedBundles, bundle: Bundle, tmp_path: Path
) -> None:
    """The same bytes, verified, and kept there for the next start."""
    assert shared.push(bundle)
    found = resolve_bundle("fruit", tmp_path / "other", shared)
    assert (bundle.digest, tmp_path / "other" / "fruit" / "1.2.0") == (found.digest, found.root)
    assert ["1.2.0"] == [path.name for path in (tmp_path / "other" / "fruit").iterdir()]
    assert bundle.digest == resolve_bundle("fruit@1.2.0", tmp_path / "other").digest


def test_pushing_again_changes_nothing(shared: SharedBundles, bundle: Bundle) -> None:
    """The second push returns False."""
    assert [True, False] == [shared.push(bundle) for _ in range(2)]
    assert [FRUIT] == shared.published()


def test_a_version_is_never_another_bundle(shared: SharedBundles, bundle: Bundle, tmp_path: Path) -> None:
    """The published bundle does not change."""
    shared.push(bundle)
    with pytest.raises(BundleInvalid, match=r"published as fruit@1\.2\.0 .* Give this one another version"):
        shared.push(fruit(tmp_path / "mine", weight=2.0))
    assert bundle.digest == shared.fetch(FRUIT, tmp_path / "other").digest


def test_one_of_several_concurrent_pushes_of_a_version_wins(
    shared: SharedBundles, store: Store, tmp_path: Path
) -> None:
    """Its bundle is complete; nothing of the others is left."""
    bundles = [fruit(tmp_path / str(number), weight=1.0 + number) for number in range(4)]

    def push(bundle: Bundle) -> bool:
        try:
            return shared.push(bundle)
        except BundleInvalid:
            return False

    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(push, bundles))
    assert 1 == sum(won)
    winner = bundles[won.index(True)]
    assert winner.digest == shared.fetch(FRUIT, tmp_path / "other").digest
    assert len(list(winner.root.iterdir())) == len(list(store.list("")))


def test_the_newest_version_is_used_installed_or_published(shared: SharedBundles, tmp_path: Path) -> None:
    """1.10 comes after 1.9, as in a models directory."""
    for version in ("1.9", "1.10"):
        shared.push(fruit(tmp_path / "mine", version))
    fruit(tmp_path / "other", "1.2.0")
    assert "1.10" == resolve_bundle("fruit", tmp_path / "other", shared).ref.version
    fruit(tmp_path / "other", "2")
    assert "2" == resolve_bundle("fruit", tmp_path / "other", shared).ref.version
    assert "1.9" == resolve_bundle("fruit@1.9", tmp_path / "other", shared).ref.version


def test_an_incomplete_upload_is_invisible(shared: SharedBundles, store: Store, bundle: Bundle, tmp_path: Path) -> None:
    """The next push completes it."""
    shared.push(bundle)
    store.delete(f"fruit/1.2.0/{CHECKSUMS}")
    model = max(store.list("fruit"), key=lambda key: len(store.get(key)))
    store.delete(model)
    assert [] == shared.published()
    with pytest.raises(ModelNotFound, match="or at memory://"):
        resolve_bundle("fruit", tmp_path / "other", shared)
    assert shared.push(bundle)
    assert bundle.digest == shared.fetch(FRUIT, tmp_path / "other").digest


@pytest.mark.parametrize(
    ("harm", "error", "sentence"),
    [
        (lambda data: None, BundleIncomplete, "is missing; push the model again"),
        (lambda data: data[:-1], BundleTampered, "not .* as recorded"),
        (lambda data: data + b"x", BundleTampered, "has more than the"),
        (lambda data: b"x" + data[1:], BundleTampered, "its checksum differs"),
    ],
)
def test_a_changed_object_is_refused(
    shared: SharedBundles,
    store: Store,
    bundle: Bundle,
    tmp_path: Path,
    harm: Harm,
    error: type[BundleError],
    sentence: str,
) -> None:
    """With the reason, and nothing is installed."""
    shared.push(bundle)
    for key in [key for key in store.list("fruit") if not key.endswith(CHECKSUMS)]:
        data = harm(store.get(key))
        store.delete(key)
        if data is not None:
            store.put(key, data)
    with pytest.raises(error, match=rf"(?s)fruit@1\.2\.0 at memory://, digest \w+, is refused: .*{sentence}"):
        resolve_bundle("fruit", tmp_path / "other", shared)
    assert [] == list((tmp_path / "other").rglob("*.onnx"))


def test_a_bundle_under_another_name_is_refused(
    shared: SharedBundles, store: Store, bundle: Bundle, tmp_path: Path
) -> None:
    """So is an invalid list of files."""
    shared.push(bundle)
    for key in store.list("fruit"):
        store.put(key.replace("fruit/1.2.0", "berry/3"), store.get(key))
    store.put(f"junk/1/{CHECKSUMS}", b"no json")
    store.put(f"junk/2/{CHECKSUMS}", b"{}")
    with pytest.raises(BundleTampered, match=r"contains the model fruit@1\.2\.0"):
        resolve_bundle("berry", tmp_path, shared)
    for version in ("1", "2"):
        with pytest.raises(BundleError, match="is refused"):
            resolve_bundle(f"junk@{version}", tmp_path, shared)


def test_concurrent_fetches_install_one_bundle(shared: SharedBundles, bundle: Bundle, tmp_path: Path) -> None:
    """No other directory is left."""
    shared.push(bundle)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: resolve_bundle("fruit", tmp_path / "other", shared).digest, range(6)))
    assert {bundle.digest} == set(found)
    assert ["1.2.0"] == [path.name for path in (tmp_path / "other" / "fruit").iterdir()]


def test_directories_of_killed_fetches_are_removed_after_an_hour(
    shared: SharedBundles, bundle: Bundle, tmp_path: Path
) -> None:
    """A younger one may belong to a running process."""
    shared.push(bundle)
    old, young = (tmp_path / "other" / "fruit" / f".1.2.0-{age}" for age in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    shared.fetch(FRUIT, tmp_path / "other")
    assert {"1.2.0", young.name} == {path.name for path in (tmp_path / "other" / "fruit").iterdir()}


def test_installed_versions_are_used_while_the_store_is_unreachable(bundle: Bundle, tmp_path: Path) -> None:
    """Other versions are an error."""
    options = {"region": "x", "endpoint": "http://127.0.0.1:9", "access_key_id": "a", "secret_access_key": "b"}
    away = SharedBundles(open_store("s3://shop/models", options=options), "s3://shop/models")
    models_dir = bundle.root.parents[1]
    assert bundle.digest == resolve_bundle("fruit", models_dir, away).digest
    for name in ("fruit@7", "berry"):
        with pytest.raises(StorageUnavailable, match="nothing listens"):
            resolve_bundle(name, models_dir, away)


def test_a_models_directory_that_cannot_be_written_is_an_error(
    shared: SharedBundles, bundle: Bundle, tmp_path: Path
) -> None:
    """There is a file with the name of the directory."""
    shared.push(bundle)
    (tmp_path / "other").touch()
    with pytest.raises(Misconfigured, match="cannot be written to"):
        resolve_bundle("fruit", tmp_path / "other", shared)


def test_a_file_that_changes_while_it_is_pushed_is_not_published(
    shared: SharedBundles, store: Store, bundle: Bundle
) -> None:
    """Its content would not match its key."""
    (bundle.root / "card.json").write_bytes(b"{}" + (bundle.root / "card.json").read_bytes()[2:])
    with pytest.raises(BundleTampered, match=r"card\.json"):
        shared.push(bundle)
    assert [] == shared.published()


def test_a_directory_can_be_the_store(bundle: Bundle, tmp_path: Path) -> None:
    """Such as a network drive."""
    shared = SharedBundles(open_store(str(tmp_path / "drive")), "drive")
    shared.push(bundle)
    shutil.rmtree(bundle.root)
    assert bundle.digest == open_bundle(shared.fetch(FRUIT, bundle.root.parents[1]).root).digest
