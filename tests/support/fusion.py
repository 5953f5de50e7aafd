"""Tiny real bundles with a text input: they tell three colours by a photo, a text or both. Nothing is trained.

A photo of one colour has that colour's label. A text has the label of the colour's word in it. Where both speak, their
logits are added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import FORMAT_VERSION, TEXT_FORMAT_VERSION, Card, Label, Manifest
from shoplens.images.picture import ImageSpec
from shoplens.texts.features import features
from shoplens.texts.spec import TextSpec

COLOURS = ("red", "green", "blue")
LABELS = tuple(Label(id=f"c-{colour}", name=f"Colours > {colour.title()}") for colour in COLOURS)
SPEC = TextSpec(buckets=4_096, words=(1, 2), characters=(2, 4), max_characters=1_000, max_features=200)
_CARD = Card(
    title="Colours", description="Tells three colours apart.", task="Which colour", data="None", licence="Apache-2.0",
    source="Made by a test", date="2026-01-31", limits=("Useless",), metrics=(),
)  # fmt: skip


def write_fusion_bundle(
    into: Path,
    *,
    name: str = "paint",
    version: str = "1.0.0",
    photos: bool = True,
    turned: int = 0,
    hidden: bool = False,
) -> Bundle:
    """The bundle `<into>/<name>/<version>`; for texts only where `photos` is false.

    `turned` moves every answer on to the next colour so many times: another version with other answers.
    """
    manifest = Manifest(
        format_version=TEXT_FORMAT_VERSION, name=name, version=version,
        task="product-classification" if photos else "text-classification",
        input="pixels" if photos else "tokens", output="both" if photos else "text",
        embedding="embedding" if photos else None, activation="softmax",
        image=ImageSpec(resize=8, crop=8, dtype="uint8") if photos else None, max_batch=16, text=SPEC,
    )  # fmt: skip
    return write_bundle(
        into / name / version, manifest=manifest, labels=LABELS, card=_CARD,
        model=classifier_graph(photos, turned, hidden), encoder=encoder_graph() if photos else None,
    )  # fmt: skip


def write_photo_bundle(into: Path, *, name: str = "colours") -> Bundle:
    """The bundle `<into>/<name>/1.0.0`, which looks at photos only and says the same of them."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["means", "scale"], ["logits"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 8, 8, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(COLOURS)])
    manifest = Manifest(
        format_version=FORMAT_VERSION, name=name, version="1.0.0", task="image-classification", input="pixels",
        output="logits", embedding=None, activation="softmax", image=ImageSpec(resize=8, crop=8, dtype="uint8"),
        max_batch=16,
    )  # fmt: skip
    model = _model(nodes, [pixels], [logits], {"scale": np.array([50], np.float32)})
    return write_bundle(into / name / "1.0.0", manifest=manifest, labels=LABELS, card=_CARD, model=model)


def encoder_graph() -> bytes:
    """(n, 8, 8, 3) uint8 pixels to the mean of each channel, by way of a 4 x 4 feature map."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["map"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 8, 8, 3])
    return _model(nodes, [pixels], [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])], {})


def classifier_graph(photos: bool = True, turned: int = 0, hidden: bool = False) -> bytes:
    """Features to the logits of each kind of sample, with `hidden` those of a photo by way of rectified units."""
    order = np.roll(np.arange(len(COLOURS)), -turned)
    table = np.random.default_rng(7).normal(scale=0.01, size=(SPEC.buckets, len(COLOURS))).astype(np.float32)
    for index, colour in enumerate(COLOURS):
        table[features(colour, SPEC).tokens, order[index]] += 1.0
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("Unsqueeze", ["weights", "last"], ["columns"]),
        helper.make_node("Mul", ["rows", "columns"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["text"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "k"]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["n", "k"]),
    ]
    constants: dict[str, Any] = {"table": table, "last": np.array([2]), "middle": np.array([1])}
    outputs = ["text"]
    if photos:
        matrix = np.zeros((3, len(COLOURS)), np.float32)
        matrix[np.arange(3), order] = 4.0
        constants["matrix"] = matrix
        inputs.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]))
        if hidden:
            constants["units"], constants["bias"] = 2 * np.eye(3, dtype=np.float16), np.full(3, -0.1, np.float32)
            nodes.append(helper.make_node("Cast", ["units"], ["floats"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Gemm", ["embedding", "floats", "bias"], ["raw"], transB=1))
            nodes.append(helper.make_node("Relu", ["raw"], ["seen"]))
        nodes.append(helper.make_node("MatMul", ["seen" if hidden else "embedding", "matrix"], ["photo"]))
        nodes.append(helper.make_node("Add", ["photo", "text"], ["both"]))
        outputs = ["photo", "text", "both"]
    found = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", len(COLOURS)]) for each in outputs]
    return _model(nodes, inputs, found, constants)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> bytes:
    graph = helper.make_graph(
        nodes, "tiny", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
