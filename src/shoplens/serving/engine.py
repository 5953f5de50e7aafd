"""The protocol of everything that classifies: an engine in this process, or one whose models run in workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ShoplensError
from shoplens.images.picture import ImageFacts
from shoplens.serving.prediction import Prediction

Priority = Literal["online", "batch"]
"""Whether a caller waits for the answer. Workers take online requests first; a local engine has one queue for both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """One encoded photo for one model. The caller waits `timeout_s` at most.

    `sha256` is that of `image` where the caller knows it already; otherwise the engine computes it. With `thumbnail`
    the result carries one.
    """

    model: str
    image: bytes
    top_k: int
    timeout_s: float
    thumbnail: bool = False
    sha256: str | None = None
    priority: Priority = "online"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyResult:
    """What an engine found. `thumbnail` is a JPEG without metadata, where the request asked for one."""

    prediction: Prediction
    image: ImageFacts
    thumbnail: bytes | None
    queue_s: float
    pixels_s: float
    inference_s: float


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
    """The outcome of a photo that met a bug: a sentence for the user, with `error` as its cause."""
    fault = ShoplensError("This photo could not be processed because of a fault in the program.")
    fault.__cause__ = error
    return fault
