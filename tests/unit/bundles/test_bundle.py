"""A bundle is opened only if it is complete and unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle, write_checksums
from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTampered, BundleTooNew
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

FILES = ["bundle.json", "card.json", "checksums.json", "labels.json", "model.onnx"]


def edit(bundle: Bundle, file: str, change: Callable[[Any], object]) -> None:
    """Change a JSON file of the bundle and make its checksums right again."""
    data = json.loads((bundle.root / file).read_bytes())
    replaced = change(data)
    (bundle.root / file).write_text(json.dumps(replaced if isinstance(replaced, list) else data))
    write_checksums(bundle.root)


def test_an_opened_bundle_has_the_parts_that_were_written(bundle: Bundle) -> None:
    """Manifest, labels and card are equal."""
    opened = open_bundle(bundle.root)

    assert (MANIFEST, LABELS, CARD) == (opened.manifest, opened.labels, opened.card)
    assert "fruit@1.2.0" == str(opened.ref)
    assert opened.root / "model.onnx" == opened.model_path


def test_the_same_parts_give_the_same_digest(bundle: Bundle, tmp_path: Path) -> None:
    """The digest depends on the contents only, not on the place or the time."""
    other = write_bundle(tmp_path / "other", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model())

    assert bundle.digest == other.digest


def test_the_same_bundle_can_be_written_twice(bundle: Bundle) -> None:
    """Two processes that prepare the same model both get it."""
    again = write_bundle(bundle.root, manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model())

    assert bundle == again
    assert ["1.2.0"] == [path.name for path in bundle.root.parent.iterdir()]


def test_a_bundle_is_never_overwritten_by_another(bundle: Bundle) -> None:
    """The installed bundle does not change."""
    with pytest.raises(BundleInvalid, match="Another bundle"):
        write_bundle(bundle.root, manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model(weight=2.0))

    assert bundle.digest == open_bundle(bundle.root).digest


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """No incomplete bundle and no temporary directory."""
    with pytest.raises(BundleInvalid):
        write_bundle(tmp_path / "x", manifest=MANIFEST, labels=LABELS[:2], card=CARD, model=small_model())

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("file", FILES)
def test_a_bundle_without_one_of_its_files_is_refused(bundle: Bundle, file: str) -> None:
    """The error names the file."""
    (bundle.root / file).unlink()

    with pytest.raises(BundleIncomplete, match=file):
        open_bundle(bundle.root)


@pytest.mark.parametrize("file", ["bundle.json", "card.json", "labels.json", "model.onnx"])
def test_a_changed_byte_in_any_file_is_an_error(bundle: Bundle, file: str) -> None:
    """Also if the length is the same."""
    data = bytearray((bundle.root / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.root / file).write_bytes(data)

    with pytest.raises(BundleTampered, match=file):
        open_bundle(bundle.root)


@pytest.mark.parametrize("file", ["bundle.json", "card.json", "labels.json", "model.onnx"])
def test_a_longer_file_is_an_error_without_verification(bundle: Bundle, file: str) -> None:
    """Sizes are always compared."""
    with (bundle.root / file).open("ab") as stream:
        stream.write(b" ")

    with pytest.raises(BundleTampered, match=file):
        open_bundle(bundle.root, verify=False)


def test_a_file_that_is_not_listed_is_refused(bundle: Bundle) -> None:
    """A bundle holds only the files in its checksums."""
    (bundle.root / "run.py").write_text("print('hello')")

    with pytest.raises(BundleTampered, match=r"run\.py"):
        open_bundle(bundle.root)


def test_a_link_instead_of_a_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A link can point to another file later."""
    (bundle.root / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (bundle.root / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")

    with pytest.raises(BundleTampered, match=r"model\.onnx"):
        open_bundle(bundle.root)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a\\b", "..", ""])
def test_checksums_of_a_file_outside_the_bundle_are_refused(bundle: Bundle, name: str) -> None:
    """Before such a file is read."""
    sums = json.loads((bundle.root / "checksums.json").read_bytes())
    sums[name] = sums["model.onnx"]
    (bundle.root / "checksums.json").write_text(json.dumps(sums))

    with pytest.raises(BundleInvalid, match="not the name of a file"):
        open_bundle(bundle.root)


def test_a_newer_format_is_refused(bundle: Bundle) -> None:
    """Also if it has unknown fields. The error says what to install."""
    edit(bundle, "bundle.json", lambda data: data.update(format_version=3, tomorrow=True))

    with pytest.raises(BundleTooNew, match="Install a newer Shoplens"):
        open_bundle(bundle.root)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("bundle.json", lambda data: data.update(name="../evil"), "name"),
        ("bundle.json", lambda data: data.update(version="1/2"), "version"),
        ("bundle.json", lambda data: data.update(colour="red"), "colour"),
        ("bundle.json", lambda data: data.pop("activation"), "activation"),
        ("bundle.json", lambda data: data.update(max_batch="many"), "max_batch"),
        ("bundle.json", lambda data: data.update(output="nothing"), "no output 'nothing'"),
        ("bundle.json", lambda data: data.update(input="nothing"), "inputs"),
        ("bundle.json", lambda data: data.update(max_batch=0), "max_batch"),
        ("bundle.json", lambda data: data["image"].update(crop=10), "resize"),
        ("bundle.json", lambda data: data["image"].update(crop=7), "shape"),
        ("bundle.json", lambda data: data["image"].update(dtype="uint8"), "tensor"),
        ("bundle.json", lambda data: data["image"].update(scale=[1.0, 0.0, 1.0]), "scale"),
        ("bundle.json", lambda data: data["image"].update(crop=8.5), "crop"),
        ("bundle.json", lambda data: [data], "bundle.json"),
        ("labels.json", lambda data: data[:2], "2 labels"),
        ("labels.json", lambda data: [*data[:2], data[0]], "appears 2 times"),
        ("labels.json", lambda data: [], "labels.json"),
        ("card.json", lambda data: data.update(date="yesterday"), "date"),
        ("card.json", lambda data: data.pop("licence"), "licence"),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(
    bundle: Bundle, file: str, change: Callable[[Any], object], reason: str
) -> None:
    """Also with correct checksums. The error names the reason."""
    edit(bundle, file, change)

    with pytest.raises(BundleInvalid, match=reason):
        open_bundle(bundle.root)


def test_broken_json_is_refused(bundle: Bundle) -> None:
    """With the name of the file."""
    (bundle.root / "card.json").write_bytes(b"{")
    write_checksums(bundle.root)

    with pytest.raises(BundleInvalid, match=r"card\.json"):
        open_bundle(bundle.root)


def test_a_model_file_that_is_not_a_model_is_refused(bundle: Bundle) -> None:
    """By the runtime that serves models."""
    (bundle.root / "model.onnx").write_bytes(b"not a model")
    write_checksums(bundle.root)

    with pytest.raises(BundleInvalid, match="cannot be loaded"):
        open_bundle(bundle.root)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """With the path in the message."""
    with pytest.raises(BundleIncomplete, match="no bundle directory"):
        open_bundle(tmp_path / "nothing")


def test_a_copied_bundle_is_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    """Only the root differs."""
    shutil.copytree(bundle.root, tmp_path / "copy")

    assert replace(bundle, root=tmp_path / "copy") == open_bundle(tmp_path / "copy")
