"""Where in a picture a model sees a label: the class activation map of its last feature map.

A network that ends in global average pooling and one dense layer scores a label with the sum over the places of the
feature map of (weights of the label) x (features at the place). So each place's share of the score is known. With a
text input the pooling is in the encoder and the dense layer in the classifier: what its output `photo` sees is drawn.
Source: Zhou et al., "Learning Deep Features for Discriminative Localization" (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle
from shoplens.errors import RequestInvalid
from shoplens.images.picture import Picture
from shoplens.images.preprocess import crop_within, preprocess
from shoplens.serving.classifier import Provider, open_session

Floats = NDArray[np.float32]

_SIDE: Final = 640
"""The longer side of an overlay, in pixels."""
_MOST_OPAQUE: Final = 0.75
_FAINT: Final = 0.15
_AFTER_SCORES: Final = {"Softmax", "Sigmoid", "LogSoftmax", "Identity", "Add", "Div", "Mul", "Cast"}
_BETWEEN: Final = {
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout", "Identity", "QuantizeLinear", "DequantizeLinear", "Cast")
}
_POOLS: Final = {"GlobalAveragePool", "ReduceMean", "AveragePool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierHead:
    """The end of a graph: `features` is the name of the value that is pooled, `weights` is (labels, channels).

    `channels_last` says how the feature map is laid out.
    """

    features: str
    weights: Floats
    channels_last: bool
    hidden: tuple[Floats, Floats] | None = None
    """Weights (units, channels) and bias of a layer of rectified units between the pooled features and `weights`."""

    def weights_for(self, features: Floats) -> Floats:
        """(labels, channels) for this (channels, rows, columns) feature map.

        A rectified unit lets its input pass or not; for one picture the units that do are one dense layer.
        """
        if self.hidden is None:
            return self.weights
        units, bias = self.hidden
        if units.shape[1] != len(features):
            return self.weights
        pooled = features.mean(axis=(1, 2))
        passes = units @ (pooled / max(float(np.linalg.norm(pooled)), 1e-12)) + bias > 0
        found: Floats = self.weights[:, passes] @ units[passes]
        return found


class ActivationMap:
    """The maps of one bundle. The graph is opened when this is made; methods may be called from many threads.

    Raises RequestInvalid for a model whose graph does not end in average pooling and one dense layer.
    """

    def __init__(self, bundle: Bundle, *, provider: Provider = "cpu") -> None:
        import onnx

        path = bundle.encoder_path or bundle.model_path
        model = onnx.load(str(path))
        if bundle.encoder_path is None:
            head = find_head(model, bundle.manifest.output)
        else:
            head = _head_of_two(model, onnx.load(str(bundle.model_path)), str(bundle.manifest.embedding))
        if head is None or len(head.weights) != len(bundle.labels):
            raise RequestInvalid(
                f"There is no heat map for {bundle.ref}: its graph does not end in average pooling and one dense layer."
            )
        self._head = head
        self._spec = bundle.manifest.image_spec
        self._input = bundle.manifest.input
        self._labels = [label.name for label in bundle.labels]
        # Only what the feature map needs is run.
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info(head.features, onnx.TensorProto.FLOAT, None))
        self._session = open_session(model.SerializeToString(), provider=provider, name=path.name)

    @property
    def labels(self) -> Sequence[str]:
        """The model's labels."""
        return self._labels

    def of(self, picture: Picture, labels: Sequence[str]) -> tuple[Floats, tuple[float, float, float, float]]:
        """How much each place speaks for these labels rather than for others, from 0 to 1, and the part of the picture
        that the model sees.

        The map is (rows, columns) of the feature map, all zeros where nothing speaks for the labels. The part is (top,
        left, bottom, right) in shares of the picture, beyond 0 and 1 for a picture smaller than the crop. Raises
        RequestInvalid for an unknown label, and for a graph that pools over a part of the map only.
        """
        unknown = [label for label in labels if label not in self._labels]
        if unknown or not labels:
            raise RequestInvalid(f"The model has no label {unknown[0]!r}." if unknown else "Name a label.")
        tensor = preprocess(picture, self._spec)
        features: Floats = self._session.run([self._head.features], {self._input: tensor[np.newaxis]})[0][0]
        if self._head.channels_last:
            features = features.transpose(2, 0, 1)
        weights = self._head.weights_for(features)
        if len(features) != weights.shape[1]:
            raise RequestInvalid("There is no heat map for this model: its dense layer does not follow the pooling.")
        wanted = weights[[self._labels.index(label) for label in labels]].mean(axis=0)
        # What all labels share changes no score.
        share = np.tensordot(wanted - weights.mean(axis=0), features, axes=1)
        greatest = max(float(share.max()), 0.0)
        heat = np.maximum(share, 0) / (greatest or 1.0)
        height, width = picture.pixels.shape[:2]
        return np.asarray(heat, np.float32), crop_within(height, width, self._spec)


def overlay(heat: Floats, part: tuple[float, float, float, float], picture: Picture) -> bytes:
    """`heat` (rows, columns) from 0 to 1, laid over the part of the picture that the model saw, as a PNG.

    `part` is (top, left, bottom, right) in shares of the picture.
    """
    scale = _SIDE / max(picture.width, picture.height)
    height, width = max(1, round(picture.height * scale)), max(1, round(picture.width * scale))
    top, left, bottom, right = (
        round(share * length) for share, length in zip(part, (height, width, height, width), strict=True)
    )
    size = max(1, right - left), max(1, bottom - top)
    seen = np.clip(cv2.resize(heat, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    whole = np.zeros((height, width), np.float32)
    rows, columns = slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))
    whole[rows, columns] = seen[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    whole[whole < _FAINT] = 0
    pixels = np.zeros((height, width, 4), np.uint8)  # blue, green, red, opacity: yellow to red
    pixels[..., 1] = np.uint8(255 * (1 - whole))
    pixels[..., 2] = 255
    pixels[..., 3] = np.uint8(255 * _MOST_OPAQUE * whole)
    _, encoded = cv2.imencode(".png", pixels)
    return encoded.tobytes()


def find_head(model: Any, output: str) -> ClassifierHead | None:
    """The head of an ONNX model whose scores are the value `output`; None for a graph of another form."""
    nodes = _Nodes(model)
    dense = _dense(nodes, output)
    return None if dense is None else _head(nodes, *dense)


def _head_of_two(encoder: Any, classifier: Any, embedding: str) -> ClassifierHead | None:
    """The same where the pooled value is the output `embedding` of one graph, and an input of the next."""
    nodes = _Nodes(classifier)
    dense = _dense(nodes, "photo")
    if dense is None:
        return None
    source, weights = dense
    if source == "embedding":
        return _head(_Nodes(encoder), embedding, weights)
    rectified: Any = nodes.makers.get(source)
    if rectified is None or rectified.op_type != "Relu":
        return None
    layer: Any = nodes.makers.get(rectified.input[0])
    if layer is None or layer.op_type != "Gemm" or len(layer.input) < 3:
        return None
    units = _dense(nodes, rectified.input[0])
    bias = _constant(layer.input[2], nodes.makers, nodes.constants)
    head = None if units is None or units[0] != "embedding" else _head(_Nodes(encoder), embedding, weights)
    return None if head is None or units is None or bias is None else replace(head, hidden=(units[1], bias))


class _Nodes:
    """The nodes of a graph by what they make, and its constants."""

    def __init__(self, model: Any) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.constants = {each.name: each for each in model.graph.initializer}


def _dense(nodes: _Nodes, output: str) -> tuple[str, Floats] | None:
    """The input of the dense layer behind the value `output`, and its weights as (outputs, inputs)."""
    dense = _back(output, nodes.makers, nodes.constants, through=_AFTER_SCORES, to={"Gemm", "MatMul"})
    weights = None if dense is None else _constant(dense.input[1], nodes.makers, nodes.constants)
    if weights is None or weights.ndim != 2:
        return None
    transposed = dense.op_type == "Gemm" and _attribute(dense, "transB", 0) == 1
    return dense.input[0], weights if transposed else weights.T


def _head(nodes: _Nodes, pooled: str, weights: Floats) -> ClassifierHead | None:
    """The head of these weights over the value `pooled`; None where no feature map is averaged to it."""
    pool = _back(pooled, nodes.makers, nodes.constants, through=_BETWEEN, to=_POOLS)
    axes = None if pool is None else _reduced_axes(pool, nodes.makers, nodes.constants)
    if axes not in ((2, 3), (1, 2)):
        return None
    return ClassifierHead(features=pool.input[0], weights=weights, channels_last=axes == (1, 2))


def _back(name: str, makers: Any, constants: Any, *, through: set[str], to: set[str]) -> Any:
    """The first node of the kinds `to` on the way back from a value, past nodes of the kinds `through`."""
    while name in makers:
        node = makers[name]
        if node.op_type in to:
            return node
        if node.op_type not in through:
            return None
        computed = [each for each in node.input if _constant(each, makers, constants) is None]
        if not computed:
            return None
        name = computed[0]
    return None


def _constant(name: str, makers: Any, constants: Any) -> Any:
    """The array of a constant, also of one that is stored in whole numbers; None for what is computed."""
    from onnx import numpy_helper

    if name in constants:
        return numpy_helper.to_array(constants[name])
    node = makers.get(name)
    if node is None:
        return None
    if node.op_type == "Constant":
        return numpy_helper.to_array(node.attribute[0].t)
    if node.op_type == "Cast" and node.input[0] in constants:
        return numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
    if node.op_type != "DequantizeLinear" or any(each not in constants for each in node.input):
        return None
    whole, scale, *zero = (numpy_helper.to_array(constants[each]) for each in node.input)
    axis = _attribute(node, "axis", 1)
    shape = [-1 if at == axis and scale.ndim else 1 for at in range(whole.ndim)]
    offset = zero[0].astype(np.float32).reshape(shape) if zero else 0.0
    return (whole.astype(np.float32) - offset) * scale.reshape(shape)


def _reduced_axes(pool: Any, makers: Any, constants: Any) -> tuple[int, ...]:
    """Over which of the four axes a node averages. One that averages over a window has to cover the feature map, which
    is so where a dense layer of as many inputs as channels follows.
    """
    if pool.op_type != "ReduceMean":
        return (2, 3)
    axes = _constant(pool.input[1], makers, constants) if len(pool.input) > 1 else _attribute(pool, "axes", ())
    return tuple(sorted(int(axis) % 4 for axis in axes)) if axes is not None else ()


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
