"""The port between services and whatever classifies: this process, or workers behind a queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ShoplensError
from shoplens.images.picture import ImageFacts
from shoplens.serving.prediction import Prediction

Priority = Literal["online", "batch"]
"""Whether somebody waits for the answer. Workers take live jobs first; in one process there is only one queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyRequest:
    """One photo, still encoded, for one model; `timeout_s` is how long its caller waits at most.

    `sha256` is that of `image` where the caller knows it already; else it is computed.
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
    """What an engine found. `thumbnail` is a JPEG without metadata, where the job asked for one."""

    prediction: Prediction
    image: ImageFacts
    thumbnail: bytes | None
    queue_s: float
    pixels_s: float
    inference_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A live model and how it is called, for people to see."""

    ref: ModelRef
    provider: str
    batching: str


class Engine(Protocol):
    """Few verbs, so that the engine behind a queue is only another implementation."""

    async def classify(self, job: ClassifyRequest) -> ClassifyResult:
        """Classify one photo.

        Raises SampleError for a photo that cannot be used, QueueFull, DeadlineExceeded, Unavailable (EngineStopped,
        QueueUnavailable, NoWorker, WireMismatch) and ModelNotFound.
        """
        ...

    def served(self) -> tuple[ServedModel, ...]:
        """The models that answer now."""
        ...

    async def check(self) -> None:
        """Raises Unavailable with the reason when jobs would not be answered now."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, within bounds, and release everything."""
        ...


def fault_of(error: BaseException) -> ShoplensError:
    """What is said of a photo that met a fault of the program's own, wherever it was worked on."""
    fault = ShoplensError("This photo could not be processed because of a fault in the program.")
    fault.__cause__ = error
    return fault
