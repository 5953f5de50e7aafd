"""The classifier: one outcome per sample, in order, with scores that can be believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import Card, Label, Manifest
from shoplens.bundles.store import resolve_bundle
from shoplens.errors import BundleInvalid, Misconfigured, ShoplensError
from shoplens.images.picture import ImageSpec, Picture
from shoplens.serving.classifier import Classifier, ModelAnswer, PreparedSample, choose_provider, open_session
from shoplens.serving.engine import RANKED_LABELS, Prediction


@pytest.fixture(scope="module")
def classifier(models_dir: Path) -> Classifier:
    """The built-in float model."""
    return Classifier(resolve_bundle("efficientnet-lite0", models_dir))


def noise(seed: int) -> Picture:
    """Another random picture for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (300, 260, 3), np.uint8)
    return Picture(pixels=pixels, format="png", width=260, height=300)


def test_a_batch_answers_like_its_samples_alone(classifier: Classifier) -> None:
    """In their order, with equal scores up to rounding."""
    samples = [classifier.prepare([noise(seed)]) for seed in range(5)]
    together = classifier.classify(samples)
    for sample, outcome in zip(samples, together, strict=True):
        alone, other = prediction(*classifier.classify([sample])), prediction(outcome)
        assert [each.label for each in alone.labels[:5]] == [each.label for each in other.labels[:5]]
        assert alone.top.score == pytest.approx(other.top.score, abs=1e-4)


def prediction(outcome: ModelAnswer | ShoplensError) -> Prediction:
    """That of an answer."""
    assert isinstance(outcome, ModelAnswer)
    return outcome.prediction


@pytest.mark.parametrize("top_k", [1, 20, 100, 1_000])
def test_labels_are_ranked_and_their_scores_sum_to_at_most_one(classifier: Classifier, top_k: int) -> None:
    """At least so many as asked for, best first."""
    (outcome,) = classifier.classify([classifier.prepare([noise(1)])], top_k=top_k)
    scores = [each.score for each in prediction(outcome).labels]
    assert len(scores) == max(top_k, RANKED_LABELS)
    assert sorted(scores, reverse=True) == scores
    assert sum(scores) <= 1.0001


def test_all_scores_together_are_one(classifier: Classifier) -> None:
    """They are probabilities."""
    (outcome,) = classifier.classify([classifier.prepare([noise(2)])], top_k=1_000)
    assert 1.0 == pytest.approx(sum(each.score for each in prediction(outcome).labels), abs=1e-4)


def test_a_sample_that_gives_no_numbers_fails_alone(tmp_path: Path) -> None:
    """Its neighbours in the batch are answered: here the square root of a negative mean is no number."""
    classifier = Classifier(root_of_mean_bundle(tmp_path / "bundle"))
    good = np.ones((3, 8, 8), np.float32)
    samples = [PreparedSample(photos=(each,)) for each in (good, -good, good)]
    first, second, third = classifier.classify(samples)
    assert isinstance(first, ModelAnswer)
    assert isinstance(third, ModelAnswer)
    assert "internal_error" == getattr(second, "code", None)


def root_of_mean_bundle(into: Path) -> Bundle:
    """A tiny model: the square root of each channel's mean is the score of red, green and blue."""
    helper = onnx.helper
    shape: list[str | int | None] = ["n", 3, 8, 8]
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["picture"], ["mean"]),
            helper.make_node("Sqrt", ["mean"], ["root"]),
            helper.make_node("Flatten", ["root"], ["scores"]),
        ],
        "root of mean",
        [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    manifest = Manifest(
        format_version=1,
        name="root-of-mean",
        version="1",
        task="image-classification",
        input="picture",
        output="scores",
        embedding=None,
        activation="none",
        image=ImageSpec(resize=8, crop=8, layout="nchw"),
        max_batch=16,
    )
    card = Card(
        title="Root of mean",
        description="For tests.",
        task="none",
        data="none",
        licence="Apache-2.0",
        source="this test",
        date="2026-11-21",
        limits=(),
        metrics=(),
    )
    labels = tuple(Label(id=name, name=name) for name in ("red", "green", "blue"))
    return write_bundle(into, manifest=manifest, labels=labels, card=card, model=model.SerializeToString())


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """With the reason of ONNX Runtime."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BundleInvalid, match=r"model\.onnx"):
        open_session(path, provider="cpu")


def test_a_missing_gpu_that_is_required_is_reported() -> None:
    """`auto` takes what there is; this test runs where there is no GPU build."""
    assert choose_provider("cpu") == "cpu"
    if choose_provider("auto") == "cpu":
        with pytest.raises(Misconfigured, match="onnxruntime-gpu"):
            choose_provider("cuda")
