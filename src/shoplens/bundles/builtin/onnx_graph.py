"""Write a `Network` as an ONNX graph, in float or in int8. The same network gives the same bytes.

The graphs take raw pixels, (batch, 224, 224, 3) uint8: `DequantizeLinear` with scale 1/128 and zero point 127 is the
`(x - 127) / 128` that the network was trained with. Their outputs are `scores` (softmax) and `embedding`.

The int8 graph gives the same sums on every processor. Processors without VNNI add two products of neighbouring inputs
in 16 bits and clip the sum. An input is at most 255, so two neighbouring weights of the same sign that add up to 128
or less are never clipped: 255 x 128 < 2^15. Decision 0005 has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.builtin.efficientnet import SIDE, Arrays, Floats, Layer, Network

INPUT: Final = "pixels"
SCORES: Final = "scores"
EMBEDDING: Final = "embedding"

MAX_WEIGHT: Final = 127
MAX_PAIR: Final = 128

_OPSET: Final = 17
_IR_VERSION: Final = 8
_PIXEL_SCALE: Final = 1 / 128
_PIXEL_ZERO: Final = 127


class GraphWriter:
    """Collects the nodes and constants of a graph. `constant` and `node` return the name of the value they add."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a number or an array to the model."""
        self._constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add an operation with one output."""
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, layer: Layer, source: str, weight: str, bias: str, output: str) -> str:
        """Add the convolution of `layer` with the constants `weight` and `bias`."""
        return self.node(
            "Conv", [source, weight, bias], output, kernel_shape=list(layer.weight.shape[2:]),
            strides=[layer.stride] * 2, pads=list(layer.pads), group=layer.groups,
        )  # fmt: skip

    def dequantised(self, name: str, values: NDArray[Any], scales: Floats) -> str:
        """Add the constant `values * scales`, stored as whole numbers; one scale per item of the first dimension."""
        inputs = [
            self.constant(f"{name}.whole", values),
            self.constant(f"{name}.scale", scales),
            self.constant(f"{name}.zero", np.zeros(scales.shape, values.dtype)),
        ]
        return self.node("DequantizeLinear", inputs, name, axis=0)

    def normalised_pixels(self) -> str:
        """Add the input's values, (batch, 3, 224, 224) float, from -1 to 1."""
        planes = self.node("Transpose", [INPUT], "pixels.planes", perm=[0, 3, 1, 2])
        scale = self.constant("pixels.scale", np.float32(_PIXEL_SCALE))
        return self.node(
            "DequantizeLinear", [planes, scale, self.constant("pixels.zero", np.uint8(_PIXEL_ZERO))], "pixels.values"
        )

    def classifier(self, graph_name: str, *, classes: int, channels: int, side: int = SIDE) -> bytes:
        """The finished model, with the values `scores` (batch, classes) and `embedding` (batch, channels) as outputs.

        Its input is `pixels`, (batch, side, side, 3) uint8.
        """
        return self.model(
            graph_name,
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", side, side, 3])],
            [
                helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch", classes]),
                helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", channels]),
            ],
        )

    def model(self, graph_name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> bytes:
        """The finished model with these inputs and outputs."""
        graph = helper.make_graph(self._nodes, graph_name, inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="shoplens")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def float_model(network: Network) -> bytes:
    """The network in float32. The value of each layer has the layer's name, with `.sum` after an addition."""
    writer = GraphWriter()
    value = writer.normalised_pixels()
    low, high = writer.constant("zero", np.float32(0)), writer.constant("six", np.float32(6))
    outputs: dict[str, str] = {}
    for layer in network.layers:
        weight = writer.constant(f"{layer.name}.weight", layer.weight)
        bias = writer.constant(f"{layer.name}.bias", layer.bias)
        if layer.relu6:
            plain = writer.convolution(layer, value, weight, bias, f"{layer.name}.convolution")
            value = writer.node("Clip", [plain, low, high], layer.name)
        else:
            value = writer.convolution(layer, value, weight, bias, layer.name)
        if layer.adds:
            value = writer.node("Add", [value, outputs[layer.adds]], f"{layer.name}.sum")
        outputs[layer.name] = value
    embedding = writer.node("Flatten", [writer.node("GlobalAveragePool", [value], "pooled")], EMBEDDING)
    weight = writer.constant("classifier.weight", network.weight)
    bias = writer.constant("classifier.bias", network.bias)
    writer.node("Softmax", [writer.node("Gemm", [embedding, weight, bias], "logits", transB=1)], SCORES)
    return writer.classifier("efficientnet-lite0", classes=len(network.weight), channels=network.weight.shape[1])


def int8_model(network: Network, ranges: Mapping[str, tuple[float, float]], stretches: Arrays) -> bytes:
    """The network with int8 weights per channel and uint8 activations, as Quantize- and DequantizeLinear pairs.

    `ranges` has the least and the greatest value of each of `quantised_values(network)`; `stretches` has the argument
    of `channel_scales` for each layer and for "classifier". ReLU6 needs no node: a range from zero to at most six
    clips. Raises KeyError for a missing range or stretch.
    """
    writer = GraphWriter()

    def requantised(value: str, name: str) -> tuple[str, float]:
        """`value` through uint8 and back, and the size of a step. Zero is exactly one of the 256 values."""
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        step = np.float32(max(high - low, 1e-6) / 255)
        scale = writer.constant(f"{name}.scale.out", step)
        zero = writer.constant(f"{name}.zero.out", np.uint8(round(-low / float(step))))
        whole = writer.node("QuantizeLinear", [value, scale, zero], f"{name}.uint8")
        return writer.node("DequantizeLinear", [whole, scale, zero], f"{name}.values"), float(step)

    def constants(name: str, weight: Floats, bias: Floats, input_step: float) -> tuple[str, str]:
        """The weight in int8, and the bias in int32 with steps of input times weight."""
        depthwise = weight.ndim == 4 and weight.shape[1] == 1
        scales = channel_scales(weight, stretches[name])
        weights = quantised(weight, scales, pairs=not depthwise)
        steps = scales * np.float32(input_step)
        biases = np.clip(np.rint(bias / steps.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int32)
        return (
            writer.dequantised(f"{name}.weight", weights, scales),
            writer.dequantised(f"{name}.bias", biases, steps),
        )

    value, step = writer.normalised_pixels(), _PIXEL_SCALE
    outputs: dict[str, str] = {}
    for layer in network.layers:
        weight, bias = constants(layer.name, layer.weight, layer.bias, step)
        value = writer.convolution(layer, value, weight, bias, f"{layer.name}.convolution")
        value, step = requantised(value, layer.name)
        if layer.adds:
            value = writer.node("Add", [value, outputs[layer.adds]], f"{layer.name}.added")
            value, step = requantised(value, f"{layer.name}.sum")
        outputs[layer.name] = value
    pooled, step = requantised(writer.node("GlobalAveragePool", [value], "pooled"), EMBEDDING)
    embedding = writer.node("Flatten", [pooled], EMBEDDING)
    weight, bias = constants("classifier", network.weight, network.bias, step)
    writer.node("Softmax", [writer.node("Gemm", [embedding, weight, bias], "logits", transB=1)], SCORES)
    return writer.classifier("efficientnet-lite0-int8", classes=len(network.weight), channels=network.weight.shape[1])


def encoder_graph(network: bytes) -> bytes:
    """The part of a graph of a network that computes `embedding`; its class scores are left out."""
    whole = onnx.load_from_string(network)
    return bytes(onnx.utils.Extractor(whole).extract_model([INPUT], [EMBEDDING]).SerializeToString(deterministic=True))


def quantised_values(network: Network) -> list[str]:
    """The values of the float graph that the int8 graph stores as uint8, in order."""
    names = []
    for layer in network.layers:
        names += [layer.name, f"{layer.name}.sum"] if layer.adds else [layer.name]
    return [*names, EMBEDDING]


def channel_scales(weight: Floats, stretch: NDArray[np.uint8] | int) -> Floats:
    """The size of a step per output channel of `weight` (out, ...), float32.

    It is the least size with which the greatest weight fits into int8, times `stretch` / 40: below 40 a few great
    weights are clipped for a finer step, at 80 no pair of weights needs clipping.
    """
    greatest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    least = np.maximum(greatest, np.float32(1e-12)) / np.float32(MAX_WEIGHT)
    return np.asarray(least * (np.asarray(stretch, np.float32) / np.float32(40)), np.float32)


def quantised(weight: Floats, scales: Floats, *, pairs: bool) -> NDArray[np.int8]:
    """`weight` (out, ...) in steps of `scales` (out,), rounded and clipped to int8.

    With `pairs`, two neighbours along the input channels with the same sign add up to `MAX_PAIR` at most: the greater
    one is reduced. Depthwise convolutions add in 32 bits and do not need it.
    """
    inner = np.moveaxis(weight, 1, -1) if weight.ndim == 4 else weight  # the input channels innermost
    steps = inner.reshape(len(weight), -1) / scales[:, None]
    rows = np.clip(np.rint(steps), -MAX_WEIGHT, MAX_WEIGHT)
    rows = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    if pairs:
        first, second = rows[:, 0::2], rows[:, 1::2]
        row, pair = np.nonzero((np.abs(first + second) > MAX_PAIR) & (first * second > 0))
        one, other = first[row, pair], second[row, pair]
        excess = (np.abs(one + other) - MAX_PAIR) * np.sign(one)
        first_is_greater = np.abs(one) >= np.abs(other)
        first[row, pair] -= np.where(first_is_greater, excess, 0)
        second[row, pair] -= np.where(first_is_greater, 0, excess)
    whole = rows[:, : inner[0].size].astype(np.int8).reshape(inner.shape)
    return np.ascontiguousarray(np.moveaxis(whole, -1, 1) if weight.ndim == 4 else whole)
