"""The ONNX graph of the recipe `fusion`: from features to the logits of each kind of sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, helper

from shoplens.bundles.builtin.onnx_graph import EMBEDDING, GraphWriter

if TYPE_CHECKING:
    from shoplens.bundles.manifest import SampleKind
    from shoplens.training.recipes.fusion import FusionModel, Layer

_FLOAT: Final = TensorProto.FLOAT


def classifier_graph(model: FusionModel, temperatures: Mapping[SampleKind, float]) -> bytes:
    """Tokens, weights and an embedding to the logits of each kind, divided by its temperature.

    The same model gives the same bytes.
    """
    writer = GraphWriter()
    texts = _texts(writer, model)
    _linear(writer, model.text, texts, "text", temperatures["text"])
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["samples", "tokens"]),
        helper.make_tensor_value_info("weights", _FLOAT, ["samples", "tokens"]),
    ]
    if model.hidden is not None and model.photo is not None and model.both is not None:
        photos = writer.node("Relu", [_linear(writer, model.hidden, EMBEDDING, "hidden")], "photos")
        _linear(writer, model.photo, photos, "photo", temperatures["photo"])
        together = writer.node("Concat", [texts, photos], "together", axis=1)
        _linear(writer, model.both, together, "both", temperatures["both"])
        inputs.append(helper.make_tensor_value_info(EMBEDDING, _FLOAT, ["samples", model.hidden.weight.shape[1]]))
    classes = len(model.text.bias)
    outputs = [helper.make_tensor_value_info(kind, _FLOAT, ["samples", classes]) for kind in model.kinds]
    return writer.model("fusion", inputs, outputs)


def _texts(writer: GraphWriter, model: FusionModel) -> str:
    """(samples, t): the sum of the rows of a text's tokens, by their TF-IDF weights, over the text's length."""
    idf = model.vocabulary.idf
    rows = writer.node("Gather", [writer.constant("rows", model.vocabulary.rows), "tokens"], "token.rows")

    def of_each(name: str, value: Any) -> str:
        return writer.node("Gather", [writer.constant(name, value), rows], f"token.{name}")

    values = writer.node("Mul", ["weights", of_each("idf", idf)], "token.tfidf")
    squares = writer.node("ReduceSumSquare", [values], "text.squares", axes=[1], keepdims=1)
    length = writer.node(
        "Sqrt",
        [writer.node("Add", [squares, writer.constant("one", np.float32(1))], "text.squares.more")],
        "text.length",
    )
    scaled = writer.node("Mul", [values, of_each("steps", model.steps)], "token.scaled")
    columns = writer.node("Unsqueeze", [scaled, writer.constant("middle", np.array([1], np.int64))], "token.columns")
    learned = writer.node("Cast", [of_each("table", model.table)], "token.learned", to=_FLOAT)
    sums = writer.node("MatMul", [columns, learned], "text.sums")
    flat = writer.node("Squeeze", [sums, "middle"], "text.sum")
    return writer.node("Div", [flat, length], "texts")


def _linear(writer: GraphWriter, layer: Layer, source: str, output: str, temperature: float = 1.0) -> str:
    weight = writer.constant(f"{output}.weight", (layer.weight / np.float32(temperature)).astype(np.float16))
    bias = writer.constant(f"{output}.bias", layer.bias / np.float32(temperature))
    floats = writer.node("Cast", [weight], f"{output}.weight.float", to=_FLOAT)
    return writer.node("Gemm", [source, floats, bias], output, transB=1)
