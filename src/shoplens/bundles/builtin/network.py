"""EfficientNet-Lite0 as values: the checkpoint's tensors in, a chain of convolutions ready for a graph out.

Batch normalisation is folded into the weights; padding is that of TensorFlow's "same", which is asymmetric where the
stride is 2. Source of the architecture: "EfficientNet: Rethinking Model Scaling for CNNs" (arXiv 1905.11946) and its
Lite variants (no squeeze-and-excitation, ReLU6, stem and head of fixed width).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SIDE: Final = 224
CLASSES: Final = 1000
EMBEDDING: Final = 1280

_BATCH_NORM_EPSILON: Final = 1e-3
# expansion, kernel, stride of the first block, output channels, blocks
_STAGES: Final = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

State = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One convolution: its input is the output of the layer before it.

    `weight` is (out, in / groups, kernel, kernel), `bias` is (out,). With `adds`, the output of the layer of that
    name is added to the convolution's. `pads` is top, left, bottom, right.
    """

    name: str
    weight: Floats
    bias: Floats
    stride: int
    pads: tuple[int, int, int, int]
    groups: int = 1
    relu6: bool = True
    adds: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """The convolutions in order, then a mean over the pixels, then `weight` (classes, channels) and `bias`."""

    layers: tuple[Layer, ...]
    weight: Floats
    bias: Floats


def lite0(state: State) -> Network:
    """The network whose tensors are in `state`. Raises KeyError when one is missing."""
    stem = _layer(state, "stem", "_conv_stem", "_bn0", stride=2, side=SIDE)
    head = _layer(state, "head", "_conv_head", "_bn1", side=SIDE // 32)
    return Network(
        layers=(stem, *_blocks(state), head), weight=state["_fc.weight"].copy(), bias=state["_fc.bias"].copy()
    )


def _blocks(state: State) -> Iterator[Layer]:
    """The layers of all inverted residual blocks."""
    index, side, before = 0, SIDE // 2, "stem"
    for expansion, _kernel, first_stride, _channels, count in _STAGES:
        for position in range(count):
            stride = first_stride if position == 0 else 1
            adds = before if position > 0 else None
            yield from _block(state, index, expand=expansion > 1, stride=stride, side=side, adds=adds)
            index, side, before = index + 1, -(-side // stride), f"block{index}.project"


def _block(state: State, index: int, *, expand: bool, stride: int, side: int, adds: str | None) -> Iterator[Layer]:
    """Expansion (absent in the first stage), depthwise convolution, projection."""
    ours, theirs = f"block{index}", f"_blocks.{index}"
    if expand:
        yield _layer(state, f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0", side=side)
    yield _layer(state, f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1", stride=stride, side=side)
    yield _layer(
        state, f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2", side=-(-side // stride),
        relu6=False, adds=adds,
    )  # fmt: skip


def _layer(
    state: State, name: str, convolution: str, norm: str, *, side: int, stride: int = 1, relu6: bool = True,
    adds: str | None = None,
) -> Layer:  # fmt: skip
    weight, bias = _folded(state, convolution, norm)
    depthwise = weight.shape[1] == 1
    pads = same_padding(side, kernel=weight.shape[2], stride=stride)
    return Layer(
        name=name, weight=weight, bias=bias, stride=stride, pads=pads, relu6=relu6, adds=adds,
        groups=weight.shape[0] if depthwise else 1,
    )  # fmt: skip


def _folded(state: State, convolution: str, norm: str) -> tuple[Floats, Floats]:
    """Weight and bias of the convolution with its batch normalisation multiplied in, computed in double precision."""
    gain, shift, mean, variance = (
        state[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / np.sqrt(variance + _BATCH_NORM_EPSILON)
    weight = state[f"{convolution}.weight"].astype(np.float64) * factor[:, None, None, None]
    return weight.astype(np.float32), (shift - mean * factor).astype(np.float32)


def same_padding(side: int, *, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """TensorFlow's "same": the odd pixel of padding goes to the bottom and to the right."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return (total // 2, total // 2, total - total // 2, total - total // 2)
