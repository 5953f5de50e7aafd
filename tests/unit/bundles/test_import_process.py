"""A model is checked in a process that ends in time, whatever its graph does."""

from __future__ import annotations

import os
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoplens.bundles.bundle import open_bundle, write_checksums
from shoplens.bundles.import_process import ImportJob, ImportLimits, check_within, import_within
from shoplens.bundles.manifest import Label, to_json
from shoplens.bundles.preprocessing import Preprocessing
from shoplens.bundles.store import NO_TRUST, install_bundle, unpack_bundle
from shoplens.errors import BundleIncomplete, BundleInvalid
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

LIMITS = ImportLimits(seconds=300, memory_mb=8_000)


def job(file: Path, **more: object) -> ImportJob:
    """An import of three fruits."""
    facts: dict[str, object] = {"labels": LABELS, "name": "fruit", "version": "1", "preprocessing": Preprocessing()}
    return ImportJob(file=file, **{**facts, **more})  # type: ignore[arg-type]


def with_node(node: onnx.NodeProto, *constants: onnx.TensorProto) -> bytes:
    """The small model, whose answer goes through `node` from `raw` to `answer`."""
    model = onnx.load_model_from_string(small_model())
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.append(node)
    model.graph.initializer.extend(constants)
    return bytes(model.SerializeToString())


def endless() -> bytes:
    """A graph that adds zero 2^60 times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["value", "zero"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    return with_node(
        helper.make_node("Loop", ["turns", "always", "raw"], ["answer"], body=body),
        numpy_helper.from_array(np.array(1 << 60, np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "always"),
    )


def huge() -> bytes:
    """A graph that makes a tensor of 400 GB and multiplies the answer by its smallest number."""
    model = onnx.load_model_from_string(small_model())
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend([
        helper.make_node("ConstantOfShape", ["much"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("ReduceMin", ["ones"], ["one"], keepdims=0),
        helper.make_node("Mul", ["raw", "one"], ["answer"]),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array([100_000, 1_000_000], np.int64), "much"))
    return bytes(model.SerializeToString())


def test_an_import_is_the_same_in_its_process(tmp_path: Path) -> None:
    """Installed once, also when it is repeated; nothing else is left in the folder of the models."""
    (tmp_path / "model.onnx").write_bytes(small_model())
    bundle = import_within(job(tmp_path / "model.onnx"), into=tmp_path / "m", limits=LIMITS)
    assert bundle == open_bundle(tmp_path / "m" / "fruit" / "1")
    assert bundle == import_within(job(tmp_path / "model.onnx"), into=tmp_path / "m", limits=LIMITS)
    other = (Label(id="x", name="x"), *LABELS[1:])
    with pytest.raises(BundleInvalid, match="Another bundle"):
        import_within(job(tmp_path / "model.onnx", labels=other), into=tmp_path / "m", limits=LIMITS)
    assert bundle == open_bundle(tmp_path / "m" / "fruit" / "1")
    assert ["fruit"] == [path.name for path in (tmp_path / "m").iterdir()]


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (endless(), ImportLimits(seconds=4, memory_mb=8_000), "more than 4 s"),
        (huge(), ImportLimits(seconds=60, memory_mb=3_000), "more than 3,000 MB"),
    ],
    ids=["endless", "huge"],
)
def test_a_graph_that_never_ends_or_fits_is_refused(
    tmp_path: Path, data: bytes, limits: ImportLimits, reason: str
) -> None:
    """In time, and nothing is installed."""
    (tmp_path / "model.onnx").write_bytes(data)
    began = time.monotonic()
    with pytest.raises(BundleInvalid, match=reason):
        import_within(job(tmp_path / "model.onnx"), into=tmp_path / "m", limits=limits)
    assert time.monotonic() - began < limits.seconds + 20
    assert [] == list((tmp_path / "m").iterdir())


def test_errors_are_those_of_an_import_without_a_process(tmp_path: Path) -> None:
    """With their class and their sentence."""
    with pytest.raises(BundleIncomplete, match="There is no file"):
        import_within(job(tmp_path / "none.onnx"), into=tmp_path / "m", limits=LIMITS)
    (tmp_path / "model.onnx").write_bytes(small_model(classes=4))
    with pytest.raises(BundleInvalid, match="No output of the model has 3 numbers"):
        import_within(job(tmp_path / "model.onnx"), into=tmp_path / "m", limits=LIMITS)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(BundleIncomplete, match="There is no file"):
        import_within(job(tmp_path / "pipe.onnx"), into=tmp_path / "m", limits=LIMITS)


def bundle_with(root: Path, model: bytes) -> Path:
    """A bundle that is right in itself, and was never run."""
    root.mkdir()
    parts = {"bundle.json": to_json(MANIFEST), "labels.json": to_json(LABELS), "card.json": to_json(CARD)}
    for name, data in {**parts, "model.onnx": model}.items():
        (root / name).write_bytes(data)
    write_checksums(root)
    return root


def test_a_bundle_of_a_stranger_is_run_in_a_process_before_it_is_installed(tmp_path: Path) -> None:
    """Packed or as a folder; what never ends is refused, and nothing of it is installed."""
    check = partial(check_within, name="fruit", limits=ImportLimits(seconds=3, memory_mb=8_000))
    patient = partial(check_within, name="fruit", limits=ImportLimits(seconds=120, memory_mb=8_000))
    good, bad = bundle_with(tmp_path / "good", small_model()), bundle_with(tmp_path / "bad", endless())
    with tarfile.open(tmp_path / "bad.shoplens", "w") as archive:
        for path in bad.iterdir():
            archive.add(path, path.name)
    for install, source in ((install_bundle, bad), (unpack_bundle, tmp_path / "bad.shoplens")):
        with pytest.raises(BundleInvalid, match="Checking fruit took more than 3 s"):
            install(source, tmp_path / "m", NO_TRUST, check)
        assert [] == list((tmp_path / "m").glob("*"))
    assert "fruit" == install_bundle(good, tmp_path / "m", NO_TRUST, patient).ref.name
