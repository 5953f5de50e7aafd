"""Load a graph, compare it with its manifest, and run it on the probe pictures.

The probe pictures are computed with integers only, so they are the same on every machine and with every version of
every library.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state

from shoplens.bundles.manifest import Manifest
from shoplens.errors import BundleInvalid
from shoplens.images.preprocess import arrange

PROBES: Final = 4
_TOLERANCE: Final = 1e-3
_ELEMENT_TYPES: Final = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}

RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    RuntimeError,
    ValueError,
    *(
        each
        for each in vars(onnxruntime_pybind11_state).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ),
)
"""What ONNX Runtime raises: a class for each of its statuses, which have no common base, and two classes of Python."""


def open_session(path: Path | bytes, *, optimise: bool = False) -> onnxruntime.InferenceSession:
    """A session on one CPU thread. Raises BundleInvalid if the runtime cannot load the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        source = path if isinstance(path, bytes) else str(path)
        # Without the fallback, which would only try the same provider again and print that to standard output.
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except RUNTIME_ERRORS as error:
        raise BundleInvalid(f"The model file cannot be loaded: {error}") from error


def check_graph(path: Path, manifest: Manifest, label_count: int) -> None:
    """Raises BundleInvalid if the inputs or outputs of the graph differ from `manifest` and the number of labels."""
    try:
        _compare(open_session(path), manifest, label_count)
    except UnicodeDecodeError as error:  # the runtime reads any bytes as a name, Python does not
        raise BundleInvalid("The model has names that are not text in UTF-8; its file is damaged.") from error


def _compare(session: onnxruntime.InferenceSession, manifest: Manifest, label_count: int) -> None:
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    if set(inputs) != {manifest.input}:
        raise BundleInvalid(f"The model's inputs are {sorted(inputs)}; bundle.json names {manifest.input!r} only.")
    for name in filter(None, (manifest.output, manifest.embedding)):
        if name not in outputs:
            raise BundleInvalid(f"The model has no output {name!r}; it has {sorted(outputs)}.")
    source = inputs[manifest.input]
    if source.type != _ELEMENT_TYPES[manifest.image.dtype]:
        raise BundleInvalid(f"The model's input is {source.type}; bundle.json says {manifest.image.dtype}.")
    crop = manifest.image.crop
    sample = [crop, crop, 3] if manifest.image.layout == "nhwc" else [3, crop, crop]
    batch, *sizes = source.shape or [None]
    # Open dimensions are no numbers; they fit any size.
    fits = [size if isinstance(size, int) else wanted for size, wanted in zip(sizes, sample, strict=False)] == sample
    if len(sizes) != 3 or not fits:
        raise BundleInvalid(f"The model's input has the shape {source.shape}; bundle.json says {sample} per sample.")
    if isinstance(batch, int) and batch != manifest.max_batch:
        raise BundleInvalid(f"The model takes {batch} at once; bundle.json says up to {manifest.max_batch}.")
    classes = outputs[manifest.output].shape[1:]
    if all(isinstance(size, int) for size in classes) and math.prod(classes) != label_count:
        raise BundleInvalid(f"The model has {math.prod(classes)} outputs, but labels.json has {label_count} labels.")


def probe_pixels(side: int) -> NDArray[np.uint8]:
    """(PROBES, side, side, 3) uint8: a slope, a chequered board, rings and noise."""
    row, column = np.mgrid[0:side, 0:side].astype(np.int64)
    channel = np.arange(3, dtype=np.int64)[:, None, None]
    slope = (row * 255 // side + channel * (column * 128 // side)) % 256
    board = (row // 16 + column // (8 + channel * 8)) % 2 * 190 + 30
    rings = ((row - side // 2) ** 2 + (column - side // 3) ** 2) // (40 + channel * 20) % 256
    noise = (row * 7919 + column * 104_729 + (row * column + channel) * 1_299_709) // 64 % 256
    planes = np.stack([np.broadcast_to(probe, (3, side, side)) for probe in (slope, board, rings, noise)])
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1).astype(np.uint8))


def probe_batch(manifest: Manifest) -> NDArray[Any]:
    """The probe pictures as input of the model, with a batch axis."""
    return np.stack([arrange(pixels, manifest.image) for pixels in probe_pixels(manifest.image.crop)])


def probe_scores(session: onnxruntime.InferenceSession, manifest: Manifest) -> NDArray[np.float32]:
    """(PROBES, outputs) of the graph, computed one by one. Raises BundleInvalid if it fails."""
    return np.concatenate([_run(session, manifest, sample[None]) for sample in probe_batch(manifest)])


def check_outputs(session: onnxruntime.InferenceSession, manifest: Manifest, label_count: int) -> None:
    """Raises BundleInvalid unless every probe gives one finite number per label, the same alone and in a batch."""
    scores = probe_scores(session, manifest)
    if scores.shape != (PROBES, label_count):
        raise BundleInvalid(f"The model has {scores.shape[1]} outputs, but there are {label_count} labels.")
    if not np.isfinite(scores).all():
        raise BundleInvalid("The outputs of the model are not finite; its weights or its export are broken.")
    if np.ptp(scores, axis=0).max() == 0:
        raise BundleInvalid("The model gives the same answer for every picture; its weights are probably missing.")
    if manifest.max_batch > 1:
        try:
            together = _run(session, manifest, probe_batch(manifest)[:2])
        except BundleInvalid as error:
            raise BundleInvalid(f"{error} Its graph declares an open batch; export it with a batch of one.") from error
        scale = max(1.0, float(np.abs(scores[:2]).max()))
        if together.shape != scores[:2].shape or np.abs(together - scores[:2]).max() > _TOLERANCE * scale:
            raise BundleInvalid("The model gives other outputs in a batch than one by one.")


def _run(session: onnxruntime.InferenceSession, manifest: Manifest, batch: NDArray[Any]) -> NDArray[np.float32]:
    try:
        output = session.run([manifest.output], {manifest.input: batch})[0]
    except RUNTIME_ERRORS as error:
        raise BundleInvalid(f"The model cannot be run: {error}") from error
    values: NDArray[np.float32] = np.asarray(output)
    if values.dtype != np.float32 or values.ndim < 2 or len(values) != len(batch):
        raise BundleInvalid(f"The output is {values.dtype} of shape {values.shape}, not one row per picture.")
    return values.reshape(len(batch), -1)
