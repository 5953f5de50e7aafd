"""Write a Network as an ONNX graph, in float or in int8: Network (and recorded ranges) in, model bytes out.

Both take raw pixels, (batch, 224, 224, 3) uint8, because `DequantizeLinear(scale 1/128, zero point 127)` is exactly
the `(x - 127) / 128` that the network was trained with. Both have the outputs `scores` (softmax) and `embedding`.
The same network and ranges give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.builtin.int8 import rounded
from shoplens.bundles.builtin.network import CLASSES, EMBEDDING, SIDE, Floats, Layer, Network

INPUT: Final = "pixels"
SCORES: Final = "scores"
EMBEDDING_OUTPUT: Final = "embedding"

_OPSET: Final = 17
_IR_VERSION: Final = 8
_PIXEL_SCALE: Final = 1 / 128
_PIXEL_ZERO: Final = 127

Ranges = Mapping[str, tuple[float, float]]


class _Writer:
    """Collects nodes and constants; every method returns the name of the value that it added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, layer: Layer, source: str, weight: str, bias: str, output: str) -> str:
        return self.node(
            "Conv", [source, weight, bias], output, kernel_shape=list(layer.weight.shape[2:]),
            strides=[layer.stride] * 2, pads=list(layer.pads), group=layer.groups,
        )  # fmt: skip

    def model(self, graph_name: str, extra: Sequence[str] = ()) -> bytes:
        graph = helper.make_graph(
            self.nodes, graph_name,
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
            [
                helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch", CLASSES]),
                helper.make_tensor_value_info(EMBEDDING_OUTPUT, TensorProto.FLOAT, ["batch", EMBEDDING]),
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in extra),
            ],
            self.constants,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="shoplens")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def float_model(network: Network, *, observed: bool = False) -> bytes:
    """The network in float32. With `observed`, every value whose range int8 needs is an output too."""
    writer = _Writer()
    value = writer.node("DequantizeLinear", [_planes(writer), *_pixel_step(writer)], "pixels.values")
    low, high = writer.constant("zero", np.float32(0)), writer.constant("six", np.float32(6))
    before: dict[str, str] = {}
    for layer in network.layers:
        weight = writer.constant(f"{layer.name}.weight", layer.weight)
        bias = writer.constant(f"{layer.name}.bias", layer.bias)
        plain = f"{layer.name}.convolution" if layer.relu6 else layer.name
        value = writer.convolution(layer, value, weight, bias, plain)
        if layer.relu6:
            value = writer.node("Clip", [value, low, high], layer.name)
        if layer.adds:
            value = writer.node("Add", [value, before[layer.adds]], f"{layer.name}.sum")
        before[layer.name] = value
    pooled = writer.node("GlobalAveragePool", [value], "pooled")
    embedding = writer.node("Flatten", [pooled], EMBEDDING_OUTPUT)
    weight = writer.constant("classifier.weight", network.weight)
    bias = writer.constant("classifier.bias", network.bias)
    writer.node("Softmax", [writer.node("Gemm", [embedding, weight, bias], "logits", transB=1)], SCORES)
    return writer.model("efficientnet-lite0", extra=quantised_values(network)[:-1] if observed else ())


def int8_model(network: Network, ranges: Ranges) -> bytes:
    """The network with int8 weights per channel and uint8 activations, as pairs of Quantize- and DequantizeLinear.

    `ranges` has the least and the greatest value of each of `quantised_values(network)`. Raises KeyError for a
    missing one. ReLU6 needs no node: a range that starts at zero and ends at six or below clips by itself.
    """
    writer = _Writer()
    value = writer.node("DequantizeLinear", [_planes(writer), *_pixel_step(writer)], "pixels.values")
    step, before = _PIXEL_SCALE, dict[str, tuple[str, float]]()
    for layer in network.layers:
        value = _int8_convolution(writer, layer, value, step)
        value, step = _requantised(writer, value, layer.name, ranges)
        if layer.adds:
            value = writer.node("Add", [value, before[layer.adds][0]], f"{layer.name}.added")
            value, step = _requantised(writer, value, f"{layer.name}.sum", ranges)
        before[layer.name] = (value, step)
    pooled = writer.node("GlobalAveragePool", [value], "pooled")
    pooled, step = _requantised(writer, pooled, EMBEDDING_OUTPUT, ranges)
    embedding = writer.node("Flatten", [pooled], EMBEDDING_OUTPUT)
    weights, bias = _int8_weights(writer, "classifier", network.weight, network.bias, step)
    writer.node("Softmax", [writer.node("Gemm", [embedding, weights, bias], "logits", transB=1)], SCORES)
    return writer.model("efficientnet-lite0-int8")


def quantised_values(network: Network) -> tuple[str, ...]:
    """The values of the observed float graph that the int8 graph keeps as uint8, in order."""
    names = ((layer.name, f"{layer.name}.sum") if layer.adds else (layer.name,) for layer in network.layers)
    return (*(name for pair in names for name in pair), EMBEDDING_OUTPUT)


def _planes(writer: _Writer) -> str:
    return writer.node("Transpose", [INPUT], "pixels.planes", perm=[0, 3, 1, 2])


def _pixel_step(writer: _Writer) -> tuple[str, str]:
    scale = writer.constant("pixels.scale", np.float32(_PIXEL_SCALE))
    return scale, writer.constant("pixels.zero", np.uint8(_PIXEL_ZERO))


def _int8_convolution(writer: _Writer, layer: Layer, source: str, step: float) -> str:
    weight, bias = _int8_weights(writer, layer.name, layer.weight, layer.bias, step)
    return writer.convolution(layer, source, weight, bias, f"{layer.name}.convolution")


def _int8_weights(writer: _Writer, name: str, weight: Floats, bias: Floats, step: float) -> tuple[str, str]:
    """Constants of `weight` (int8, a scale per output channel) and `bias` (int32 in steps of input times weight)."""
    depthwise = weight.ndim == 4 and weight.shape[1] == 1
    whole, scales = rounded(weight, pairs=not depthwise)
    bias_scales = scales * np.float32(step)
    whole_bias = np.clip(np.rint(bias / bias_scales.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
    return (
        _dequantised(writer, f"{name}.weight", whole, scales),
        _dequantised(writer, f"{name}.bias", whole_bias, bias_scales),
    )


def _dequantised(writer: _Writer, name: str, whole: NDArray[Any], scales: Floats) -> str:
    values = writer.constant(f"{name}.whole", whole)
    steps = writer.constant(f"{name}.scale", scales)
    zeros = writer.constant(f"{name}.zero", np.zeros(scales.shape, whole.dtype))
    return writer.node("DequantizeLinear", [values, steps, zeros], name, axis=0)


def _requantised(writer: _Writer, value: str, name: str, ranges: Ranges) -> tuple[str, float]:
    """`value` through uint8 and back, and the size of a step; zero is always exactly one of the 256 values."""
    low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
    step = np.float32(max(high - low, 1e-6) / 255)
    scale = writer.constant(f"{name}.scale.out", step)
    zero = writer.constant(f"{name}.zero.out", np.uint8(round(-low / float(step))))
    whole = writer.node("QuantizeLinear", [value, scale, zero], f"{name}.uint8")
    return writer.node("DequantizeLinear", [whole, scale, zero], f"{name}.values"), float(step)
