"""What a network has learned beyond its origin, small enough to keep: two Networks in, arrays out, and back.

Only the layers that changed are kept, as differences in whole steps: they are small beside the weights themselves, so
coarse steps lose nothing, and most of them fit into a few bits, which compression then makes use of. The weights of the
origin are not among them: they come from their own package.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.builtin.network import Floats, Layer, Network

Arrays = Mapping[str, NDArray[Any]]

_STEPS_PER_DEVIATION: Final = 5.0
_LIMIT: Final = 127


def difference(origin: Network, learned: Network) -> dict[str, NDArray[Any]]:
    """The arrays that `learn` needs to make (nearly) `learned` of `origin`."""
    arrays: dict[str, NDArray[Any]] = {"classifier.weight": learned.weight, "classifier.bias": learned.bias}
    for before, after in zip(origin.layers, learned.layers, strict=True):
        if not (np.array_equal(before.weight, after.weight) and np.array_equal(before.bias, after.bias)):
            whole, scales = _steps(after.weight - before.weight)
            arrays |= {
                f"{before.name}.steps": whole,
                f"{before.name}.scales": scales,
                f"{before.name}.bias": (after.bias - before.bias).astype(np.float16),
            }
    return arrays


def learn(origin: Network, arrays: Arrays) -> Network:
    """`origin` with what `arrays` says was learned."""
    layers = tuple(_changed(layer, arrays) if f"{layer.name}.steps" in arrays else layer for layer in origin.layers)
    return Network(layers=layers, weight=arrays["classifier.weight"].copy(), bias=arrays["classifier.bias"].copy())


def pack_arrays(arrays: Arrays) -> bytes:
    """One compressed file; the same arrays give the same bytes."""
    with io.BytesIO() as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()


def unpack_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """What `pack_arrays` was given. Raises ValueError for anything else."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _changed(layer: Layer, arrays: Arrays) -> Layer:
    steps, scales = arrays[f"{layer.name}.steps"], arrays[f"{layer.name}.scales"]
    change = steps.astype(np.float32) * scales.astype(np.float32).reshape(-1, *[1] * (steps.ndim - 1))
    bias = layer.bias + arrays[f"{layer.name}.bias"].astype(np.float32)
    return replace(layer, weight=np.asarray(layer.weight + change, np.float32), bias=np.asarray(bias, np.float32))


def _steps(change: Floats) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A step per output channel, some to a standard deviation; the greatest changes always fit."""
    rows = change.reshape(len(change), -1)
    scales = np.maximum(rows.std(axis=1) / _STEPS_PER_DEVIATION, np.abs(rows).max(axis=1) / _LIMIT)
    scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
    whole = np.clip(np.rint(rows / scales[:, None]), -_LIMIT, _LIMIT).astype(np.int8)
    return whole.reshape(change.shape), scales
