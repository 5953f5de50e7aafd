"""Make a bundle of any image classifier in ONNX.

Input, layout, size, type, batch, outputs and a final softmax are read from the graph; labels and preprocessing are
parameters. The result is checked by running it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import onnx
from google.protobuf.message import DecodeError
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
from shoplens.bundles.preprocessing import PRESETS, Preprocessing
from shoplens.bundles.probe import check_outputs, open_session
from shoplens.errors import BundleIncomplete, BundleInvalid
from shoplens.images.picture import ImageSpec

_DAMAGED: Final = (OSError, ValueError, TypeError, DecodeError, onnx.checker.ValidationError)
"""What `onnx` raises for a file that is no model. A TypeError is for a name that is not UTF-8: it stays bytes."""

_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_DTYPES: Final[dict[int, Literal["uint8", "float32"]]] = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}
_RESHAPING: Final = {"Flatten", "Reshape", "Squeeze", "Identity", "Cast", "Unsqueeze", "Transpose"}
_DYNAMIC_BATCH: Final = 32
_MAX_MODEL_BYTES: Final = 2_000_000_000
_DEFAULT_SIDE: Final = 224


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
    _close_sizes(model, source, spec)
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
        model = onnx.load(str(file), load_external_data=False)
        _require_external_data(model, file)
        onnx.load_external_data_for_model(model, str(file.parent))
        onnx.checker.check_model(model)
    except _DAMAGED as error:
        raise BundleInvalid(f"{file.name} is not a valid ONNX model: {error}") from error
    if any(isinstance(value.name, bytes) for value in (*model.graph.input, *model.graph.output)):
        raise BundleInvalid(f"{file.name} has names that are not text in UTF-8; its file is damaged.")
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in _DOMAINS})
    if foreign:
        raise BundleInvalid(
            f"The model uses operators that are not part of ONNX ({', '.join(foreign)}); export it without them."
        )
    return model


def _require_external_data(model: onnx.ModelProto, file: Path) -> None:
    """Raises BundleIncomplete for a file of weights that is missing, BundleInvalid if they exceed what ONNX allows."""
    tensors = [*model.graph.initializer]
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors, *attribute.g.initializer]
    names = {
        entry.value
        for tensor in tensors
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in sorted(names):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleInvalid(f"{file.name} takes its weights from {name!r}, which is outside its folder.")
        if not (file.parent / name).is_file():
            raise BundleIncomplete(
                f"The weights of {file.name} are in the file {name}, which is missing. Put it into {file.parent}."
            )
    total = sum((file.parent / name).stat().st_size for name in names) + file.stat().st_size
    if total > _MAX_MODEL_BYTES:
        raise BundleInvalid(f"{file.name} has {total / 1e9:.1f} GB with its weights; a model file has at most 2 GB.")


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
    if len(sizes) != 4:
        raise BundleInvalid(f"The model's input has the sizes {sizes}; pictures need four with three channels.")
    # Exporters of PyTorch may leave all four open; their channels come first.
    layout: Literal["nhwc", "nchw"] = "nchw" if sizes[1] in (3, 0) and sizes[3] != 3 else "nhwc"
    if sizes[1 if layout == "nchw" else 3] not in (3, 0):
        raise BundleInvalid(f"The model's input has the sizes {sizes}; pictures need four with three channels.")
    element = source.type.tensor_type.elem_type
    if element not in _DTYPES:
        kind = TensorProto.DataType.Name(element) if element in TensorProto.DataType.values() else f"type {element}"
        raise BundleInvalid(f"The model's input is {kind}; it must be FLOAT or UINT8.")
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


def _close_sizes(model: onnx.ModelProto, source: onnx.ValueInfoProto, spec: ImageSpec) -> None:
    """Write the sizes of `spec` into the open ones of the input, except the batch, so that the graph agrees with it."""
    sample = (spec.crop, spec.crop, 3) if spec.layout == "nhwc" else (3, spec.crop, spec.crop)
    dimensions = source.type.tensor_type.shape.dim[1:]
    if all(dimension.dim_value for dimension in dimensions):
        return
    for dimension, size in zip(dimensions, sample, strict=True):
        dimension.dim_value = size
    del model.graph.value_info[:]  # hints that may still have the names of the open sizes


def _last_operation(model: onnx.ModelProto, output: onnx.ValueInfoProto) -> str:
    """The last operator that computes the output; operators that only reshape are skipped."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output.name)
    while node is not None and node.op_type in _RESHAPING:
        node = makers.get(node.input[0])
    return node.op_type if node is not None else ""
