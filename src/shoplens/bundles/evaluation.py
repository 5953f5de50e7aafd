"""What was measured of a trained model, at length: the JSON of `evaluation.json` to frozen values and back.

The card has the few figures that people read first; here are all of them, with what they were measured on and how.
Shares and scores lie between 0 and 1. Parsing is as strict as that of the other files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from shoplens.bundles.manifest import Label, Text, parsed
from shoplens.errors import BundleInvalid

EVALUATION: Final = "evaluation.json"

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """How many samples of one class each part has."""

    label: Text
    train: Count
    validation: Count
    test: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What it was trained and measured on. The hashes name the content of the sources; `fraction` is None where the
    validation part was given. `dropped` counts the samples that were left out, by reason.
    """

    name: Text
    sha256: Sha256
    validation_sha256: Sha256 | None
    test_sha256: Sha256 | None
    split: Text
    seed: int
    fraction: Share | None
    counts: tuple[ClassCount, ...]
    unreadable: Count
    dropped: dict[str, Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """How it was trained. `epochs` is None where the recipe's own number was taken; `versions` of what computed."""

    recipe: Text
    seed: int
    epochs: Count | None
    parameters: Count
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature and what it was fitted on. `ece_cross_fitted` is the calibration error on that same part with
    each half scaled by the temperature of the other half.
    """

    method: Text
    temperature: Positive
    fitted_on: Text
    samples: Count
    ece_cross_fitted: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """One class in one part: `samples` have it as their label."""

    label: Text
    samples: Count
    precision: Share
    recall: Share
    f1: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What accepting from the score `at` on would do: the share of photos decided, and their accuracy (None: none)."""

    at: Share
    share: Share
    accuracy: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """All figures on one part, of the exported model through the serving code.

    `accuracy_low` and `accuracy_high` bound the accuracy with 95 % confidence (Wilson 1927). `nll` is the mean negative
    log likelihood in nats; `ece` the expected calibration error in 15 bins; both also before calibration. `confusion`
    has a row per label and a column per answer; it is empty for more classes than people can look at.
    """

    name: Literal["test", "validation"]
    samples: Count
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    macro_f1: Share
    nll: Amount
    nll_uncalibrated: Amount
    ece: Share
    ece_uncalibrated: Share
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[Count, ...], ...]
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What was compared before the bundle was made: over `samples`, the greatest difference between a logit of the
    framework and of the exported graph, and that the tensors of training and serving are equal byte for byte.
    """

    samples: Count
    logit_difference: Amount
    tensors_equal: Literal[True]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Encoded photos in, labels out, on the machine that trained."""

    images_per_s: Positive
    threads: Annotated[int, Field(ge=1)]
    photos: Count
    machine: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`parts` has the one that the card quotes first: test where there is one, else validation."""

    schema_version: Literal[1]
    data: DataFacts
    training: TrainingFacts
    calibration: Calibration
    parts: Annotated[tuple[PartResult, ...], Field(min_length=1)]
    parity: Parity
    model_bytes: Count
    speed: Speed

    @property
    def headline(self) -> PartResult:
        """The figures to quote."""
        return self.parts[0]


_ADAPTER: Final = TypeAdapter(Evaluation)


def read_evaluation(data: bytes, labels: tuple[Label, ...]) -> Evaluation:
    """`evaluation.json` as a value. Raises BundleInvalid for faults, and where it is about other labels."""
    evaluation = parsed(_ADAPTER, data, EVALUATION)
    names = tuple(label.name for label in labels)
    for part in evaluation.parts:
        if tuple(each.label for each in part.classes) != names:
            raise BundleInvalid(f"{EVALUATION}: the part {part.name!r} is about other labels than labels.json.")
        sizes = {len(part.confusion), *map(len, part.confusion)}
        if part.confusion and sizes != {len(names)}:
            raise BundleInvalid(
                f"{EVALUATION}: the confusion matrix of {part.name!r} does not fit {len(names)} labels."
            )
    return evaluation


def evaluation_json(evaluation: Evaluation) -> bytes:
    """The file's bytes: always the same for the same value."""
    return _ADAPTER.dump_json(evaluation, indent=1) + b"\n"
