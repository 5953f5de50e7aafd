"""Export a trained model to a bundle, and prove that the bundle computes what the trained model computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import FORMAT_VERSION, Card, Evaluation, Label, Manifest, Parity
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageSpec, Limits
from shoplens.images.preprocess import preprocess
from shoplens.serving.classifier import Classifier, PreparedSample
from shoplens.training.calibrate import fit_temperature
from shoplens.training.errors import TrainingDiverged
from shoplens.training.recipes import TrainedModel
from shoplens.training.samples import Sample
from shoplens.training.split import Split

PartName = Literal["test", "validation"]

PARITY_SAMPLES: Final = 64
TOLERANCE: Final = 0.02
"""How much a logit of the exported graph may differ from that of the trained model."""
_MAX_BATCH: Final = 32
_MIN_SCORE: Final = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A trained model as an ONNX graph, with its logits by part and the temperature that the graph applies."""

    classes: tuple[str, ...]
    image: ImageSpec
    parameters: int
    logits: dict[PartName, NDArray[np.float32]]
    temperature: float
    onnx: bytes

    def write(
        self, folder: Path, *, name: str, version: str, card: Card, evaluation: Evaluation | None = None
    ) -> Bundle:
        """Write the bundle to `folder`."""
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            version=version,
            task="image-classification",
            input="pixels",
            output="scores",
            embedding="embedding",
            activation="none",
            image=self.image,
            max_batch=_MAX_BATCH,
        )
        labels = tuple(Label(id=label, name=label) for label in self.classes)
        return write_bundle(folder, manifest=manifest, labels=labels, card=card, model=self.onnx, evaluation=evaluation)


def export_model(model: TrainedModel, split: Split, on_stage: Callable[[str], None]) -> ExportedModel:
    """Calibrate `model` on the validation part and export it. Raises TrainingDiverged."""
    logits: dict[PartName, NDArray[np.float32]] = {}
    for name, samples in measured_parts(split):
        on_stage(f"Computing the {name} part with the trained model")
        logits[name] = model.logits(samples)
        if not np.isfinite(logits[name]).all():
            raise TrainingDiverged("The trained model computes values that are not finite. Train with other options.")
    on_stage("Calibrating and exporting")
    labels = np.array([sample.label for sample in split.validation], np.int64)
    temperature = fit_temperature(logits["validation"], labels)
    return ExportedModel(
        classes=split.classes,
        image=model.image,
        parameters=model.parameters,
        logits=logits,
        temperature=temperature,
        onnx=model.export(temperature=temperature),
    )


def measured_parts(split: Split) -> list[tuple[PartName, tuple[Sample, ...]]]:
    """The parts that are measured, the test part first if there is one."""
    named: list[tuple[PartName, tuple[Sample, ...]]] = [("test", split.test), ("validation", split.validation)]
    return [(name, samples) for name, samples in named if samples]


def check_parity(
    bundle: Bundle,
    samples: Sequence[Sample],
    logits: NDArray[np.float32],
    *,
    image: ImageSpec,
    temperature: float,
    limits: Limits,
) -> Parity:
    """Compare serving and training on some of `samples`, evenly chosen.

    `logits` (n, classes) are those of the trained model for all samples, `image` is its preprocessing. Raises
    TrainingDiverged if a tensor of serving differs in any byte from that of training, or a logit of the exported graph
    by more than `TOLERANCE`.
    """
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(PARITY_SAMPLES, len(samples))).round().astype(int))
    classifier = Classifier(bundle)
    greatest = 0.0
    for index in chosen.tolist():
        sample = samples[index]
        served = preprocess(decode(sample.data(), limits=limits, short_side=classifier.spec.resize), classifier.spec)
        trained = preprocess(sample.picture(image.resize), image)
        if served.dtype != trained.dtype or not np.array_equal(served, trained):
            raise TrainingDiverged(f"Serving and training preprocess {sample.name} to different tensors.")
        greatest = max(
            greatest,
            logit_difference(classifier.scores([PreparedSample(photos=(served,))])[0], logits[index], temperature),
        )
    if not greatest <= TOLERANCE:
        raise TrainingDiverged(
            f"The exported model computes other values than the trained one: a logit differs by {greatest:.3g}."
        )
    return Parity(samples=len(chosen), logit_difference=float(f"{greatest:.2g}"), tensors_equal=True)


def logit_difference(scores: NDArray[np.float32], logits: NDArray[np.float32], temperature: float) -> float:
    """The greatest difference of two logits, up to the constant that softmax removes. Tiny scores are ignored."""
    expected = np.asarray(logits, np.float64)
    expected = expected - expected.max()
    usable = scores > _MIN_SCORE
    found = np.log(np.asarray(scores, np.float64)[usable]) * temperature
    found = found + (expected[usable] - found).mean()
    return float(np.abs(found - expected[usable]).max())
