"""A bundle may contain an evaluation. It must be complete and about the labels of the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoplens.bundles.bundle import Bundle, open_bundle, write_bundle, write_checksums
from shoplens.bundles.manifest import (
    Calibration,
    ClassCount,
    ClassResult,
    DataFacts,
    Evaluation,
    Parity,
    PartResult,
    Speed,
    Threshold,
    TrainingFacts,
)
from shoplens.errors import BundleInvalid, BundleTampered
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

NAMES = [label.name for label in LABELS]
PART = PartResult(
    name="validation", samples=10, accuracy=0.9, accuracy_low=0.6, accuracy_high=0.98, macro_f1=0.9, nll=0.3,
    nll_uncalibrated=0.4, ece=0.1, ece_uncalibrated=0.2,
    classes=tuple(ClassResult(label=name, samples=3, precision=1.0, recall=0.9, f1=0.95) for name in NAMES),
    confusion=((3, 0, 0), (0, 3, 0), (1, 0, 3)),
    thresholds=(Threshold(at=0.5, share=0.9, accuracy=1.0), Threshold(at=0.95, share=0.0, accuracy=None)),
)  # fmt: skip
EVALUATION = Evaluation(
    schema_version=1,
    data=DataFacts(
        name="Made by a test", sha256="0" * 64, validation_sha256=None, test_sha256=None, split="By hand.", seed=0,
        fraction=0.15, counts=tuple(ClassCount(label=name, train=17, validation=3, test=0) for name in NAMES),
        unreadable=1, dropped={"repeated": 2},
    ),
    training=TrainingFacts(recipe="head", seed=0, epochs=None, parameters=12, versions={"numpy": "2.0"}),
    calibration=Calibration(
        method="temperature scaling", temperature=1.5, fitted_on="validation", samples=10, ece_cross_fitted=0.12
    ),
    parts=(PART,),
    parity=Parity(samples=10, logit_difference=1e-6, tensors_equal=True),
    model_bytes=1000,
    speed=Speed(images_per_s=100.0, threads=2, photos=10, machine="x86_64"),
)  # fmt: skip


@pytest.fixture
def evaluated(tmp_path: Path) -> Bundle:
    """The fruits with an evaluation."""
    return write_bundle(
        tmp_path / "evaluated", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model(), evaluation=EVALUATION
    )


def test_an_evaluation_is_read_as_it_was_written(evaluated: Bundle) -> None:
    """All figures are equal."""
    assert EVALUATION == open_bundle(evaluated.root).evaluation
    assert PART == EVALUATION.headline


def test_a_bundle_needs_no_evaluation(bundle: Bundle, evaluated: Bundle) -> None:
    """Bundles without one are valid and have another digest."""
    assert None is open_bundle(bundle.root).evaluation
    assert bundle.digest != evaluated.digest


def test_a_changed_evaluation_is_an_error(evaluated: Bundle) -> None:
    """It is listed in the checksums like every other file."""
    file = evaluated.root / "evaluation.json"
    file.write_text(file.read_text().replace("0.98", "0.99"))
    with pytest.raises(BundleTampered, match=r"evaluation\.json"):
        open_bundle(evaluated.root)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data["parts"][0]["classes"].pop(), "other labels"),
        (lambda data: data["parts"][0]["classes"].reverse(), "other labels"),
        (lambda data: data["parts"][0]["confusion"].pop(), "does not fit 3 labels"),
        (lambda data: data["parts"][0]["confusion"][0].append(1), "does not fit 3 labels"),
        (lambda data: data["parts"][0].update(accuracy=1.1), "accuracy"),
        (lambda data: data["parity"].update(tensors_equal=False), "tensors_equal"),
        (lambda data: data.update(schema_version=2), "schema_version"),
        (lambda data: data.update(parts=[]), "parts"),
        (lambda data: data.update(extra=1), "extra"),
        (lambda data: data["calibration"].update(temperature=0), "temperature"),
        (lambda data: data["data"].update(sha256="x"), "sha256"),
    ],
)
def test_an_invalid_evaluation_is_refused(evaluated: Bundle, change: Callable[[Any], object], reason: str) -> None:
    """Also with correct checksums."""
    file = evaluated.root / "evaluation.json"
    data = json.loads(file.read_bytes())
    change(data)
    file.write_text(json.dumps(data))
    write_checksums(evaluated.root)
    with pytest.raises(BundleInvalid, match=reason):
        open_bundle(evaluated.root)
