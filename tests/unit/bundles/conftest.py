"""Small real models for the tests of bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import Card, Label, Manifest
from shoplens.images.picture import ImageSpec

LABELS = (Label(id="a", name="apple"), Label(id="b", name="pear"), Label(id="c", name="plum"))
CARD = Card(
    title="Fruit", description="Tells three fruits apart.", task="Which fruit", data="None", licence="Apache-2.0",
    source="Made by a test", date="2026-01-31", limits=("Useless",), metrics=(),
)  # fmt: skip
MANIFEST = Manifest(
    format_version=1, name="fruit", version="1.2.0", task="image-classification", input="pixels", output="answer",
    embedding=None, activation="softmax", image=ImageSpec(resize=9, crop=8), max_batch=32,
)  # fmt: skip


def small_model(
    *, layout: str = "nhwc", element: int = TensorProto.FLOAT, batch: int | str = "n", side: int | str = 8,
    classes: int = 3, last: str = "", four_sizes: bool = False, weight: float = 1.0, domain: str = "",
) -> bytes:  # fmt: skip
    """A classifier of 8 x 8 pixels: a mean over all pixels of each channel, then one matrix."""
    sizes = [batch, side, side, 3] if layout == "nhwc" else [batch, 3, side, side]
    axes = [1, 2] if layout == "nhwc" else [2, 3]
    matrix = np.random.default_rng(7).normal(size=(3, classes)).astype(np.float32) * np.float32(weight) / 50
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["raw"]),
    ]
    value = "raw"
    if last:
        nodes.append(helper.make_node(last, [value], ["ended"], domain=domain))
        value = "ended"
    shape: list[Any] = [batch, classes]
    constants = [numpy_helper.from_array(matrix, "matrix")]
    if four_sizes:
        constants.append(numpy_helper.from_array(np.array([0, classes, 1, 1]), "four"))
        nodes.append(helper.make_node("Reshape", [value, "four"], ["grid"]))
        value, shape = "grid", [batch, classes, 1, 1]
    nodes[-1].output[0] = "answer"
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("pixels", element, sizes)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)], constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.fixture
def model_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes `small_model(...)` to a file."""

    def write(**options: Any) -> Path:
        path = tmp_path / "model-to-import.onnx"
        path.write_bytes(small_model(**options))
        return path

    return write


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A complete bundle of three fruits."""
    root = tmp_path / "models" / "fruit" / "1.2.0"
    return write_bundle(root, manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model())
