"""Bundles with a text input: their manifest, their two graphs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle
from shoplens.bundles.import_process import ImportLimits, check_within
from shoplens.bundles.manifest import Manifest, read_manifest, to_json
from shoplens.bundles.probe import check_answers
from shoplens.bundles.store import SharedBundles, install_bundle, pack_bundle, unpack_bundle
from shoplens.errors import BundleError, BundleIncomplete, BundleInvalid, BundleTampered, BundleTooNew
from shoplens.storage import open_store
from tests.support.fusion import classifier_graph, encoder_graph, write_fusion_bundle
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST


@pytest.fixture
def fusion(tmp_path: Path) -> Bundle:
    """A model of photos and texts."""
    return write_fusion_bundle(tmp_path / "models")


def test_a_bundle_of_photos_and_texts_opens_as_it_was_written(fusion: Bundle) -> None:
    """With its three kinds of samples and its second graph."""
    again = open_bundle(fusion.root)

    assert fusion == again
    assert ("photo", "text", "both") == again.manifest.kinds
    assert fusion.root / "encoder.onnx" == again.encoder_path


def test_a_bundle_of_texts_has_no_encoder_and_takes_no_photo(tmp_path: Path) -> None:
    """One graph is enough, and asking for its pixels is an error with a sentence."""
    bundle = write_fusion_bundle(tmp_path, photos=False)

    assert (("text",), None) == (bundle.manifest.kinds, bundle.encoder_path)
    with pytest.raises(BundleInvalid, match="takes no photos"):
        _ = bundle.manifest.image_spec


def test_a_bundle_without_text_has_the_bytes_that_it_always_had() -> None:
    """So that its digest stays, and an older Shoplens can open it."""
    content = json.loads(to_json(MANIFEST))

    assert "text" not in content
    assert 1 == content["format_version"]
    assert MANIFEST == read_manifest(to_json(MANIFEST))


def test_both_graphs_are_covered_by_the_checksums(fusion: Bundle) -> None:
    """A changed encoder is named."""
    path = fusion.root / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(BundleTampered, match=r"encoder\.onnx was changed"):
        open_bundle(fusion.root)


def test_a_missing_encoder_is_named(tmp_path: Path, fusion: Bundle) -> None:
    """A model of photos and texts cannot do without."""
    with pytest.raises(BundleIncomplete, match=r"encoder\.onnx is missing"):
        write_bundle(
            tmp_path / "x", manifest=fusion.manifest, labels=fusion.labels, card=fusion.card, model=classifier_graph()
        )


def test_an_encoder_without_a_use_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    """Nothing lies in a bundle that is never checked."""
    model = bundle.model_path.read_bytes()
    with pytest.raises(BundleInvalid, match=r"encoder\.onnx belongs to models that take photos and texts"):
        write_bundle(tmp_path / "x", manifest=MANIFEST, labels=LABELS, card=CARD, model=model, encoder=encoder_graph())


def test_packing_publishing_and_installing_keep_the_second_graph(tmp_path: Path, fusion: Bundle) -> None:
    """Every way of a bundle from one machine to another."""
    unpacked = unpack_bundle(pack_bundle(fusion.root, tmp_path / "paint.tar"), tmp_path / "unpacked")
    shared = SharedBundles(open_store((tmp_path / "shared").as_uri(), setting="models_url"), "the store")
    shared.push(fusion)
    fetched = shared.fetch(fusion.ref, tmp_path / "fetched")
    check_within(fusion.root, name="paint", limits=ImportLimits(seconds=30, memory_mb=2_000))
    installed = install_bundle(fusion.root, tmp_path / "installed")

    assert {fusion.digest} == {each.digest for each in (unpacked, fetched, installed)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"text": None}, "'image-classification', not 'product-classification'"),
        ({"image": None}, "the task is 'text-classification', not 'product-classification'"),
        ({"text": None, "image": None}, "it needs an image input or a text input"),
        ({"format_version": 1}, "with a text input the format_version is 2"),
        ({"output": "photo"}, "output is 'both'"),
        ({"embedding": None}, "embedding names the encoder's output"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(fusion: Bundle, change: dict[str, Any], sentence: str) -> None:
    """With the sentence what belongs together."""
    with pytest.raises(BundleInvalid, match=sentence):
        read_manifest(to_json(replace(fusion.manifest, **change)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"buckets": 1}, "buckets must lie between"),
        ({"words": (2, 1)}, "words must be a range"),
        ({"characters": (0, 4)}, "characters must be a range"),
        ({"max_characters": 1_000_000}, "max_characters must lie between"),
        ({"max_features": 0}, "max_features must lie between"),
    ],
)
def test_impossible_text_features_are_refused(fusion: Bundle, change: dict[str, Any], sentence: str) -> None:
    """Also those that would take too long or too much memory."""
    assert fusion.manifest.text is not None
    with pytest.raises(BundleInvalid, match=sentence):
        read_manifest(to_json(replace(fusion.manifest, text=replace(fusion.manifest.text, **change))))


def test_a_newer_format_asks_for_a_newer_shoplens(fusion: Bundle) -> None:
    """Rather than complaining of fields that it does not know."""
    with pytest.raises(BundleTooNew, match="formats up to 2"):
        read_manifest(to_json(replace(fusion.manifest, format_version=3)))


@pytest.mark.parametrize(
    ("model", "encoder", "sentence"),
    [
        (lambda: classifier_graph(photos=False), encoder_graph, "inputs are .*with a text input they are"),
        (encoder_graph, encoder_graph, "inputs are"),
        (classifier_graph, classifier_graph, "bundle.json names 'pixels' only"),
        (lambda: b"no graph", encoder_graph, "cannot be loaded"),
        (classifier_graph, lambda: b"no graph", "cannot be loaded"),
    ],
)
def test_graphs_that_do_not_fit_the_manifest_are_refused(
    tmp_path: Path, fusion: Bundle, model: Callable[[], bytes], encoder: Callable[[], bytes], sentence: str
) -> None:
    """Each of the two by itself."""
    with pytest.raises(BundleError, match=sentence):
        write_bundle(
            tmp_path / "x", manifest=fusion.manifest, labels=fusion.labels, card=fusion.card, model=model(),
            encoder=encoder(),
        )  # fmt: skip


def test_a_table_with_too_few_rows_is_found_by_the_probe_texts(tmp_path: Path, fusion: Bundle) -> None:
    """The probe texts have the greatest token, too."""
    manifest: Manifest = fusion.manifest
    assert manifest.text is not None
    wide = replace(manifest, text=replace(manifest.text, buckets=8_192))
    broken = write_bundle(
        tmp_path / "x", manifest=wide, labels=fusion.labels, card=fusion.card, model=classifier_graph(),
        encoder=encoder_graph(),
    )  # fmt: skip

    with pytest.raises(BundleInvalid, match="cannot be run"):
        check_answers(broken.model_path, broken.encoder_path, broken.manifest, len(broken.labels))
