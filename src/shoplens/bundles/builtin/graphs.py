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
from shoplens.bundles.builtin.network import EMBEDDING, SIDE, Floats, Layer, Network

INPUT: Final = "pixels"
SCORES: Final = "scores"
EMBEDDING_OUTPUT: Final = "embedding"

_OPSET: Final = 17
_IR_VERSION: Final = 8
_PIXEL_SCALE: Final = 1 / 128
_PIXEL_ZERO: Final = 127

Ranges = Mapping[str, tuple[float, float]]


class Writer:
    """Collects nodes and constants of a graph; every method returns the name of the value that it added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """A number or an array, kept in the model."""
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """One operation with one output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, layer: Layer, source: str, weight: str, bias: str, output: str) -> str:
        """The convolution of `layer`, with the constants `weight` and `bias`."""
        return self.node(
            "Conv", [source, weight, bias], output, kernel_shape=list(layer.weight.shape[2:]),
            strides=[layer.stride] * 2, pads=list(layer.pads), group=layer.groups,
        )  # fmt: skip

    def classifier(
        self, graph_name: str, classes: int, *, side: int = SIDE, embedding: int = EMBEDDING, extra: Sequence[str] = ()
    ) -> bytes:
        """The model, whose values `scores` and `embedding` (and `extra`) are its outputs."""
        outputs = [
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch", classes]),
            helper.make_tensor_value_info(EMBEDDING_OUTPUT, TensorProto.FLOAT, ["batch", embedding]),
        ]
        return self.model(graph_name, [*outputs, *map(_plane_stack, extra)], side=side)

    def model(self, graph_name: str, outputs: Sequence[onnx.ValueInfoProto], *, side: int = SIDE) -> bytes:
        """The model with these outputs; it takes `pixels`, (batch, side, side, 3) uint8."""
        pixels = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", side, side, 3])
        graph = helper.make_graph(self.nodes, graph_name, [pixels], outputs, self.constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="shoplens")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def float_model(network: Network, *, observed: bool = False) -> bytes:
    """The network in float32. With `observed`, every value whose range int8 needs is an output too."""
    writer = Writer()
    value = _float_layers(writer, network.layers)
    pooled = writer.node("GlobalAveragePool", [value], "pooled")
    embedding = writer.node("Flatten", [pooled], EMBEDDING_OUTPUT)
    weight = writer.constant("classifier.weight", network.weight)
    bias = writer.constant("classifier.bias", network.bias)
    writer.node("Softmax", [writer.node("Gemm", [embedding, weight, bias], "logits", transB=1)], SCORES)
    extra = quantised_values(network)[:-1] if observed else ()
    return writer.classifier("efficientnet-lite0", len(network.weight), extra=extra)


def trunk_model(layers: Sequence[Layer]) -> bytes:
    """The first `layers` of a network alone, in float32; the only output is the value of the last one."""
    writer = Writer()
    return writer.model("efficientnet-lite0-trunk", [_plane_stack(_float_layers(writer, layers))])


def _float_layers(writer: Writer, layers: Sequence[Layer]) -> str:
    value = writer.node("DequantizeLinear", [_planes(writer), *_pixel_step(writer)], "pixels.values")
    low, high = writer.constant("zero", np.float32(0)), writer.constant("six", np.float32(6))
    before: dict[str, str] = {}
    for layer in layers:
        weight = writer.constant(f"{layer.name}.weight", layer.weight)
        bias = writer.constant(f"{layer.name}.bias", layer.bias)
        plain = f"{layer.name}.convolution" if layer.relu6 else layer.name
        value = writer.convolution(layer, value, weight, bias, plain)
        if layer.relu6:
            value = writer.node("Clip", [value, low, high], layer.name)
        if layer.adds:
            value = writer.node("Add", [value, before[layer.adds]], f"{layer.name}.sum")
        before[layer.name] = value
    return value


def int8_model(network: Network, ranges: Ranges) -> bytes:
    """The network with int8 weights per channel and uint8 activations, as pairs of Quantize- and DequantizeLinear.

    `ranges` has the least and the greatest value of each of `quantised_values(network)`. Raises KeyError for a
    missing one. ReLU6 needs no node: a range that starts at zero and ends at six or below clips by itself.
    """
    writer = Writer()
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
    return writer.classifier("efficientnet-lite0-int8", len(network.weight))


def quantised_values(network: Network) -> tuple[str, ...]:
    """The values of the observed float graph that the int8 graph keeps as uint8, in order."""
    names = ((layer.name, f"{layer.name}.sum") if layer.adds else (layer.name,) for layer in network.layers)
    return (*(name for pair in names for name in pair), EMBEDDING_OUTPUT)


def _plane_stack(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)


def _planes(writer: Writer) -> str:
    return writer.node("Transpose", [INPUT], "pixels.planes", perm=[0, 3, 1, 2])


def _pixel_step(writer: Writer) -> tuple[str, str]:
    scale = writer.constant("pixels.scale", np.float32(_PIXEL_SCALE))
    return scale, writer.constant("pixels.zero", np.uint8(_PIXEL_ZERO))


def _int8_convolution(writer: Writer, layer: Layer, source: str, step: float) -> str:
    weight, bias = _int8_weights(writer, layer.name, layer.weight, layer.bias, step)
    return writer.convolution(layer, source, weight, bias, f"{layer.name}.convolution")


def _int8_weights(writer: Writer, name: str, weight: Floats, bias: Floats, step: float) -> tuple[str, str]:
    """Constants of `weight` (int8, a scale per output channel) and `bias` (int32 in steps of input times weight)."""
    depthwise = weight.ndim == 4 and weight.shape[1] == 1
    whole, scales = rounded(weight, pairs=not depthwise)
    bias_scales = scales * np.float32(step)
    whole_bias = np.clip(np.rint(bias / bias_scales.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
    return (
        dequantised(writer, f"{name}.weight", whole, scales),
        dequantised(writer, f"{name}.bias", whole_bias, bias_scales),
    )


def dequantised(writer: Writer, name: str, whole: NDArray[Any], scales: Floats) -> str:
    """Whole numbers as a constant, and their values: `whole` times the scale of its first dimension."""
    values = writer.constant(f"{name}.whole", whole)
    steps = writer.constant(f"{name}.scale", scales)
    zeros = writer.constant(f"{name}.zero", np.zeros(scales.shape, whole.dtype))
    return writer.node("DequantizeLinear", [values, steps, zeros], name, axis=0)


def _requantised(writer: Writer, value: str, name: str, ranges: Ranges) -> tuple[str, float]:
    """`value` through uint8 and back, and the size of a step; zero is always exactly one of the 256 values."""
    low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
    step = np.float32(max(high - low, 1e-6) / 255)
    scale = writer.constant(f"{name}.scale.out", step)
    zero = writer.constant(f"{name}.zero.out", np.uint8(round(-low / float(step))))
    whole = writer.node("QuantizeLinear", [value, scale, zero], f"{name}.uint8")
    return writer.node("DequantizeLinear", [whole, scale, zero], f"{name}.values"), float(step)
