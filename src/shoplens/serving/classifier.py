"""Classify with one bundle on ONNX Runtime: tensors in, one outcome per sample, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.probe import RUNTIME_ERRORS
from shoplens.errors import BundleInvalid, Misconfigured, RequestInvalid, ShoplensError
from shoplens.images.picture import Picture
from shoplens.images.preprocess import preprocess
from shoplens.serving.engine import RANKED_LABELS, LabelScore, Prediction

Provider = Literal["cpu", "cuda"]
Tensor = NDArray[Any]

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


class Classifier:
    """An open bundle. All methods may be called from many threads at once.

    `spec` is the preprocessing that its tensors need. Raises BundleInvalid when ONNX Runtime cannot open the model.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "cpu") -> None:
        self.bundle = bundle
        self.provider = provider
        self.spec = bundle.manifest.image_spec
        self._ref = bundle.ref
        self._labels = tuple(label.name for label in bundle.labels)
        self._session = open_session(bundle.model_path, provider=provider)

    def classify(self, tensors: Sequence[Tensor], *, top_k: int = RANKED_LABELS) -> list[Prediction | ShoplensError]:
        """One outcome per tensor, in order, each with at least `top_k` labels where the model has them."""
        outcomes: list[Prediction | ShoplensError] = []
        for scores in self.scores(tensors):
            if not np.isfinite(scores).all():
                outcomes.append(ShoplensError(f"{self._ref} gave scores that are not numbers for this photo."))
                continue
            best = _best(scores, max(top_k, RANKED_LABELS))
            ranked = zip(best.tolist(), scores[best].tolist(), strict=True)
            labels = tuple(LabelScore(self._labels[index], score) for index, score in ranked)
            outcomes.append(Prediction(model=self._ref, labels=labels))
        return outcomes

    def scores(self, tensors: Sequence[Tensor]) -> NDArray[np.float32]:
        """(n, labels) float32, in as many model calls as the model's largest batch asks for."""
        manifest = self.bundle.manifest
        values = self._run(manifest.output, tensors)
        match manifest.activation:
            case "softmax":
                values = np.exp(values - values.max(axis=1, keepdims=True))
                values = values / values.sum(axis=1, keepdims=True)
            case "sigmoid":
                decay = np.exp(-np.abs(values))  # cannot overflow, whichever sign a value has
                values = np.where(values >= 0, 1 / (1 + decay), decay / (1 + decay))
        return values

    def embeddings(self, tensors: Sequence[Tensor]) -> NDArray[np.float32]:
        """(n, dimensions) float32. Raises RequestInvalid for a model without embeddings."""
        output = self.bundle.manifest.embedding
        if output is None:
            raise RequestInvalid(f"{self._ref} has no embeddings; its graph has no such output.")
        return self._run(output, tensors)

    def _run(self, output: str, tensors: Sequence[Tensor]) -> NDArray[np.float32]:
        """(n, numbers) of this output of the graph."""
        manifest = self.bundle.manifest
        size = manifest.max_batch
        batches = [np.stack(tensors[at : at + size]) for at in range(0, len(tensors), size)]
        outputs = [self._session.run([output], {manifest.input: batch})[0] for batch in batches]
        values: NDArray[np.float32] = np.concatenate(outputs).reshape(len(tensors), -1)
        return values

    def warm(self) -> None:
        """Make the first real call as quick as the next. Raises BundleInvalid if the model cannot answer."""
        side = self.spec.resize
        grey = Picture(pixels=np.full((side, side, 3), 127, np.uint8), format="png", width=side, height=side)
        (outcome,) = self.classify([preprocess(grey, self.spec)])
        if isinstance(outcome, ShoplensError):
            raise BundleInvalid(f"{self._ref} cannot classify a grey picture: {outcome}") from outcome


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest scores, best first; equal scores in label order."""
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    candidates = np.sort(np.argpartition(scores, -count)[-count:])
    return candidates[np.argsort(-scores[candidates], kind="stable")]
