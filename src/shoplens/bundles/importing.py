"""Make a bundle of any image classifier in ONNX.

Input, layout, size, type, batch, outputs and a final softmax are read from the graph; labels and preprocessing are
parameters. The result is checked by running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import onnx
from onnx import TensorProto, helper

from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.bundles.manifest import (
    FORMAT_VERSION,
    Activation,
    Card,
    Label,
    Manifest,
    check_labels,
    check_spec,
    read_manifest,
    to_json,
)
from shoplens.bundles.probe import check_outputs, open_session
from shoplens.errors import BundleIncomplete, BundleInvalid
from shoplens.images.picture import ImageSpec

Triple = tuple[float, float, float]
Preset = Literal["imagenet", "efficientnet-lite", "unit", "raw"]

PRESETS: Final[dict[str, tuple[Triple, Triple]]] = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "efficientnet-lite": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and scale by name: the default of torchvision and timm, (x - 127) / 128, 0 to 1, and unchanged pixels."""

_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_DTYPES: Final[dict[int, Literal["uint8", "float32"]]] = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}
_RESHAPING: Final = {"Flatten", "Reshape", "Squeeze", "Identity", "Cast", "Unsqueeze", "Transpose"}
_DYNAMIC_BATCH: Final = 32
_DEFAULT_SIDE: Final = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The preprocessing, which is not part of a graph. Defaults of None: `crop` from the graph or 224, `resize` 8/7 of
    the crop, `mean` and `scale` of the preset.
    """

    preset: Preset = "imagenet"
    mean: Triple | None = None
    scale: Triple | None = None
    crop: int | None = None
    resize: int | None = None
    fit: Literal["short_side", "squash"] = "short_side"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    colour: Literal["rgb", "bgr"] = "rgb"


def import_onnx(
    file: Path, *, labels: Sequence[Label], name: str, into: Path, version: str = "1.0.0",
    preprocessing: Preprocessing | None = None, activation: Activation | None = None, card: Card | None = None,
) -> Bundle:  # fmt: skip
    """Install the model in `file` as the bundle `<into>/<name>/<version>/`.

    `activation` defaults to none if the graph ends with a softmax or sigmoid, else to softmax. Raises
    BundleIncomplete if the file or a part of it is missing, BundleInvalid for a model that cannot be served.
    """
    model = _load(file)
    check_labels(tuple(labels))
    source, output = _only_input(model), _chosen_output(model, len(labels))
    ends_with = _last_operation(model, output)
    scores = output.name
    if len(_sizes(output)) > 2:  # (batch, labels, 1, 1)
        scores = f"{output.name}.flat"
        model.graph.node.append(helper.make_node("Flatten", [output.name], [scores], name=scores))
        model.graph.output.append(helper.make_tensor_value_info(scores, TensorProto.FLOAT, None))
    spec = _spec(source, preprocessing or Preprocessing())
    if (batch := _sizes(source)[0]) > 1:
        raise BundleInvalid(f"The model accepts exactly {batch} pictures at once; export it with an open batch.")
    check_spec(spec)
    manifest = Manifest(
        format_version=FORMAT_VERSION, name=name, version=version, task="image-classification", input=source.name,
        output=scores, embedding=None, image=spec,
        activation=activation or ("none" if ends_with in ("Softmax", "Sigmoid") else "softmax"),
        max_batch=batch or _DYNAMIC_BATCH,
    )  # fmt: skip
    read_manifest(to_json(manifest))
    data = model.SerializeToString(deterministic=True)
    check_outputs(open_session(data, optimise=True), manifest, len(labels))
    unknown = "Not stated."
    card = card or Card(
        title=name, description=f"Imported from {file.name}.", task="Image classification", data=unknown,
        licence=unknown, source=file.name, date=datetime.now(UTC).date().isoformat(),
        limits=("Its quality was not measured by Shoplens.",), metrics=(),
    )  # fmt: skip
    return write_bundle(into / name / version, manifest=manifest, labels=tuple(labels), card=card, model=data)


def _load(file: Path) -> onnx.ModelProto:
    """The model including its external data, if it needs no operators beyond those of the runtime."""
    if not file.is_file():
        raise BundleIncomplete(f"There is no file {file}.")
    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise BundleIncomplete(f"The weights of {file.name} are in another file, which is missing: {error}.") from error
    except Exception as error:
        raise BundleInvalid(f"{file.name} is not a valid ONNX model: {error}") from error
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in _DOMAINS})
    if foreign:
        raise BundleInvalid(
            f"The model uses operators that are not part of ONNX ({', '.join(foreign)}); export it without them."
        )
    return model


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, including those of subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _only_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise BundleInvalid(f"The model has {len(inputs)} inputs; an image classifier has one.")
    return inputs[0]


def _chosen_output(model: onnx.ModelProto, label_count: int) -> onnx.ValueInfoProto:
    """The first output with one number per label, as far as the graph declares it."""
    value: onnx.ValueInfoProto
    for value in model.graph.output:
        numbers = [size or label_count for size in _sizes(value)[1:]]
        if numbers and math.prod(numbers) == label_count:
            return value
    found = ", ".join(f"{value.name} {_sizes(value)}" for value in model.graph.output)
    raise BundleInvalid(f"No output of the model has {label_count} numbers, one per label; it has {found}.")


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    """The sizes of the dimensions; 0 for an open one."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _spec(source: onnx.ValueInfoProto, asked: Preprocessing) -> ImageSpec:
    sizes = _sizes(source)
    layout: Literal["nhwc", "nchw"] = "nchw" if len(sizes) == 4 and sizes[1] == 3 else "nhwc"
    if len(sizes) != 4 or sizes[1 if layout == "nchw" else 3] != 3:
        raise BundleInvalid(f"The model's input has the sizes {sizes}; pictures need four with three channels.")
    element = source.type.tensor_type.elem_type
    if element not in _DTYPES:
        raise BundleInvalid(f"The model's input is {TensorProto.DataType.Name(element)}; it must be FLOAT or UINT8.")
    sides = sizes[2:] if layout == "nchw" else sizes[1:3]
    known = {side for side in sides if side}
    if len(known) > 1:
        raise BundleInvalid(f"The input of the model is {sides} pixels; only squares are supported.")
    crop = known.pop() if known else asked.crop or _DEFAULT_SIDE
    if asked.crop not in (None, crop):
        raise BundleInvalid(f"The input of the model is {crop} pixels, not {asked.crop}.")
    mean, scale = PRESETS[asked.preset]
    spec = ImageSpec(
        resize=asked.resize or round(crop * 8 / 7), crop=crop, fit=asked.fit, interpolation=asked.interpolation,
        colour=asked.colour, layout=layout, dtype=_DTYPES[element], mean=asked.mean or mean, scale=asked.scale or scale,
    )  # fmt: skip
    return replace(spec, mean=PRESETS["raw"][0], scale=PRESETS["raw"][1]) if spec.dtype == "uint8" else spec


def _last_operation(model: onnx.ModelProto, output: onnx.ValueInfoProto) -> str:
    """The last operator that computes the output; operators that only reshape are skipped."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output.name)
    while node is not None and node.op_type in _RESHAPING:
        node = makers.get(node.input[0])
    return node.op_type if node is not None else ""
