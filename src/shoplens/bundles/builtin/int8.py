"""Round weights to int8 so that every processor computes the same sums: float weights in, whole numbers out.

Processors without VNNI add two products of neighbouring inputs in 16 bits and clip the sum. An input is at most 255,
so two neighbouring weights of the same sign that add up to 128 or less can never be clipped: 255 x 128 < 2^15. The
scales are chosen under that condition; it costs far less than the usual way out, weights of seven bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PAIR_LIMIT: Final = 128
_LIMIT: Final = 127
_STRETCHES: Final = np.linspace(0.6, 2.0, 57, dtype=np.float32)


def rounded(weight: Floats, *, pairs: bool = True) -> tuple[NDArray[np.int8], Floats]:
    """`weight` (out, ...) as whole numbers and a scale per output channel, with the least squared error.

    With `pairs`, neighbours along the input channels keep `PAIR_LIMIT`; depthwise kernels add in 32 bits and need
    not. Of `_STRETCHES` of the scale that just holds the greatest weight, each channel takes the best: clipping a few
    great weights can be worth a finer step for all others, and at twice that scale no pair needs clipping.
    """
    rows = _rows(weight)
    just = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-12)) / np.float32(_LIMIT)
    best = np.full(len(rows), np.inf, np.float32)
    scales, whole = just.copy(), np.zeros_like(rows)
    for stretch in _STRETCHES:
        step = just * stretch
        candidate = rows / step[:, None]
        np.clip(np.rint(candidate, out=candidate), -_LIMIT, _LIMIT, out=candidate)
        if pairs:
            _limit_pairs(candidate)
        missed = candidate * step[:, None] - rows
        error = np.einsum("ij,ij->i", missed, missed)
        better = error < best
        best[better], scales[better], whole[better] = error[better], step[better], candidate[better]
    return _shaped(whole, weight), scales


def _limit_pairs(whole: Floats) -> None:
    """Where two neighbours of the same sign add up to more than the limit, the greater one gives way; in place."""
    first, second = whole[:, 0::2], whole[:, 1::2]
    row, pair = np.nonzero((np.abs(first + second) > PAIR_LIMIT) & (first * second > 0))
    one, other = first[row, pair], second[row, pair]
    excess = (np.abs(one + other) - PAIR_LIMIT) * np.sign(one)
    greater = np.abs(one) >= np.abs(other)
    first[row, pair] -= np.where(greater, excess, 0)
    second[row, pair] -= np.where(greater, 0, excess)


def _rows(weight: Floats) -> Floats:
    """One row per output channel with the input channels innermost, padded to an even length."""
    inner = weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight
    rows = inner.reshape(len(weight), -1)
    return np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))


def _shaped(whole: Floats, weight: Floats) -> NDArray[np.int8]:
    """The rows back in the shape of `weight`."""
    values = whole[:, : weight[0].size].astype(np.int8)
    if weight.ndim != 4:
        return values.reshape(weight.shape)
    out, channels, high, wide = weight.shape
    return np.ascontiguousarray(values.reshape(out, high, wide, channels).transpose(0, 3, 1, 2))
