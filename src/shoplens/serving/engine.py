"""What classifies, for everything above: predictions, requests and results, and the protocol of an engine.

There is an engine in this process (`local`), and one whose models run in workers (`redis`).
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from shoplens.bundles.manifest import Manifest, ModelRef, SampleKind
from shoplens.errors import RequestInvalid, ShoplensError
from shoplens.images.picture import ImageFacts, Measurements
from shoplens.messages import marked
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS

RANKED_LABELS: Final = 20
"""How many labels a prediction carries at least, where the model has them. A softmax label below them scores
under 1 / 21, so thresholds from `LEAST_THRESHOLD` on are decided exactly."""

LEAST_THRESHOLD: Final = 0.05

MAX_PHOTOS: Final = 16
"""How many photos one sample may have."""
MAX_TEXT_CHARACTERS: Final = TITLE_CHARACTERS + 1 + DESCRIPTION_CHARACTERS
"""How long the text of one sample may be: a title, a line break and a description, both cleaned."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label and its score, between 0 and 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """`labels` is sorted by falling score and never empty; the labels that are left out score less. `kind` is what the
    model looked at.
    """

    model: ModelRef
    labels: tuple[LabelScore, ...]
    kind: SampleKind = "photo"

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
    """One sample for one model: encoded photos, a text, or both. The caller waits `timeout_s` at most.

    Several photos show the same thing; the model sees what they have in common. `text` is a title and, after the first
    line break, a description.

    `sha256` is that of the first photo where the caller knows it already; otherwise the engine computes it. With
    `thumbnail` the result carries one of the first photo. `client` is who sent it: clients take turns in the queue of a
    process.

    Each photo is decoded once: `also` names more models that classify the sample, with the same `top_k`, with `measure`
    the result carries measurements of the first photo's pixels, and with `embed` the embedding of `model`.
    """

    model: str
    images: tuple[bytes, ...] = ()
    text: str = ""
    top_k: int
    timeout_s: float
    thumbnail: bool = False
    sha256: str | None = None
    priority: Priority = "online"
    client: str = ""
    also: tuple[str, ...] = ()
    measure: bool = False
    embed: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """All models that classify the sample."""
        return (self.model, *self.also)

    @property
    def byte_count(self) -> int:
        """The bytes of all photos."""
        return sum(map(len, self.images))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyResult:
    """What an engine found. `thumbnail` is a JPEG of the first photo without metadata, where the request asked for one.

    `images` are the facts of the photos in their order. `others` are the predictions of the models in `also`, in that
    order; `measurements` and `embedding` are there where the request asked for them and the sample has a photo.
    `embedding` is an array of float16 in bytes, the mean of the model's embeddings of the photos, each of length 1;
    None for a model without embeddings.
    """

    prediction: Prediction
    images: tuple[ImageFacts, ...] = ()
    thumbnail: bytes | None
    queue_s: float
    pixels_s: float
    inference_s: float
    others: tuple[Prediction, ...] = ()
    measurements: Measurements | None = None
    embedding: bytes | None = None

    @property
    def image(self) -> ImageFacts:
        """The facts of the first photo, for callers that sent one. Raises IndexError without a photo."""
        return self.images[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A loaded model, where it runs and how it is called, for people to read."""

    ref: ModelRef
    provider: str
    batching: str


class Engine(Protocol):
    """Classifies samples with the models of the channels."""

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """Classify one sample.

        Raises SampleError for a photo that cannot be used, RequestInvalid for a sample that the model cannot take,
        QueueFull, DeadlineExceeded, Unavailable (EngineStopped, QueueUnavailable, NoWorker, WireMismatch) and
        ModelNotFound.
        """
        ...

    def served(self) -> tuple[ServedModel, ...]:
        """The models that answer now."""
        ...

    def labels(self, model: str) -> tuple[str, ...]:
        """The labels of this model, in the order of its output. Raises ModelNotFound."""
        ...

    def kinds(self, model: str) -> tuple[SampleKind, ...]:
        """The kinds of samples that this model takes. Raises ModelNotFound."""
        ...

    async def check(self) -> None:
        """Raises Unavailable with the reason when requests would not be answered now."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, within bounds, and release everything."""
        ...


def require_input(manifest: Manifest, *, photos: int, text: str) -> None:
    """Raises RequestInvalid, with what is needed, for a sample of so many photos and this text if the model cannot take
    it.
    """
    kinds, model = manifest.kinds, f"{manifest.name}@{manifest.version}"
    has_text = bool(text.strip())
    if not photos and not has_text:
        one = marked("a photo") if "photo" in kinds else marked("a text")
        needed = one if len(kinds) == 1 else marked("a photo, a text, or both")
        raise RequestInvalid(f"There is nothing to classify: send {needed}.")
    if photos and "photo" not in kinds:
        raise RequestInvalid(f"The model {model} takes texts only: send no photo.")
    if has_text and "text" not in kinds:
        raise RequestInvalid(f"The model {model} takes photos only: send no text.")
    if photos > MAX_PHOTOS:
        raise RequestInvalid(f"{photos} photos were sent; a sample may have at most {MAX_PHOTOS}.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise RequestInvalid(f"The text has {len(text):,} characters; at most {MAX_TEXT_CHARACTERS:,} are allowed.")


def fault_of(error: BaseException) -> ShoplensError:
    """The outcome of a photo that met a bug: a sentence for the user, with `error` as its cause.

    A note names the error and its place, since a cause does not travel between processes.
    """
    fault = ShoplensError("This photo could not be processed because of a fault in the program.")
    fault.__cause__ = error
    fault.add_note("".join(traceback.format_exception(error, limit=-2)).strip())
    return fault
