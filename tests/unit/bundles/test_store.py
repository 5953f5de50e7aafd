"""A bundle is found by path, by name, or by name and version."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.store import installed_bundles, resolve_bundle
from shoplens.errors import BundleError, BundleTampered, BundleTooNew, ModelNotFound
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model


@pytest.fixture
def models(bundle: Bundle) -> Path:
    """The fruits in the versions 1.2.0, 1.9 and 1.10."""
    root = bundle.root.parents[1]
    for version in ("1.9", "1.10"):
        manifest = replace(MANIFEST, version=version)
        write_bundle(root / "fruit" / version, manifest=manifest, labels=LABELS, card=CARD, model=small_model())
    return root


def test_a_name_alone_means_the_latest_version(models: Path) -> None:
    """1.10 comes after 1.9."""
    assert "1.10" == resolve_bundle("fruit", models).ref.version


def test_a_version_can_be_asked_for(models: Path) -> None:
    """For example to go back."""
    assert "1.2.0" == resolve_bundle("fruit@1.2.0", models).ref.version


def test_a_path_means_the_bundle_in_that_directory(models: Path, tmp_path: Path) -> None:
    """Any directory."""
    assert "1.9" == resolve_bundle(str(models / "fruit" / "1.9"), tmp_path).ref.version


@pytest.mark.parametrize("name", ["vegetables", "fruit@7", "efficientnet-lite0@0.0.1", "@", ""])
def test_the_error_for_an_unknown_model_lists_the_known_ones(models: Path, name: str) -> None:
    """The message helps with typing errors."""
    known = "clothing, efficientnet-lite0, efficientnet-lite0-int8, fashion-mnist, fruit, opennsfw, starter-catalogue"

    with pytest.raises(ModelNotFound, match=re.escape(known)):
        resolve_bundle(name, models)


def test_installed_bundles_are_listed_by_name_and_rising_version(models: Path) -> None:
    """Numbers are sorted as numbers."""
    assert ["1.2.0", "1.9", "1.10"] == [bundle.ref.version for bundle in installed_bundles(models)]


def test_a_broken_bundle_does_not_hide_the_others(models: Path) -> None:
    """It is not listed; opening it gives the reason."""
    (models / "fruit" / "1.9" / "extra").touch()

    assert ["1.2.0", "1.10"] == [bundle.ref.version for bundle in installed_bundles(models)]
    with pytest.raises(BundleTampered, match="extra"):
        resolve_bundle("fruit@1.9", models)


def test_a_directory_without_models_lists_none(tmp_path: Path) -> None:
    """Also if it does not exist."""
    assert [] == installed_bundles(tmp_path / "nothing")


@pytest.mark.parametrize("file", ["model.onnx", "labels.json", "checksums.json"])
def test_a_damaged_model_is_named_with_its_folder_and_what_to_do(models: Path, file: str) -> None:
    """Whichever file is cut short or missing."""
    damaged = models / "fruit" / "1.10"
    (damaged / file).write_bytes((damaged / file).read_bytes()[:-7])
    for _ in range(2):
        with pytest.raises(BundleError, match=re.escape(f"The model fruit@1.10 in {damaged} cannot be used")) as caught:
            resolve_bundle("fruit", models)
        assert "Remove this folder; install the model again" in str(caught.value)
        (damaged / file).unlink(missing_ok=True)


def test_a_model_of_a_newer_shoplens_is_not_called_damaged(models: Path) -> None:
    """Its folder is right; this program is too old."""
    manifest = models / "fruit" / "1.10" / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(BundleTooNew, match=r"fruit@1\.10 in .* Install a newer Shoplens\.$"):
        resolve_bundle("fruit", models)
