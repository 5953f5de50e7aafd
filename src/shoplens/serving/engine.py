"""What classifies, for everything above: predictions, requests and results, and the protocol of an engine.

There is an engine in this process (`local`), and one whose models run in workers (`redis`).
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ShoplensError
from shoplens.images.picture import ImageFacts, Measurements

RANKED_LABELS: Final = 20
"""How many labels a prediction carries at least, where the model has them. A softmax label below them scores
under 1 / 21, so thresholds from `LEAST_THRESHOLD` on are decided exactly."""

LEAST_THRESHOLD: Final = 0.05


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label and its score, between 0 and 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """`labels` is sorted by falling score and never empty; the labels that are left out score less."""

    model: ModelRef
    labels: tuple[LabelScore, ...]

    @property
    def top(self) -> LabelScore:
        """The best label."""
        return self.labels[0]

    def score_of(self, label: str) -> float:
        """The score of `label`; 0.0 where it is not among the ranked ones."""
        return next((entry.score for entry in self.labels if entry.label == label), 0.0)


Priority = Literal["online", "batch"]
"""Whether a caller waits for the answer. Workers take online requests first; a local engine has one queue for both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """One encoded photo for one model. The caller waits `timeout_s` at most.

    `sha256` is that of `image` where the caller knows it already; otherwise the engine computes it. With `thumbnail`
    the result carries one. `client` is who sent it: clients take turns in the queue of a process.

    The photo is decoded once: `also` names more models that classify it, with the same `top_k`, and with `measure`
    the result carries measurements of its pixels.
    """

    model: str
    image: bytes
    top_k: int
    timeout_s: float
    thumbnail: bool = False
    sha256: str | None = None
    priority: Priority = "online"
    client: str = ""
    also: tuple[str, ...] = ()
    measure: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """All models that classify the photo."""
        return (self.model, *self.also)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyResult:
    """What an engine found. `thumbnail` is a JPEG without metadata, where the request asked for one.

    `others` are the predictions of the models in `also`, in that order; `measurements` are there where the request
    asked for them.
    """

    prediction: Prediction
    image: ImageFacts
    thumbnail: bytes | None
    queue_s: float
    pixels_s: float
    inference_s: float
    others: tuple[Prediction, ...] = ()
    measurements: Measurements | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A loaded model, where it runs and how it is called, for people to read."""

    ref: ModelRef
    provider: str
    batching: str


class Engine(Protocol):
    """Classifies photos with the models of the channels."""

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Classify one photo.

        Raises SampleError for a photo that cannot be used, QueueFull, DeadlineExceeded, Unavailable (EngineStopped,
        QueueUnavailable, NoWorker, WireMismatch) and ModelNotFound.
        """
        ...

    def served(self) -> tuple[ServedModel, ...]:
        """The models that answer now."""
        ...

    def labels(self, model: str) -> tuple[str, ...]:
        """The labels of this model, in the order of its output. Raises ModelNotFound."""
        ...

    async def check(self) -> None:
        """Raises Unavailable with the reason when requests would not be answered now."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, within bounds, and release everything."""
        ...


def fault_of(error: BaseException) -> ShoplensError:
    """The outcome of a photo that met a bug: a sentence for the user, with `error` as its cause.

    A note names the error and its place, since a cause does not travel between processes.
    """
    fault = ShoplensError("This photo could not be processed because of a fault in the program.")
    fault.__cause__ = error
    fault.add_note("".join(traceback.format_exception(error, limit=-2)).strip())
    return fault
