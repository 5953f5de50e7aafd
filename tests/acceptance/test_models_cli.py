"""Models in and out by the command line: import any ONNX classifier, pack it, install it elsewhere, use it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.commands import run_command, status_said
from tests.conftest import colourful, jpeg_of
from tests.unit.bundles.test_import_process import endless


def brightest_channel_model(
    path: Path,
    *,
    names: tuple[str, str] = ("picture", "scores"),
    shape: tuple[str | int, ...] = ("n", 3, 32, 32),
) -> None:
    """An ONNX classifier with a known answer: NCHW pictures, one score per colour, the mean of its channel.

    `names` are those of its input and of its output.
    """
    picture, scores = names
    weights = numpy_helper.from_array(20 * np.eye(3, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", [picture], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
            helper.make_node("MatMul", ["means", "weights"], [scores]),
        ],
        "brightest channel",
        [helper.make_tensor_value_info(picture, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [shape[0], 3])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def shoplens(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with all its data below `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    return run_command(*arguments, "--data-dir", str(folder / "data"), environment=environment, folder=folder)


def test_a_model_travels_from_an_onnx_file_to_another_machine(tmp_path: Path) -> None:
    """Import, classify, pack, install into a fresh data directory, classify again: the same answer."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    brightest_channel_model(here / "colours.onnx")
    (here / "labels.txt").write_text("red\ngreen\nblue\n")
    green = colourful(1).copy()
    green[:, :, 1], green[:, :, 0], green[:, :, 2] = 220, 40, 40
    for folder in (here, there):
        (folder / "green.jpg").write_bytes(jpeg_of(green))
    imported = shoplens(here, "models", "import", "colours.onnx", "--labels", "labels.txt", "--preset", "unit")
    assert 0 == imported.returncode, imported.stderr
    packed = shoplens(here, "models", "pack", "colours", str(there / "colours.shoplens"))
    assert 0 == packed.returncode, packed.stderr
    installed = shoplens(there, "models", "install", "colours.shoplens")
    assert 0 == installed.returncode, installed.stderr
    answers = [
        json.loads(shoplens(folder, "classify", "green.jpg", "--model", "colours", "--json").stdout)
        for folder in (here, there)
    ]
    assert "green" == answers[0]["labels"][0]["label"]
    assert answers[0] == answers[1]


def test_a_model_that_cannot_be_served_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A wrong number of labels, a file that is not ONNX, an unknown preset: one sentence each."""
    brightest_channel_model(tmp_path / "colours.onnx")
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    (tmp_path / "text.onnx").write_text("not a model")
    attempts = {
        "bundle_invalid": ("colours.onnx", "--labels", "two.txt"),
        "bundle_incomplete": ("missing.onnx", "--labels", "two.txt"),
        "request_invalid": ("colours.onnx", "--labels", "two.txt", "--preset", "nix"),
    }
    for code, arguments in attempts.items():
        done = shoplens(tmp_path, "models", "import", *arguments)
        assert (status_said(done.stderr), True) == (done.returncode, code in done.stderr), done.stderr
        assert "Traceback" not in done.stderr
    broken = shoplens(tmp_path, "models", "import", "text.onnx", "--labels", "two.txt")
    assert "bundle_invalid" in broken.stderr
    assert not (tmp_path / "data" / "models" / "colours").exists()


def hugging_face_folder(root: Path) -> Path:
    """What `optimum-cli export onnx` leaves: all four sizes open, logits, and two configurations."""
    root.mkdir()
    shape = ("batch_size", "num_channels", "height", "width")
    brightest_channel_model(root / "model.onnx", names=("pixel_values", "logits"), shape=shape)
    names = {"0": "crane", "1": "green", "2": "crane"}
    (root / "config.json").write_text(json.dumps({"model_type": "vit", "id2label": names}))
    processor = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 3,
        "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32},
    }  # fmt: skip
    (root / "preprocessor_config.json").write_text(json.dumps(processor))
    return root


def test_a_folder_of_hugging_face_is_imported_without_any_option(tmp_path: Path) -> None:
    """Labels, sizes and normalisation come from its files, and what was done is said."""
    hugging_face_folder(tmp_path / "colours")
    done = shoplens(tmp_path, "models", "import", "colours")
    assert 0 == done.returncode, done.stderr
    for text in ("crane (0), crane (2)", "Installed colours@1.0.0 with 3 labels", "32 px", "127.5/127.5/127.5"):
        assert text in done.stdout
    green = np.full((50, 60, 3), (40, 220, 40), np.uint8)
    (tmp_path / "green.jpg").write_bytes(jpeg_of(green))
    said = shoplens(tmp_path, "classify", "green.jpg", "--model", "colours", "--json")
    assert "green" == json.loads(said.stdout)["labels"][0]["label"]
    spec = json.loads(shoplens(tmp_path, "models", "show", "colours", "--json").stdout)["manifest"]["image"]
    assert ("squash", 32, 32) == (spec["fit"], spec["resize"], spec["crop"])


def test_options_win_over_the_files_beside_a_model(tmp_path: Path) -> None:
    """A preset for the pixels, a size for the input; a model without any names is refused."""
    folder = hugging_face_folder(tmp_path / "colours")
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    options = ("--labels", "labels.txt", "--preset", "raw", "--crop", "64", "--name", "mine")
    assert 0 == shoplens(tmp_path, "models", "import", "colours/model.onnx", *options).returncode
    shown = json.loads(shoplens(tmp_path, "models", "show", "mine", "--json").stdout)
    assert ["red", "green", "blue"] == shown["label_names"]
    assert (64, [0, 0, 0], [1, 1, 1]) == tuple(shown["manifest"]["image"][key] for key in ("crop", "mean", "scale"))
    nameless = {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}
    (folder / "config.json").write_text(json.dumps(nameless))
    assert "pass --labels" in shoplens(tmp_path, "models", "import", "colours").stdout
    (folder / "config.json").unlink()
    unnamed = shoplens(tmp_path, "models", "import", "colours")
    assert (2, True) == (unnamed.returncode, "Name the classes with --labels" in unnamed.stderr)


def test_a_model_that_takes_too_long_to_check_is_refused(tmp_path: Path) -> None:
    """Within the limit of the command, and nothing is installed."""
    (tmp_path / "model.onnx").write_bytes(endless())
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    done = shoplens(tmp_path, "models", "import", "model.onnx", "--labels", "labels.txt", "--time-limit", "3")
    assert (status_said(done.stderr), True) == (done.returncode, "took more than 3 s" in done.stderr), done.stderr
    assert "--time-limit" in done.stderr
    assert [] == list((tmp_path / "data" / "models").iterdir())


def test_signed_models_only(tmp_path: Path) -> None:
    """Make a key, sign, pack; another machine that requires the signature takes this model and no other."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    brightest_channel_model(here / "colours.onnx")
    (here / "labels.txt").write_text("red\ngreen\nblue\n")
    (there / "green.jpg").write_bytes(jpeg_of(np.full((50, 60, 3), (40, 220, 40), np.uint8)))
    assert 0 == shoplens(here, "models", "import", "colours.onnx", "--labels", "labels.txt").returncode
    assert 0 == shoplens(here, "models", "pack", "colours", str(there / "unsigned.shoplens")).returncode
    made = run_command("models", "keygen", "shop.pem", environment=dict(os.environ), folder=here)
    public = made.stdout.strip()
    assert public.startswith("ed25519:")
    assert public in shoplens(here, "models", "sign", "colours", "--key", "shop.pem").stdout
    assert 0 == shoplens(here, "models", "pack", "colours", str(there / "colours.shoplens")).returncode
    (there / "shoplens.toml").write_text(f'require_signed_models = true\ntrusted_keys = ["{public}"]\n')
    refused = shoplens(there, "models", "install", "unsigned.shoplens")
    assert (7, True) == (refused.returncode, "bundle_untrusted" in refused.stderr), refused.stderr
    assert public in shoplens(there, "models", "install", "colours.shoplens").stdout
    assert public in shoplens(there, "models", "verify", "colours").stdout
    assert 0 == shoplens(there, "classify", "green.jpg", "--model", "colours").returncode
    next((there / "data").rglob("signature.json")).unlink()
    unsigned = shoplens(there, "classify", "green.jpg", "--model", "colours")
    assert (7, True) == (unsigned.returncode, "is not signed" in unsigned.stderr)
    assert 1 == shoplens(there, "models", "verify", "colours").returncode
