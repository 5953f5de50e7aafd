"""Classify with one bundle on ONNX Runtime: tensors and text features in, one outcome per sample, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import SampleKind
from shoplens.bundles.probe import RUNTIME_ERRORS
from shoplens.errors import BundleInvalid, Misconfigured, RequestInvalid, ShoplensError
from shoplens.images.picture import ImageSpec, Picture
from shoplens.images.preprocess import preprocess
from shoplens.serving.engine import RANKED_LABELS, LabelScore, Prediction
from shoplens.texts.features import TextFeatures, features

Provider = Literal["cpu", "cuda"]
Tensor = NDArray[Any]
Floats = NDArray[np.float32]

_WARM_TEXT: Final = "a red cotton shirt"
_ORT_NAMES: Final[dict[Provider, str]] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def choose_provider(wanted: Literal["auto", "cpu", "cuda"]) -> Provider:
    """The provider to use. Raises Misconfigured when CUDA is demanded and not there."""
    has_cuda = _ORT_NAMES["cuda"] in onnxruntime.get_available_providers()
    if wanted == "cuda" and not has_cuda:
        raise Misconfigured(
            "The setting provider is `cuda`, but this ONNX Runtime has no CUDA provider. "
            "Install onnxruntime-gpu in place of onnxruntime, or set provider to `auto`."
        )
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def open_session(model: Path | bytes, *, provider: Provider, name: str | None = None) -> onnxruntime.InferenceSession:
    """Open a file, or a model in memory that errors call `name`. Raises BundleInvalid when ONNX Runtime cannot.

    On a CPU one call uses one thread: as many callers as cores beat one call on many threads, whose spinning
    collapses next to a busy neighbour (measured; see docs/explanation/serving.md).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [_ORT_NAMES[provider]] + ([_ORT_NAMES["cpu"]] if provider != "cpu" else [])
    try:
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, options, providers=providers)
    except RUNTIME_ERRORS as error:
        what = name or (model.name if isinstance(model, Path) else "the model")
        raise BundleInvalid(f"{what} cannot be opened by ONNX Runtime: {error}") from error
    if _ORT_NAMES[provider] not in session.get_providers():
        raise Misconfigured(f"ONNX Runtime fell back from {provider} to {session.get_providers()[0]}.")
    return session


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedSample:
    """What a model wants to know of one sample: the tensor of each photo, the features of its text, or both.

    In place of photos it may have their `embedding`, as an answer of the same encoder had it.
    """

    photos: tuple[Tensor, ...] = ()
    text: TextFeatures | None = None
    embedding: Floats | None = None

    @property
    def kind(self) -> SampleKind:
        """What it has."""
        if self.text is None:
            return "photo"
        return "both" if self.photos or self.embedding is not None else "text"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelAnswer:
    """A prediction, and (dimensions,) float32: the mean of the embeddings of the photos, each of length 1.

    The embedding is None where it was not asked for, and for a sample without photos or a model without embeddings.
    """

    prediction: Prediction
    embedding: Floats | None = None


class Classifier:
    """An open bundle. All methods may be called from many threads at once.

    Raises BundleInvalid when ONNX Runtime cannot open the model.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "cpu") -> None:
        self.bundle = bundle
        self.provider = provider
        self._manifest = bundle.manifest
        self._ref = bundle.ref
        self._labels = tuple(label.name for label in bundle.labels)
        self._session = open_session(bundle.model_path, provider=provider)
        encoder = bundle.encoder_path
        self._encoder = None if encoder is None else open_session(encoder, provider=provider)
        self._dimensions = next((each.shape[1] for each in self._session.get_inputs() if each.name == "embedding"), 0)

    @property
    def spec(self) -> ImageSpec:
        """The preprocessing that its tensors need. Raises BundleInvalid for a model that takes no photos."""
        return self._manifest.image_spec

    def prepare(self, pictures: Sequence[Picture] = (), text: str = "") -> PreparedSample:
        """The sample as the model takes it. Raises RequestInvalid for one of a text without any word."""
        return self.prepared(tuple(preprocess(each, self.spec) for each in pictures), text)

    def prepared(self, photos: tuple[Tensor, ...], text: str = "") -> PreparedSample:
        """The same of photos that are preprocessed already."""
        found = None if self._manifest.text is None else features(text, self._manifest.text)
        if found is not None and not len(found.tokens):
            found = None
        if not photos and found is None:
            raise RequestInvalid("There is nothing to classify: the text has no words, and there is no photo.")
        return PreparedSample(photos=photos, text=found)

    def classify(
        self, samples: Sequence[PreparedSample], *, top_k: int = RANKED_LABELS, embed: bool = False
    ) -> list[ModelAnswer | ShoplensError]:
        """One outcome per sample, in order, each with at least `top_k` labels where the model has them."""
        outcomes: list[ModelAnswer | ShoplensError] = []
        all_scores, embeddings = self._compute(samples, embed=embed)
        for sample, scores, embedding in zip(samples, all_scores, embeddings, strict=True):
            if not np.isfinite(scores).all():
                outcomes.append(ShoplensError(f"{self._ref} gave scores that are not numbers for this sample."))
                continue
            best = _best(scores, max(top_k, RANKED_LABELS))
            ranked = zip(best.tolist(), scores[best].tolist(), strict=True)
            labels = tuple(LabelScore(self._labels[index], score) for index, score in ranked)
            prediction = Prediction(model=self._ref, labels=labels, kind=sample.kind)
            outcomes.append(ModelAnswer(prediction=prediction, embedding=embedding))
        return outcomes

    def scores(self, samples: Sequence[PreparedSample]) -> Floats:
        """(n, labels) float32, in as many model calls as the model's largest batch asks for."""
        return self._compute(samples, embed=False)[0]

    def embeddings(self, tensors: Sequence[Tensor]) -> Floats:
        """(n, dimensions) float32, one per photo. Raises RequestInvalid for a model without embeddings."""
        output = self._manifest.embedding
        if output is None:
            raise RequestInvalid(f"{self._ref} has no embeddings; its graph has no such output.")
        (values,) = self._run_pixels(self._encoder or self._session, [output], tensors)
        return values

    def warm(self) -> None:
        """Make the first real call as quick as the next. Raises BundleInvalid if the model cannot answer."""
        pictures: list[Picture] = []
        texts = [""]
        if self._manifest.image is not None:
            side = self.spec.resize
            grey = np.full((side, side, 3), 127, np.uint8)
            pictures = [Picture(pixels=grey, format="png", width=side, height=side)]
        if self._manifest.text is not None:
            texts = ["", _WARM_TEXT] if pictures else [_WARM_TEXT]
        samples = [self.prepare(pictures, text) for text in texts]
        if pictures and self._manifest.text is not None:
            samples.append(self.prepare((), _WARM_TEXT))
        for sample in samples:  # one by one, as real ones come
            (outcome,) = self.classify([sample])
            if isinstance(outcome, ShoplensError):
                raise BundleInvalid(
                    f"{self._ref} cannot classify the {sample.kind} that warms it up: {outcome}"
                ) from outcome

    def _compute(self, samples: Sequence[PreparedSample], *, embed: bool) -> tuple[Floats, Sequence[Floats | None]]:
        """(n, labels) scores, and the embedding of each sample."""
        if self._manifest.text is not None:
            return self._compute_features(samples)
        counts = [len(sample.photos) for sample in samples]
        names = [self._manifest.output]
        if embed and self._manifest.embedding is not None:
            names.append(self._manifest.embedding)
        tensors = [photo for sample in samples for photo in sample.photos]
        logits, *embeddings = self._run_pixels(self._session, names, tensors)
        scores = _mean_by_sample(self._activated(logits), counts)
        if not embeddings:
            return scores, [None] * len(samples)
        return scores, list(_mean_by_sample(_of_length_one(embeddings[0]), counts))

    def _compute_features(self, samples: Sequence[PreparedSample]) -> tuple[Floats, Sequence[Floats | None]]:
        """The same where features of photos and texts go into a graph of their own."""
        embeddings = self._sample_embeddings(samples)
        inputs = {value.name for value in self._session.get_inputs()}
        size = self._manifest.max_batch
        logits: list[Floats] = []
        for at in range(0, len(samples), size):
            part = samples[at : at + size]
            kinds = sorted({sample.kind for sample in part})
            tokens, weights = padded([sample.text for sample in part])
            feeds: dict[str, Tensor] = {"tokens": tokens, "weights": weights}
            if "embedding" in inputs:
                none = np.zeros(self._dimensions, np.float32)
                feeds["embedding"] = np.stack([none if each is None else each for each in embeddings[at : at + size]])
            outputs = dict(zip(kinds, self._session.run(kinds, feeds), strict=True))
            logits += [outputs[sample.kind][row] for row, sample in enumerate(part)]
        return self._activated(np.stack(logits)), embeddings

    def _sample_embeddings(self, samples: Sequence[PreparedSample]) -> list[Floats | None]:
        """The mean of the embeddings of each sample's photos; None for a sample without a photo."""
        with_photos = [sample for sample in samples if sample.photos]
        if not with_photos or self._encoder is None:
            return [sample.embedding for sample in samples]
        each_photo = self.embeddings([photo for sample in with_photos for photo in sample.photos])
        means = iter(_mean_by_sample(_of_length_one(each_photo), [len(sample.photos) for sample in with_photos]))
        return [next(means) if sample.photos else sample.embedding for sample in samples]

    def _run_pixels(
        self, session: onnxruntime.InferenceSession, names: Sequence[str], tensors: Sequence[Tensor]
    ) -> list[Floats]:
        """(n, numbers) of these outputs of a graph that takes pixels."""
        manifest = self._manifest
        size = manifest.max_batch
        batches = [np.stack(tensors[at : at + size]) for at in range(0, len(tensors), size)]
        outputs = [session.run(names, {manifest.input: batch}) for batch in batches]
        return [np.concatenate(parts).reshape(len(tensors), -1) for parts in zip(*outputs, strict=True)]

    def _activated(self, values: Floats) -> Floats:
        """(n, labels) scores from the outputs of the graph."""
        match self._manifest.activation:
            case "softmax":
                values = np.exp(values - values.max(axis=1, keepdims=True))
                values = values / values.sum(axis=1, keepdims=True)
            case "sigmoid":
                decay = np.exp(-np.abs(values))  # cannot overflow, whichever sign a value has
                values = np.where(values >= 0, 1 / (1 + decay), decay / (1 + decay))
        return values


def padded(texts: Sequence[TextFeatures | None]) -> tuple[NDArray[np.int64], Floats]:
    """(n, k) tokens and weights of these texts, with token 0 of weight 0 where a text is shorter or missing."""
    longest = max((len(each.tokens) for each in texts if each is not None), default=1)
    tokens = np.zeros((len(texts), longest), np.int64)
    weights = np.zeros((len(texts), longest), np.float32)
    for row, each in enumerate(texts):
        if each is not None:
            tokens[row, : len(each.tokens)] = each.tokens
            weights[row, : len(each.tokens)] = each.weights
    return tokens, weights


def _of_length_one(vectors: Floats) -> Floats:
    """Each row divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    values: Floats = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return values


def _mean_by_sample(rows: Floats, counts: Sequence[int]) -> Floats:
    """(samples, numbers): the means of the first `counts[0]` rows, of the next `counts[1]`, and so on."""
    if len(rows) == len(counts):
        return rows
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)
    means: Floats = np.add.reduceat(rows, starts, axis=0)
    means /= np.asarray(counts, np.float32)[:, None]
    return means


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest scores, best first; equal scores in label order."""
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    candidates = np.sort(np.argpartition(scores, -count)[-count:])
    return candidates[np.argsort(-scores[candidates], kind="stable")]
