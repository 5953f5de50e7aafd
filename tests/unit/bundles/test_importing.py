"""Any image classifier in ONNX becomes a bundle or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.bundle import open_bundle
from shoplens.bundles.importing import import_onnx
from shoplens.bundles.manifest import Label, labels_from
from shoplens.bundles.preprocessing import Preprocessing
from shoplens.bundles.probe import open_session
from shoplens.errors import BundleError, BundleIncomplete, BundleInvalid
from shoplens.images.picture import Picture
from shoplens.images.preprocess import preprocess
from tests.unit.bundles.conftest import LABELS, small_model

ModelFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("options", "layout", "dtype", "activation", "max_batch"),
    [
        ({}, "nhwc", "float32", "softmax", 32),
        ({"layout": "nchw"}, "nchw", "float32", "softmax", 32),
        ({"element": TensorProto.UINT8}, "nhwc", "uint8", "softmax", 32),
        ({"batch": 1}, "nhwc", "float32", "softmax", 1),
        ({"last": "Softmax"}, "nhwc", "float32", "none", 32),
        ({"last": "Sigmoid"}, "nhwc", "float32", "none", 32),
        ({"last": "Softmax", "four_sizes": True}, "nhwc", "float32", "none", 32),
        ({"four_sizes": True, "layout": "nchw"}, "nchw", "float32", "softmax", 32),
    ],
)
def test_properties_of_the_graph_are_read_from_it(
    model_file: ModelFile, tmp_path: Path, options: dict[str, Any], layout: str, dtype: str, activation: str,
    max_batch: int,
) -> None:  # fmt: skip
    """Layout, type, batch, and whether a softmax is still needed."""
    bundle = import_onnx(model_file(**options), labels=LABELS, name="fruit", into=tmp_path / "m")

    manifest = bundle.manifest
    assert (layout, dtype) == (manifest.image_spec.layout, manifest.image_spec.dtype)
    assert (activation, max_batch) == (manifest.activation, manifest.max_batch)
    assert bundle == open_bundle(tmp_path / "m" / "fruit" / "1.0.0")


def test_an_open_side_is_set_by_the_options(model_file: ModelFile, tmp_path: Path) -> None:
    """The default is 224 pixels."""
    file = model_file(side="s")
    said = import_onnx(
        file, labels=LABELS, name="said", into=tmp_path / "m", preprocessing=Preprocessing(crop=64, resize=80)
    )
    unsaid = import_onnx(file, labels=LABELS, name="unsaid", into=tmp_path / "m")

    assert (80, 64) == (said.manifest.image_spec.resize, said.manifest.image_spec.crop)
    assert (256, 224) == (unsaid.manifest.image_spec.resize, unsaid.manifest.image_spec.crop)


def test_mean_and_scale_come_from_the_preset_or_from_the_user(model_file: ModelFile, tmp_path: Path) -> None:
    """Given numbers override the preset."""
    asked = Preprocessing(preset="efficientnet-lite", scale=(1.0, 2.0, 3.0))

    spec = import_onnx(
        model_file(), labels=LABELS, name="f", into=tmp_path / "m", preprocessing=asked
    ).manifest.image_spec

    assert ((127.0, 127.0, 127.0), (1.0, 2.0, 3.0)) == (spec.mean, spec.scale)


def with_custom_operator() -> bytes:
    """A model that needs a library of its own."""
    return small_model(last="Secret", domain="com.example")


def with_two_inputs() -> bytes:
    """A model of picture and text, say."""
    model = onnx.load_model_from_string(small_model())
    model.graph.input.append(helper.make_tensor_value_info("text", TensorProto.FLOAT, [1, 4]))
    return bytes(model.SerializeToString())


def with_a_batch_that_is_wrong() -> bytes:
    """It says that it takes any batch, and then makes one row of it."""
    model = onnx.load_model_from_string(small_model(four_sizes=True))
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "four")
    shape.CopyFrom(numpy_helper.from_array(np.array([1, 3, 1, 1]), "four"))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a model", "not a valid ONNX model"),
        (b"", "not a valid ONNX model"),
        (small_model(classes=4), "No output of the model has 3 numbers"),
        (small_model(weight=float("nan")), "not finite"),
        (small_model(weight=0.0), "same answer for every picture"),
        (small_model(batch=4), "exactly 4 pictures"),
        (small_model(element=TensorProto.INT64), "INT64"),
        (with_custom_operator(), r"com\.example\.Secret"),
        (with_two_inputs(), "2 inputs"),
        (with_a_batch_that_is_wrong(), "batch"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    """With the reason, and nothing is installed."""
    (tmp_path / "model.onnx").write_bytes(data)

    with pytest.raises(BundleInvalid, match=reason):
        import_onnx(tmp_path / "model.onnx", labels=LABELS, name="fruit", into=tmp_path / "m")

    assert not (tmp_path / "m" / "fruit").exists()


@pytest.mark.parametrize("name", ["../up", "A", "", "a/b", "-x"])
def test_a_name_that_is_not_a_folder_name_is_refused(model_file: ModelFile, tmp_path: Path, name: str) -> None:
    """A name becomes a folder and part of an address."""
    with pytest.raises(BundleInvalid, match="name"):
        import_onnx(model_file(), labels=LABELS, name=name, into=tmp_path / "m")


def test_the_same_label_twice_is_refused(model_file: ModelFile, tmp_path: Path) -> None:
    """An answer would be ambiguous."""
    labels = (*LABELS[:2], Label(id="x", name="apple"))

    with pytest.raises(BundleInvalid, match="'apple' appears 2 times"):
        import_onnx(model_file(), labels=labels, name="fruit", into=tmp_path / "m")


def external(tmp_path: Path) -> Path:
    """A model whose weights are in a second file."""
    model = onnx.load_model_from_string(small_model())
    onnx.save_model(model, str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.bin", size_threshold=0)
    return tmp_path / "big.onnx"


def test_weights_in_a_second_file_become_part_of_the_bundle(tmp_path: Path) -> None:
    """The bundle needs no other file."""
    bundle = import_onnx(external(tmp_path), labels=LABELS, name="fruit", into=tmp_path / "m")

    assert b"big.bin" not in bundle.model_path.read_bytes()


def test_a_missing_file_of_weights_is_an_error(tmp_path: Path) -> None:
    """A model was downloaded without its weights."""
    file = external(tmp_path)
    (tmp_path / "big.bin").unlink()

    with pytest.raises((BundleIncomplete, BundleInvalid), match=r"big\.bin"):
        import_onnx(file, labels=LABELS, name="fruit", into=tmp_path / "m")


def test_a_model_with_damaged_names_is_an_error(tmp_path: Path) -> None:
    """Of its nodes and of its file of weights: bytes that are not UTF-8, which Python gets as they are."""
    data = external(tmp_path).read_bytes()
    for name in (b"big.bin", b"pixels"):
        assert name in data
        damaged = tmp_path / "damaged.onnx"
        damaged.write_bytes(data.replace(name, b"\xff" + name[1:]))
        with pytest.raises((BundleIncomplete, BundleInvalid)):
            import_onnx(damaged, labels=LABELS, name="fruit", into=tmp_path / "m")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """With the path in the message."""
    with pytest.raises(BundleIncomplete, match="no file"):
        import_onnx(tmp_path / "nothing.onnx", labels=LABELS, name="fruit", into=tmp_path)


def test_damaged_bytes_of_a_model_are_always_refused_with_a_reason(tmp_path: Path) -> None:
    """An unknown type of the input, and a size whose name is no text, found by changing bytes at random."""
    strange = onnx.load_model_from_string(small_model())
    strange.graph.input[0].type.tensor_type.elem_type = 113
    named = small_model(batch="nnnn").replace(b"nnnn", b"\xb4\xb4\xb4\xb4")
    for data in (strange.SerializeToString(), named):
        (tmp_path / "model.onnx").write_bytes(data)
        with pytest.raises(BundleInvalid):
            import_onnx(tmp_path / "model.onnx", labels=LABELS, name="damaged", into=tmp_path / "m")
    rng = np.random.default_rng(20)
    for _ in range(150):
        data = bytearray(small_model())
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        (tmp_path / "model.onnx").write_bytes(data)
        with suppress(BundleError):
            import_onnx(tmp_path / "model.onnx", labels=LABELS, name="changed", into=tmp_path / "m")


def all_sizes_open(data: bytes, layout: str) -> bytes:
    """As exporters of Hugging Face write it: four names for four sizes."""
    model = onnx.load_model_from_string(data)
    names = ["batch_size", "num_channels", "height", "width"]
    if layout == "nhwc":
        names = ["batch_size", "height", "width", "num_channels"]
    for dimension, name in zip(model.graph.input[0].type.tensor_type.shape.dim, names, strict=True):
        dimension.dim_param = name
    return bytes(model.SerializeToString())


def test_four_open_sizes_are_closed_to_what_the_preprocessing_makes(tmp_path: Path) -> None:
    """The batch stays open; the sizes of the graph are then those of the bundle."""
    (tmp_path / "vit.onnx").write_bytes(all_sizes_open(small_model(layout="nchw"), "nchw"))
    bundle = import_onnx(
        tmp_path / "vit.onnx", labels=LABELS, name="vit", into=tmp_path / "m", preprocessing=Preprocessing(crop=16)
    )
    (source,) = open_session(bundle.model_path).get_inputs()
    assert ["batch_size", 3, 16, 16] == source.shape
    assert ("nchw", 16, 32) == (
        bundle.manifest.image_spec.layout,
        bundle.manifest.image_spec.crop,
        bundle.manifest.max_batch,
    )


def test_weights_in_another_file_become_part_of_the_bundle_or_are_named(tmp_path: Path) -> None:
    """As `model.onnx_data`; a place outside of the folder is never read."""
    model = onnx.load_model_from_string(small_model())
    onnx.save_model(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    bundle = import_onnx(tmp_path / "model.onnx", labels=LABELS, name="fruit", into=tmp_path / "m")
    assert 3 == len(open_session(bundle.model_path).run(None, {"pixels": np.ones((1, 8, 8, 3), np.float32)})[0][0])
    (tmp_path / "model.onnx_data").unlink()
    with pytest.raises(BundleIncomplete, match=r"in the file model\.onnx_data, which is missing"):
        import_onnx(tmp_path / "model.onnx", labels=LABELS, name="other", into=tmp_path / "m")
    for place in ("/etc/hostname", "../model.onnx_data"):
        moved = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False)
        for tensor in moved.graph.initializer:
            for entry in tensor.external_data:
                entry.value = place if entry.key == "location" else entry.value
        (tmp_path / "moved.onnx").write_bytes(moved.SerializeToString())
        with pytest.raises(BundleInvalid, match="outside its folder"):
            import_onnx(tmp_path / "moved.onnx", labels=LABELS, name="moved", into=tmp_path / "m")


def squeezenet() -> bytes:
    """SqueezeNet 1.1 as its authors drew it, with weights by chance."""
    random = np.random.default_rng(11)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def convolution(source: str, name: str, inputs: int, outputs: int, kernel: int, **options: Any) -> str:
        weight = random.normal(size=(outputs, inputs, kernel, kernel)) * np.sqrt(2 / (inputs * kernel * kernel))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.w"))
        constants.append(numpy_helper.from_array(np.zeros(outputs, np.float32), f"{name}.b"))
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [f"{name}.c"], **options))
        nodes.append(helper.make_node("Relu", [f"{name}.c"], [name]))
        return name

    def pool(source: str, name: str) -> str:
        nodes.append(helper.make_node("MaxPool", [source], [name], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=0))
        return name

    def fires() -> Iterator[tuple[int, int, int, bool]]:
        yield from ((64, 16, 64, False), (128, 16, 64, True), (128, 32, 128, False), (256, 32, 128, True))
        yield from ((256, 48, 192, False), (384, 48, 192, False), (384, 64, 256, False), (512, 64, 256, False))

    value = pool(convolution("data", "conv1", 3, 64, 3, strides=[2, 2]), "pool1")
    for index, (inputs, squeeze, expand, pooled) in enumerate(fires(), start=2):
        small = convolution(value, f"fire{index}.squeeze", inputs, squeeze, 1)
        one = convolution(small, f"fire{index}.one", squeeze, expand, 1)
        three = convolution(small, f"fire{index}.three", squeeze, expand, 3, pads=[1, 1, 1, 1])
        nodes.append(helper.make_node("Concat", [one, three], [f"fire{index}"], axis=1))
        value = pool(f"fire{index}", f"pool{index}") if pooled else f"fire{index}"
    value = convolution(value, "conv10", 512, 1000, 1)
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["squeezenet0_flatten0"]))
    graph = helper.make_graph(
        nodes, "squeezenet1.1", [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("squeezenet0_flatten0", TensorProto.FLOAT, ["N", 1000, 1, 1])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def test_squeezenet_becomes_a_bundle_that_runs(tmp_path: Path) -> None:
    """With the built-in names of ImageNet and torchvision's preprocessing; a batch is open, the output a table."""
    (tmp_path / "squeezenet1.1.onnx").write_bytes(squeezenet())

    bundle = import_onnx(
        tmp_path / "squeezenet1.1.onnx", labels=labels_from("imagenet"), name="squeezenet", version="1.1",
        into=tmp_path / "m",
    )  # fmt: skip

    pixels = np.random.default_rng(3).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    sample = preprocess(Picture(pixels=pixels, format="png", width=400, height=300), bundle.manifest.image_spec)
    answer = open_session(bundle.model_path).run([bundle.manifest.output], {"data": np.stack([sample, sample])})[0]
    assert (2, 1000) == answer.shape
    assert ("nchw", "softmax", 32) == (
        bundle.manifest.image_spec.layout, bundle.manifest.activation, bundle.manifest.max_batch,
    )  # fmt: skip
