"""`evaluation.json` as frozen values: all measurements of a trained model, with their data and methods.

The card has the most important ones. Shares and scores are between 0 and 1.
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
    """The number of samples of one class in each part."""

    label: Text
    train: Count
    validation: Count
    test: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The data for training and measuring. The hashes identify the content of the sources. `fraction` is None if the
    validation part was given. `dropped` counts the samples that were not used, by reason.
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
    """How the model was trained. `epochs` is None for the recipe's default; `versions` are those of the libraries."""

    recipe: Text
    seed: int
    epochs: Count | None
    parameters: Count
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature and the part that it was fitted on.

    `ece_cross_fitted` is the calibration error on that part, with each half scaled by the temperature of the other.
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
    """The share of photos with a score of at least `at`, and their accuracy; None if there are none."""

    at: Share
    share: Share
    accuracy: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """The measurements on one part, of the exported model with the serving code.

    `accuracy_low` and `accuracy_high` bound the accuracy with 95 % confidence (Wilson 1927). `nll` is the mean negative
    log likelihood in nats; `ece` the expected calibration error in 15 bins; both also before calibration. `confusion`
    has a row per true label and a column per predicted label; it is empty if there are many classes.
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
    """The comparison of training and serving over `samples`: the greatest difference between a logit of the framework
    and of the exported graph, and that the input tensors are equal byte by byte.
    """

    samples: Count
    logit_difference: Amount
    tensors_equal: Literal[True]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """The throughput from encoded photos to labels on the training machine."""

    images_per_s: Positive
    threads: Annotated[int, Field(ge=1)]
    photos: Count
    machine: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All measurements. The first of `parts` is quoted in the card: test if there is one, else validation."""

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
        """The part that the card quotes."""
        return self.parts[0]


_ADAPTER: Final = TypeAdapter(Evaluation)


def read_evaluation(data: bytes, labels: tuple[Label, ...]) -> Evaluation:
    """`evaluation.json` as a value. Raises BundleInvalid, also if it is about other labels."""
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
    """The content of the file. The same value gives the same bytes."""
    return _ADAPTER.dump_json(evaluation, indent=1) + b"\n"
