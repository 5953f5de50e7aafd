"""Load the graphs of a bundle, compare them with its manifest, and run them on probe pictures and probe texts.

The probes are computed with integers only, so they are the same on every machine and with every version of every
library.

The graph of a model with a text input takes features, n samples at a time:

tokens     int64 (n, k)     the text's tokens, 0 to `buckets` - 1, padded with 0
weights    float32 (n, k)   how much each token counts; 0 for padding
embedding  float32 (n, d)   only with an image input: the mean of the embeddings of the photos, each of length 1

Its outputs `photo`, `text` and `both` (only `text` without an image input) are float32 (n, labels), one for each kind
of sample. What a sample lacks is fed as zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
_PROBE_TOKENS: Final = (3, 40, 12, 7)
"""How many tokens each probe text has, where the model reads so many."""
_FEATURES: Final = {"tokens": "tensor(int64)", "weights": "tensor(float)", "embedding": "tensor(float)"}
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


def check_graph(path: Path, manifest: Manifest, label_count: int, encoder: Path | None = None) -> None:
    """Raises BundleInvalid if the inputs or outputs of the graphs differ from `manifest` and the number of labels.

    `encoder` is the graph of photos of a model that takes texts, too.
    """
    try:
        session = open_session(path)
        if manifest.text is None:
            _compare_pixels(session, manifest, (manifest.output, manifest.embedding))
            _compare_labels(session, manifest.output, label_count)
            return
        if encoder is not None:
            _compare_pixels(open_session(encoder), manifest, (manifest.embedding,))
        _compare_features(session, manifest)
        for kind in manifest.kinds:
            _compare_labels(session, kind, label_count)
    except UnicodeDecodeError as error:  # the runtime reads any bytes as a name, Python does not
        raise BundleInvalid("The model has names that are not text in UTF-8; its file is damaged.") from error


def _compare_pixels(session: onnxruntime.InferenceSession, manifest: Manifest, names: tuple[str | None, ...]) -> None:
    """The only input takes pixels as `manifest` says, and there are outputs of these names."""
    spec = manifest.image_spec
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    if set(inputs) != {manifest.input}:
        raise BundleInvalid(f"The model's inputs are {sorted(inputs)}; bundle.json names {manifest.input!r} only.")
    for name in filter(None, names):
        if name not in outputs:
            raise BundleInvalid(f"The model has no output {name!r}; it has {sorted(outputs)}.")
    source = inputs[manifest.input]
    if source.type != _ELEMENT_TYPES[spec.dtype]:
        raise BundleInvalid(f"The model's input is {source.type}; bundle.json says {spec.dtype}.")
    sample = [spec.crop, spec.crop, 3] if spec.layout == "nhwc" else [3, spec.crop, spec.crop]
    batch, *sizes = source.shape or [None]
    # Open dimensions are no numbers; they fit any size.
    fits = [size if isinstance(size, int) else wanted for size, wanted in zip(sizes, sample, strict=False)] == sample
    if len(sizes) != 3 or not fits:
        raise BundleInvalid(f"The model's input has the shape {source.shape}; bundle.json says {sample} per sample.")
    if isinstance(batch, int) and batch != manifest.max_batch:
        raise BundleInvalid(f"The model takes {batch} at once; bundle.json says up to {manifest.max_batch}.")


def _compare_features(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """The inputs take any number of samples and tokens, and there is an output for each kind of sample."""
    inputs = {value.name: value for value in session.get_inputs()}
    wanted = {"tokens", "weights", *(["embedding"] if manifest.image is not None else [])}
    if set(inputs) != wanted:
        raise BundleInvalid(f"The model's inputs are {sorted(inputs)}; with a text input they are {sorted(wanted)}.")
    for name, value in inputs.items():
        is_open = len(value.shape) == 2 and not isinstance(value.shape[0], int)
        if not is_open or (name == "embedding") != isinstance(value.shape[1], int):
            raise BundleInvalid(
                f"The model's input {name!r} has the shape {value.shape}; only the second size of `embedding` is fixed."
            )
        if value.type != _FEATURES[name]:
            raise BundleInvalid(f"The model's input {name!r} is {value.type}, not {_FEATURES[name]}.")
    outputs = {value.name for value in session.get_outputs()}
    if missing := set(manifest.kinds) - outputs:
        raise BundleInvalid(f"The model has no output {min(missing)!r}; it has {sorted(outputs)}.")


def _compare_labels(session: onnxruntime.InferenceSession, output: str, label_count: int) -> None:
    """The output of this name has a number per label, where the graph says how many it has."""
    (value,) = (each for each in session.get_outputs() if each.name == output)
    classes = value.shape[1:]
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
    spec = manifest.image_spec
    return np.stack([arrange(pixels, spec) for pixels in probe_pixels(spec.crop)])


def probe_texts(manifest: Manifest) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(PROBES, k) tokens and weights of the probe texts, padded, for a model with a text input."""
    spec = manifest.text
    if spec is None:
        raise BundleInvalid(f"The model {manifest.name}@{manifest.version} takes no texts.")
    counts = [min(count, spec.max_features, spec.buckets) for count in _PROBE_TOKENS]
    tokens = np.zeros((PROBES, max(counts)), np.int64)
    weights = np.zeros((PROBES, max(counts)), np.float32)
    for probe, count in enumerate(counts):
        tokens[probe, :count] = (np.arange(count, dtype=np.int64) * 7919 + probe * 104_729) % spec.buckets
        tokens[probe, count - 1] = spec.buckets - 1  # the last row of its table
        weights[probe, :count] = np.sqrt(1 + np.arange(count) % 3)
    return tokens, weights


def probe_scores(session: onnxruntime.InferenceSession, manifest: Manifest) -> NDArray[np.float32]:
    """(PROBES, outputs) of the graph, computed one by one. Raises BundleInvalid if it fails."""
    return np.concatenate([_run(session, manifest, sample[None]) for sample in probe_batch(manifest)])


def check_outputs(session: onnxruntime.InferenceSession, manifest: Manifest, label_count: int) -> None:
    """Raises BundleInvalid unless each probe picture gives a finite number per label, the same alone and in a batch."""

    def run(rows: slice) -> NDArray[np.float32]:
        return _run(session, manifest, probe_batch(manifest)[rows])

    _check_answers(run, label_count, batches=manifest.max_batch > 1, of="picture")


def check_answers(model: Path, encoder: Path | None, manifest: Manifest, label_count: int) -> None:
    """The same for the graphs of a bundle and every kind of sample. Raises BundleInvalid."""
    session = open_session(model, optimise=True)
    if manifest.text is None:
        check_outputs(session, manifest, label_count)
        return
    tokens, weights = probe_texts(manifest)
    complete: dict[str, NDArray[Any]] = {"tokens": tokens, "weights": weights}
    if encoder is not None:
        complete["embedding"] = _probe_embeddings(open_session(encoder, optimise=True), manifest)
    for kind in manifest.kinds:
        absent = {"photo": {"tokens", "weights"}, "text": {"embedding"}, "both": set[str]()}[kind]
        feeds = {name: np.zeros_like(value) if name in absent else value for name, value in complete.items()}

        def run(rows: slice, kind: str = kind, feeds: dict[str, NDArray[Any]] = feeds) -> NDArray[np.float32]:
            return _outputs(session, kind, {name: value[rows] for name, value in feeds.items()})

        _check_answers(run, label_count, batches=True, of={"photo": "picture", "text": "text", "both": "sample"}[kind])


def sample_scores(
    session: onnxruntime.InferenceSession, encoder: onnxruntime.InferenceSession, manifest: Manifest
) -> NDArray[np.float32]:
    """(PROBES, outputs) of the probe pictures with the probe texts. Raises BundleInvalid if it fails."""
    tokens, weights = probe_texts(manifest)
    feeds: dict[str, NDArray[Any]] = {
        "tokens": tokens,
        "weights": weights,
        "embedding": _probe_embeddings(encoder, manifest),
    }
    return _outputs(session, manifest.output, feeds)


def _probe_embeddings(encoder: onnxruntime.InferenceSession, manifest: Manifest) -> NDArray[np.float32]:
    """(PROBES, d) of length 1. Raises BundleInvalid if the encoder gives no usable ones."""
    pictures = probe_batch(manifest)
    found = np.concatenate(
        [_outputs(encoder, str(manifest.embedding), {manifest.input: each[None]}) for each in pictures]
    )
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not np.isfinite(found).all() or not lengths.all():
        raise BundleInvalid("The encoder gives no usable embeddings; its weights or its export are broken.")
    values: NDArray[np.float32] = found / lengths
    return values


def _check_answers(run: Callable[[slice], NDArray[np.float32]], label_count: int, *, batches: bool, of: str) -> None:
    """`run` gives the outputs of some of the probes."""
    scores = np.concatenate([run(slice(at, at + 1)) for at in range(PROBES)])
    if scores.shape != (PROBES, label_count):
        raise BundleInvalid(f"The model has {scores.shape[1]} outputs, but there are {label_count} labels.")
    if not np.isfinite(scores).all():
        raise BundleInvalid("The outputs of the model are not finite; its weights or its export are broken.")
    if np.ptp(scores, axis=0).max() == 0:
        raise BundleInvalid(f"The model gives the same answer for every {of}; its weights are probably missing.")
    if batches:
        try:
            together = run(slice(0, 2))
        except BundleInvalid as error:
            raise BundleInvalid(f"{error} Its graph declares an open batch; export it with a batch of one.") from error
        scale = max(1.0, float(np.abs(scores[:2]).max()))
        if together.shape != scores[:2].shape or np.abs(together - scores[:2]).max() > _TOLERANCE * scale:
            raise BundleInvalid("The model gives other outputs in a batch than one by one.")


def _run(session: onnxruntime.InferenceSession, manifest: Manifest, batch: NDArray[Any]) -> NDArray[np.float32]:
    return _outputs(session, manifest.output, {manifest.input: batch})


def _outputs(session: onnxruntime.InferenceSession, output: str, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """(n, numbers) of this output. Raises BundleInvalid if the graph cannot be run."""
    try:
        (found,) = session.run([output], feeds)
    except RUNTIME_ERRORS as error:
        raise BundleInvalid(f"The model cannot be run: {error}") from error
    samples = len(next(iter(feeds.values())))
    values: NDArray[np.float32] = np.asarray(found)
    if values.dtype != np.float32 or values.ndim < 2 or len(values) != samples:
        raise BundleInvalid(f"The output is {values.dtype} of shape {values.shape}, not one row per sample.")
    return values.reshape(samples, -1)
