"""A model is measured through the serving code, and every figure is as computed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import Card, Label, Manifest
from shoplens.images.picture import Limits
from shoplens.training.calibrate import softmax
from shoplens.training.errors import TrainingDiverged
from shoplens.training.evaluate import Predictions, measure, predict
from shoplens.training.export import check_parity
from shoplens.training.samples import Sample, read_dataset
from tests.unit.training.colours import SPEC, ColourModel, colour_graph, made_sample, write_photos

MODEL = ColourModel(
    weight=np.array([[3, 0, -3], [0, 4, 0], [-3, 0, 3]], np.float32), bias=np.array([0.1, 0, 0], np.float32)
)


def bundle_of(root: Path, graph: bytes, names: tuple[str, ...] = ("blue", "green", "red")) -> Bundle:
    """A bundle of the colour model."""
    manifest = Manifest(
        format_version=1, name="colours", version="1", task="image-classification", input="pixels", output="scores",
        embedding="embedding", activation="none", image=SPEC, max_batch=32,
    )  # fmt: skip
    card = Card(
        title="t", description="d", task="t", data="d", licence="l", source="s", date="2026-01-31", limits=(),
        metrics=(),
    )  # fmt: skip
    labels = tuple(Label(id=name, name=name) for name in names)
    return write_bundle(root, manifest=manifest, labels=labels, card=card, model=graph)


def ticking() -> Iterator[float]:
    """A clock that advances by two seconds per call."""
    return (2.0 * step for step in count())


def samples_of(labels: list[int]) -> list[Sample]:
    """Samples with these labels, without a meaningful picture."""
    return [made_sample(str(index), label) for index, label in enumerate(labels)]


SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.96, 0.02, 0.02]])
LABELS = [0, 1, 0, 0, 1]


def test_every_figure_is_as_computed_by_hand() -> None:
    """Five predictions, of which 0, 1 and 2 are correct."""
    result = measure(
        "test", SCORES, samples_of(LABELS), logits=np.log(SCORES).astype(np.float32), classes=("a", "b", "c")
    )
    assert (5, 0.6) == (result.samples, result.accuracy)
    assert ((2, 1, 0), (1, 1, 0), (0, 0, 0)) == result.confusion
    assert [("a", 3), ("b", 2), ("c", 0)] == [(each.label, each.samples) for each in result.classes]
    assert [0.666667, 0.5, 0.0] == [each.precision for each in result.classes]
    assert [0.666667, 0.5, 0.0] == [each.recall for each in result.classes]
    assert [0.666667, 0.5, 0.0] == [each.f1 for each in result.classes]
    assert 0.583333 == result.macro_f1
    expected = round(float(-np.log([0.7, 0.8, 0.5, 0.3, 0.02]).mean()), 6)
    assert expected == result.nll == pytest.approx(result.nll_uncalibrated, abs=2e-6)


def test_thresholds_are_as_computed_by_hand() -> None:
    """A score that equals the threshold is accepted."""
    result = measure("test", SCORES, samples_of(LABELS), logits=SCORES.astype(np.float32), classes=("a", "b", "c"))
    found = {each.at: (each.share, each.accuracy) for each in result.thresholds}
    assert (1.0, 0.6) == found[0.5]
    assert (0.6, 0.666667) == found[0.7]
    assert (0.4, 0.5) == found[0.8]
    assert (0.2, 0.0) == found[0.95]
    alone = measure("test", SCORES[:1], samples_of([0]), logits=SCORES[:1].astype(np.float32), classes=("a", "b", "c"))
    assert (0.0, None) == (alone.thresholds[-1].share, alone.thresholds[-1].accuracy)


def test_the_bounds_of_an_accuracy_are_wilsons() -> None:
    """8 of 10 correct, as in textbooks; the bounds stay within 0 and 1."""

    def bounds(correct: int, total: int) -> tuple[float, float]:
        scores = np.tile([0.9, 0.1], (total, 1))
        samples = samples_of([0] * correct + [1] * (total - correct))
        result = measure("test", scores, samples, logits=scores.astype(np.float32), classes=("a", "b"))
        return round(result.accuracy_low, 4), round(result.accuracy_high, 4)

    assert (0.4902, 0.9433) == bounds(8, 10)
    assert (0.0, 1.0) == (bounds(0, 3)[0], bounds(3, 3)[1])


def test_a_class_that_does_not_occur_is_not_in_the_macro_f1() -> None:
    """A class that is only predicted counts as zero."""

    def macro_f1(labels: list[int], predicted: list[int]) -> float:
        scores = np.eye(3)[predicted]
        classes = ("a", "b", "c")
        return measure("test", scores, samples_of(labels), logits=scores.astype(np.float32), classes=classes).macro_f1

    assert 1.0 == macro_f1([0, 0, 0], [0, 0, 0])
    assert 0.25 == macro_f1([0, 0, 0], [0, 1, 1])


def test_very_many_classes_have_no_confusion_matrix() -> None:
    """It would be unreadable, and larger than the model."""
    scores = np.eye(300)[:4]
    names = [str(number) for number in range(300)]
    result = measure("test", scores, samples_of([0, 1, 2, 3]), logits=scores.astype(np.float32), classes=names)
    assert ((), 300, 1.0) == (result.confusion, len(result.classes), result.accuracy)


def test_the_scores_are_those_that_serving_gives(photos: Path, tmp_path: Path) -> None:
    """Every class of every photo, in order, from the encoded bytes; `clock` measures the speed."""
    samples = read_dataset(photos).samples
    bundle = bundle_of(tmp_path / "bundle", MODEL.export(temperature=2.0))
    progress: list[int] = []
    clock = ticking()
    predictions = predict(
        bundle,
        samples,
        threads=2,
        limits=Limits(),
        clock=lambda: next(clock),
        on_progress=lambda n, _: progress.append(n),
    )
    expected = softmax(MODEL.logits(samples), 2.0)
    assert np.abs(expected - predictions.scores).max() < 1e-6
    assert list(range(1, 91)) == progress
    assert (45.0, 2, 90) == (predictions.speed().images_per_s, predictions.speed().threads, predictions.speed().photos)


def test_the_speed_has_three_digits() -> None:
    """More would be noise."""
    assert 33.3 == Predictions(scores=np.zeros((100, 2)), seconds=3.0, threads=1).speed().images_per_s


def test_a_model_whose_scores_are_not_finite_is_refused(tmp_path: Path) -> None:
    """The message names the photo: here a logit overflows for a very red one."""
    weight = np.zeros((3, 3), np.float32)
    weight[0, 0] = 3e38
    broken = colour_graph(weight, np.array([1.5e38, 0, 0], np.float32))
    bundle = bundle_of(tmp_path / "bundle", broken)
    samples = read_dataset(write_photos(tmp_path / "photos", each=2, strength=0.9)).samples
    with pytest.raises(TrainingDiverged, match=r"cannot classify red/000\.jpg"):
        predict(bundle, samples, threads=1, limits=Limits(), clock=lambda: 0.0)


def test_parity_is_checked_on_evenly_chosen_samples(photos: Path, tmp_path: Path) -> None:
    """64 of 90; the difference is rounding only."""
    samples = read_dataset(photos).samples
    bundle = bundle_of(tmp_path / "bundle", MODEL.export(temperature=2.0))
    parity = check_parity(bundle, samples, MODEL.logits(samples), image=SPEC, temperature=2.0, limits=Limits())
    assert (64, True, True) == (parity.samples, parity.tensors_equal, parity.logit_difference < 1e-4)


def test_an_export_that_computes_other_values_is_refused(photos: Path, tmp_path: Path) -> None:
    """A changed offset of one class; a constant for all classes changes no score."""
    samples = read_dataset(photos).samples[:5]
    moved = colour_graph(MODEL.weight, MODEL.bias + np.array([0, 0.1, 0], np.float32))
    same = colour_graph(MODEL.weight, MODEL.bias + np.float32(7))
    logits = MODEL.logits(samples)
    with pytest.raises(TrainingDiverged, match=r"a logit differs by 0\.06"):
        check_parity(bundle_of(tmp_path / "a", moved), samples, logits, image=SPEC, temperature=1.0, limits=Limits())
    check_parity(bundle_of(tmp_path / "b", same), samples, logits, image=SPEC, temperature=1.0, limits=Limits())


def test_pixels_that_differ_between_training_and_serving_are_refused(photos: Path, tmp_path: Path) -> None:
    """Here training resized to another size."""
    samples = read_dataset(photos).samples[:5]
    bundle = bundle_of(tmp_path / "bundle", MODEL.export(temperature=1.0))
    other = type(SPEC)(resize=18, crop=16, dtype="uint8")
    with pytest.raises(TrainingDiverged, match=r"blue/000\.jpg to different tensors"):
        check_parity(bundle, samples, MODEL.logits(samples), image=other, temperature=1.0, limits=Limits())
