"""A model between training and measuring: fitted, calibrated on the validation part, and exported to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.evaluation import Evaluation
from shoplens.bundles.manifest import FORMAT_VERSION, Card, Label, Manifest
from shoplens.errors import TrainingDiverged
from shoplens.images.picture import ImageSpec
from shoplens.training.calibrate import fit_temperature
from shoplens.training.parts import Parts
from shoplens.training.plan import Plan
from shoplens.training.recipes import Fitted
from shoplens.training.samples import Sample

PartName = Literal["test", "validation"]

_MAX_BATCH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A fitted model with its logits by part, its temperature, and its graph."""

    parts: Parts
    plan: Plan
    image: ImageSpec
    parameters: int
    logits: dict[PartName, NDArray[np.float32]]
    temperature: float
    model: bytes

    @classmethod
    def of(cls, fitted: Fitted, parts: Parts, plan: Plan, tell: Callable[[str], None]) -> Exported:
        """Calibrated on the validation part and exported. Raises TrainingDiverged."""
        logits: dict[PartName, NDArray[np.float32]] = {}
        for name, samples in measured_parts(parts):
            tell(f"Computing the {name} part as trained")
            logits[name] = fitted.logits(samples)
            if not np.isfinite(logits[name]).all():
                raise TrainingDiverged(
                    "The trained model gives values that are not finite; train it with other options."
                )
        tell("Calibrating and exporting")
        temperature = fit_temperature(logits["validation"], labels_of(parts.validation))
        return cls(
            parts=parts,
            plan=plan,
            image=fitted.image,
            parameters=fitted.parameters,
            logits=logits,
            temperature=temperature,
            model=fitted.export(temperature=temperature),
        )

    def write(self, into: Path, *, card: Card, evaluation: Evaluation | None) -> Bundle:
        """The bundle in the folder `into`."""
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=self.plan.name,
            version=self.plan.version,
            task="image-classification",
            input="pixels",
            output="scores",
            embedding="embedding",
            activation="none",
            image=self.image,
            max_batch=_MAX_BATCH,
        )
        labels = tuple(Label(id=name, name=name) for name in self.parts.classes)
        return write_bundle(into, manifest=manifest, labels=labels, card=card, model=self.model, evaluation=evaluation)


def labels_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(n,) class numbers."""
    return np.array([sample.label for sample in samples], np.int64)


def measured_parts(parts: Parts) -> list[tuple[PartName, tuple[Sample, ...]]]:
    """Test first, where there is one."""
    named: list[tuple[PartName, tuple[Sample, ...]]] = [("test", parts.test), ("validation", parts.validation)]
    return [(name, samples) for name, samples in named if samples]
