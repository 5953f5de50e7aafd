"""The weights of the compact network of the recipe `scratch`, and its ONNX graph with int8 weights.

Eight convolutions of 3 x 3, two pairs of them residual, then the maximum of each channel, then a linear layer. The
graph converts colour to brightness and computes the mean of the predictions for the picture and its mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from shoplens.bundles.builtin.onnx_graph import EMBEDDING, INPUT, SCORES, GraphWriter, channel_scales, quantised

Floats = NDArray[np.float32]

HALVED: Final = (1, 4, 5)
"""The convolutions after which the sides are halved."""
RESIDUAL: Final = ((2, 3), (6, 7))
"""The pairs whose result is added to their input."""
BRIGHTNESS: Final = np.asarray((0.299, 0.587, 0.114), np.float32)
"""How much each colour adds to the brightness (ITU-R BT.601)."""


def best_stretch(weight: Floats, *, pairs: bool) -> NDArray[np.uint8]:
    """Per output channel of `weight` the stretch from 24 to 80 with the least squared rounding error.

    See `channel_scales` and `quantised`, which has the condition `pairs`.
    """
    rows = len(weight)
    least_error, best = np.full(rows, np.inf, np.float32), np.full(rows, 40, np.uint8)
    for stretch in range(24, 81):
        scales = channel_scales(weight, stretch)
        restored = quantised(weight, scales, pairs=pairs) * scales.reshape(-1, *[1] * (weight.ndim - 1))
        missed = (restored - weight).reshape(rows, -1)
        error = np.einsum("ij,ij->i", missed, missed)
        better = error < least_error
        least_error[better], best[better] = error[better], stretch
    return best


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """Weights as integers with a scale per output channel, and an offset."""

    whole: NDArray[np.int8]
    scales: Floats
    bias: Floats

    @classmethod
    def of(cls, weight: Floats, bias: Floats) -> Rounded:
        """The nearest such numbers."""
        scales = channel_scales(weight, best_stretch(weight, pairs=False))
        whole = quantised(weight, scales, pairs=False)
        return cls(whole=whole, scales=scales, bias=bias)

    @property
    def weight(self) -> Floats:
        """The values that the integers represent."""
        return np.asarray(self.whole * self.scales.reshape(-1, *[1] * (self.whole.ndim - 1)), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompactWeights:
    """Eight convolutions with normalisation folded in, the linear layer, and how pictures are normalised."""

    convolutions: tuple[Rounded, ...]
    head: Rounded
    mean: float
    spread: float


def compact_model(weights: CompactWeights, *, side: int, temperature: float) -> bytes:
    """The graph for pictures of `side` pixels; logits are divided by `temperature`. The same values, the same bytes."""
    writer = GraphWriter()
    constants = [_constants(writer, f"convolution{index}", each) for index, each in enumerate(weights.convolutions)]
    pictures = _brightness(writer, weights)
    mirrored = _mirrored(writer, pictures)
    embeddings = [
        _embedded(writer, constants, value, tag) for value, tag in ((pictures, "plain"), (mirrored, "mirror"))
    ]
    total = writer.node("Add", embeddings, "both")
    embedding = writer.node("Mul", [total, writer.constant("half", np.float32(0.5))], EMBEDDING)
    weight, bias = _constants(writer, "head", weights.head)
    logits = writer.node("Gemm", [embedding, weight, bias], "logits", transB=1)
    cooled = writer.node("Div", [logits, writer.constant("temperature", np.float32(temperature))], "logits.cooled")
    writer.node("Softmax", [cooled], SCORES)
    channels = len(weights.convolutions[-1].bias)
    return writer.classifier("compact", classes=len(weights.head.bias), channels=channels, side=side)


def _constants(writer: GraphWriter, name: str, each: Rounded) -> tuple[str, str]:
    weight = writer.dequantised(f"{name}.weight", each.whole, each.scales)
    return weight, writer.constant(f"{name}.bias", each.bias)


def _brightness(writer: GraphWriter, weights: CompactWeights) -> str:
    """(batch, 1, side, side), in whole steps as it was learned from, then normalised."""
    colours = writer.node("Cast", [INPUT], "colours", to=TensorProto.FLOAT)
    grey = writer.node("MatMul", [colours, writer.constant("brightness", BRIGHTNESS[:, None])], "grey")
    planes = writer.node("Transpose", [writer.node("Round", [grey], "grey.whole")], "grey.planes", perm=[0, 3, 1, 2])
    centred = writer.node("Sub", [planes, writer.constant("mean", np.float32(weights.mean))], "grey.centred")
    return writer.node("Div", [centred, writer.constant("spread", np.float32(weights.spread))], "pictures")


def _mirrored(writer: GraphWriter, pictures: str) -> str:
    bounds: dict[str, Any] = {"from": [-1], "to": [np.iinfo(np.int64).min], "axis": [3], "step": [-1]}
    names = [writer.constant(f"mirror.{name}", np.asarray(value, np.int64)) for name, value in bounds.items()]
    return writer.node("Slice", [pictures, *names], "pictures.mirrored")


def _embedded(writer: GraphWriter, constants: list[tuple[str, str]], value: str, tag: str) -> str:
    """The embedding of one view."""
    residual = dict(RESIDUAL)
    shortcut: dict[int, str] = {}
    for index, (weight, bias) in enumerate(constants):
        if index in residual:
            shortcut[residual[index]] = value
        name = f"{tag}{index}"
        plain = writer.node("Conv", [value, weight, bias], f"{name}.plain", kernel_shape=[3, 3], pads=[1] * 4)
        value = writer.node("Relu", [plain], name)
        if index in HALVED:
            value = writer.node("MaxPool", [value], f"{name}.halved", kernel_shape=[2, 2], strides=[2, 2])
        if index in shortcut:
            value = writer.node("Add", [value, shortcut[index]], f"{name}.sum")
    return writer.node("Flatten", [writer.node("GlobalMaxPool", [value], f"{tag}.greatest")], f"{tag}.embedding")
