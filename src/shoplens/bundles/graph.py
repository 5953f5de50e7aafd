"""Compare a model file with what its bundle says of it, by loading it as the server would: path and manifest in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import onnxruntime

from shoplens.bundles.manifest import Manifest
from shoplens.errors import BundleInvalid

_ELEMENT_TYPES: Final = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


def session_for(path: Path | bytes, *, optimise: bool = False) -> onnxruntime.InferenceSession:
    """A session on one thread of the CPU. Raises BundleInvalid when the runtime cannot load the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        source = path if isinstance(path, bytes) else str(path)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a class of its own for each of its states
        raise BundleInvalid(f"The model file cannot be loaded: {error}") from error


def check_graph(path: Path, manifest: Manifest, label_count: int) -> None:
    """Raises BundleInvalid when the graph's inputs or outputs differ from `manifest` and the number of labels."""
    session = session_for(path)
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    if set(inputs) != {manifest.input}:
        raise BundleInvalid(f"The model's inputs are {sorted(inputs)}; bundle.json names {manifest.input!r} only.")
    for name in filter(None, (manifest.output, manifest.embedding)):
        if name not in outputs:
            raise BundleInvalid(f"The model has no output {name!r}; it has {sorted(outputs)}.")
    _check_input(inputs[manifest.input], manifest)
    _check_output(outputs[manifest.output].shape, label_count)


def _check_input(value: Any, manifest: Manifest) -> None:
    crop = manifest.image.crop
    sample = [crop, crop, 3] if manifest.image.layout == "nhwc" else [3, crop, crop]
    wanted = _ELEMENT_TYPES[manifest.image.dtype]
    if value.type != wanted:
        raise BundleInvalid(f"The model's input is {value.type}; bundle.json says {manifest.image.dtype}.")
    if not _fits(value.shape[1:], sample) or len(value.shape) != 4:
        raise BundleInvalid(f"The model's input has the shape {value.shape}; bundle.json says {sample} per sample.")
    if isinstance(value.shape[0], int) and value.shape[0] != manifest.max_batch:
        raise BundleInvalid(f"The model takes {value.shape[0]} at once; bundle.json says up to {manifest.max_batch}.")


def _check_output(shape: list[Any], label_count: int) -> None:
    classes = shape[1:]
    known = all(isinstance(size, int) for size in classes)
    total = 1
    for size in classes if known else []:
        total *= size
    if known and total != label_count:
        raise BundleInvalid(f"The model has {total} outputs, but labels.json has {label_count} labels.")


def _fits(shape: list[Any], sample: list[int]) -> bool:
    """Names instead of numbers are dimensions that the graph leaves open."""
    return len(shape) == len(sample) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(shape, sample, strict=True)
    )
