"""Open a model file in ONNX Runtime with the threads and the provider that suit this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from shoplens.errors import BundleInvalid, Misconfigured

Provider = Literal["cpu", "cuda"]

_ORT_NAMES: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open model. `run` may be called from many threads at once."""

    provider: Provider
    _ort: Any

    def run(self, batch: NDArray[Any], *, input_name: str, output_name: str) -> NDArray[np.float32]:
        """One model call: (n, ...) in, (n, ...) float32 out."""
        outputs: list[NDArray[np.float32]] = self._ort.run([output_name], {input_name: batch})
        return outputs[0]


def choose_provider(wanted: Literal["auto", "cpu", "cuda"]) -> Provider:
    """The provider to use. Raises Misconfigured when CUDA is demanded and not there."""
    has_cuda = _ORT_NAMES["cuda"] in onnxruntime.get_available_providers()
    if wanted == "cuda" and not has_cuda:
        raise Misconfigured(
            "The setting provider is `cuda`, but this ONNX Runtime has no CUDA provider. "
            "Install onnxruntime-gpu in place of onnxruntime, or set provider to `auto`."
        )
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def open_session(path: Path, *, provider: Provider) -> Session:
    """Open `path`. Raises BundleInvalid when ONNX Runtime cannot.

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
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class below Exception
        raise BundleInvalid(f"{path.name} cannot be opened by ONNX Runtime: {error}") from error
    if _ORT_NAMES[provider] not in session.get_providers():
        raise Misconfigured(f"ONNX Runtime fell back from {provider} to {session.get_providers()[0]}.")
    return Session(provider=provider, _ort=session)
