"""Store a fine-tuned network as its difference from the network it started from, in a small file.

Only the layers that changed are stored, as differences in whole steps. The differences are small beside the weights,
so coarse steps lose little, and most of them fit into a few bits, which compress well.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.builtin.efficientnet import Arrays, Network

_STEPS_PER_DEVIATION: Final = 5.0
_MAX_STEPS: Final = 127


def delta_of(origin: Network, tuned: Network) -> dict[str, NDArray[Any]]:
    """The arrays with which `apply_delta` makes (nearly) `tuned` of `origin`."""
    arrays: dict[str, NDArray[Any]] = {"classifier.weight": tuned.weight, "classifier.bias": tuned.bias}
    for before, after in zip(origin.layers, tuned.layers, strict=True):
        if np.array_equal(before.weight, after.weight) and np.array_equal(before.bias, after.bias):
            continue
        change = after.weight - before.weight
        rows = change.reshape(len(change), -1)
        # a step per output channel; the greatest change always fits
        scales = np.maximum(rows.std(axis=1) / _STEPS_PER_DEVIATION, np.abs(rows).max(axis=1) / _MAX_STEPS)
        scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32)
        steps = np.clip(np.rint(rows / scales[:, None]), -_MAX_STEPS, _MAX_STEPS).astype(np.int8)
        arrays |= {
            f"{before.name}.steps": steps.reshape(change.shape),
            f"{before.name}.scales": scales,
            f"{before.name}.bias": (after.bias - before.bias).astype(np.float16),
        }
    return arrays


def packed(arrays: Arrays) -> bytes:
    """One compressed file; the same arrays give the same bytes."""
    with io.BytesIO() as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()
