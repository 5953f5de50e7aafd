"""Training on the command line: photos become an installed model, or one clear error message."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoplens.bundles.builtin import builtin_names
from tests.commands import run_command, status_said
from tests.conftest import jpeg_of
from tests.unit.training.colours import COLOURS, tinted, write_photos

TIMEOUT_S = 280


def command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of a process with its data below `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment["SHOPLENS_DATA_DIR"] = str(folder / "data")
    return [sys.executable, "-m", "shoplens", *arguments], environment


def shoplens(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    _, environment = command(folder, *arguments)
    return run_command(*arguments, environment=environment, folder=folder, timeout_s=TIMEOUT_S)


def train(folder: Path, source: str, *more: str) -> subprocess.CompletedProcess[str]:
    """With the recipe that needs no torch."""
    return shoplens(folder, "train", source, "--name", "colours", "--recipe", "head", *more)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with 24 photos of each colour below `photos`."""
    write_photos(tmp_path / "photos", each=24, strength=0.6)
    return tmp_path


def test_a_folder_of_photos_becomes_a_model_that_classifies(shop: Path) -> None:
    """The folder includes a truncated photo, a PDF named .jpg, a label with quotes and an emoji."""
    (shop / "photos" / "red").rename(shop / "photos" / 'T-Shirt "rot" 👕')
    red = shop / "photos" / 'T-Shirt "rot" 👕'
    whole = (red / "000.jpg").read_bytes()
    (red / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (red / "document.jpg").write_bytes(b"%PDF-1.7")
    (red / "again.jpg").write_bytes(whole)
    done = train(shop, "photos", "--licence", "CC0-1.0", "--title", "Colours", "--json")
    assert 0 == done.returncode, done.stderr
    said = json.loads(done.stdout)
    assert ["image_corrupt", "image_unsupported"] == sorted(fault["code"] for fault in said["data"]["unreadable"])
    assert {"repeated": 1} == said["evaluation"]["data"]["dropped"]
    assert said["evaluation"]["parts"][0]["accuracy"] > 0.8
    assert "document.jpg (image_unsupported): Unsupported file type. This is a PDF document." in done.stderr

    (shop / "new.jpg").write_bytes(jpeg_of(tinted(4_321, COLOURS["red"], 0.7)))
    answer = shoplens(shop, "classify", "new.jpg", "--model", "colours", "--json")
    assert 'T-Shirt "rot" 👕' == json.loads(answer.stdout)["labels"][0]["label"]
    shown = shoplens(shop, "models", "show", "colours")
    assert 0 == shown.returncode, shown.stderr
    for text in ("Colours", "CC0-1.0", "validation part", 'T-Shirt "rot" 👕'):
        assert text in shown.stdout
    evaluation = json.loads(shoplens(shop, "models", "show", "colours", "--json").stdout)["evaluation"]
    assert evaluation["parts"][0]["thresholds"][0]["at"] > 0
    verified = shoplens(shop, "models", "verify", "colours")
    assert "colours: ok" in verified.stdout


def test_a_csv_and_a_test_part_give_the_same_model_twice(shop: Path) -> None:
    """Written with --into; photos of the test part leave training, and the graph has the same bytes."""
    rows = [path.relative_to(shop).as_posix() for path in sorted((shop / "photos").rglob("*.jpg"))]
    (shop / "list.csv").write_text("path,label\n" + "".join(f"{row},{row.split('/')[1]}\n" for row in rows))
    write_photos(shop / "test", each=3, first=700, strength=0.6)
    (shop / "test" / "red" / "twin.jpg").write_bytes((shop / "photos" / "red" / "005.jpg").read_bytes())
    digests = []
    for into in ("one", "two"):
        done = train(shop, "list.csv", "--test", "test", "--into", into, "--seed", "3")
        assert 0 == done.returncode, done.stderr
        assert "On 10 pictures of the test part: accuracy" in done.stdout
        assert "photos/red/005.jpg = red/twin.jpg" in done.stderr
        digests.append(hashlib.sha256((shop / into / "colours" / "1.0.0" / "model.onnx").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert not (shop / "data" / "training" / "colours").exists()


@pytest.mark.parametrize(
    ("prepare", "arguments", "code", "words"),
    [
        (lambda _: None, ["missing"], "dataset_invalid", "nothing at"),
        (lambda shop: (shop / "empty").mkdir(), ["empty"], "dataset_invalid", "no folders"),
        (lambda shop: (shop / "l.csv").write_text("a,b\n1,2\n"), ["l.csv"], "dataset_invalid", "one column `path`"),
        (
            lambda shop: (shop / "l.csv").write_text("path,label\n../secret.jpg,x\n"),
            ["l.csv"], "dataset_invalid", "line 2",
        ),
        (lambda shop: (shop / "l.npz").write_bytes(b"no"), ["l.npz"], "dataset_invalid", "cannot be read"),
        (lambda _: None, ["photos", "--recipe", "magic"], "dataset_invalid", "transfer, head, scratch"),
        (lambda _: None, ["photos", "--version", "1/2"], "request_invalid", "not a valid version"),
        (lambda _: None, ["photos", "--held-out", "0"], "request_invalid", "between 0.01 and 0.5"),
        (lambda _: None, ["photos", "--validation", "photos/red"], "dataset_invalid", "no folders"),
    ],
)  # fmt: skip
def test_invalid_data_and_options_are_refused_in_one_sentence(
    shop: Path, prepare: Any, arguments: list[str], code: str, words: str
) -> None:
    """The status of its kind, the error's code, no traceback, and nothing installed."""
    prepare(shop)
    done = train(shop, *arguments)
    assert (status_said(done.stderr), True, True) == (
        done.returncode,
        f"error ({code})" in done.stderr,
        words in done.stderr,
    ), done.stderr
    assert "Traceback" not in done.stderr
    assert not (shop / "data" / "models" / "colours").exists()


def test_a_class_of_one_photo_is_refused_after_the_report(shop: Path) -> None:
    """Both are printed: the report, and the reason."""
    for photo in sorted((shop / "photos" / "red").iterdir())[1:]:
        photo.unlink()
    done = train(shop, "photos")
    assert status_said(done.stderr) == done.returncode
    assert "49 photos in 3 classes" in done.stderr
    assert "fewer than 2 usable photos: 'red'" in done.stderr


def test_an_interrupted_training_can_be_resumed(shop: Path) -> None:
    """Ctrl-C while the network embeds the pictures; then the same command again."""
    line, environment = command(shop, "train", "photos", "--name", "colours", "--recipe", "head")
    line = ["env", "--default-signal=INT", *line]  # a shell that runs the tests in the background has it ignored
    with subprocess.Popen(line, env=environment, cwd=shop, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for message in process.stderr:
            if "Training." in message:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert (130, True) == (process.returncode, "Run the same command again" in rest), rest
    assert "Traceback" not in rest
    assert (shop / "data" / "training" / "colours" / "train.json").is_file()
    again = train(shop, "photos")
    assert 0 == again.returncode, again.stderr
    assert "Installed colours@1.0.0" in again.stdout


@pytest.mark.parametrize(
    ("recipe", "package", "extras"),
    [("transfer", "torch", ".[train,torch]"), ("head", "sklearn", ".[train]")],
)
def test_a_recipe_without_its_extra_says_what_to_install(shop: Path, recipe: str, package: str, extras: str) -> None:
    """Before a photo is read: there are none. The package is hidden from the process, whether installed or not."""
    line, environment = command(shop, "train", "nowhere", "--name", "colours", "--recipe", recipe)
    hidden = f"import sys, runpy; sys.modules[{package!r}] = None; runpy.run_module('shoplens', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hidden, *line[3:]],
        env=environment, cwd=shop, capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert (6, True) == (done.returncode, f"pip install '{extras}'" in done.stderr), done.stderr
    assert "extra_missing" in done.stderr


def test_an_unknown_recipe_is_refused_before_a_photo_is_read(tmp_path: Path) -> None:
    """There are no photos here, and the error is about the recipe."""
    done = shoplens(tmp_path, "train", "nowhere", "--name", "colours", "--recipe", "soup")
    assert (1, True) == (done.returncode, "transfer, head, scratch" in done.stderr), done.stderr
    assert "nowhere" not in done.stderr


def test_public_datasets_are_listed_with_their_licences(tmp_path: Path) -> None:
    """For people and for programs."""
    listing = shoplens(tmp_path, "datasets").stdout
    for text in ("Alexey Grigorev", "CC0-1.0", "Zalando", "MIT", "not identical"):
        assert text in listing
    listed = json.loads(shoplens(tmp_path, "datasets", "--json").stdout)
    assert ["clothing", "fashion-mnist"] == [source["name"] for source in listed]
    assert {64} == {len(part["sha256"]) for source in listed for part in source["parts"]}


def test_a_copy_of_a_public_dataset_is_verified(shop: Path) -> None:
    """This copy differs: the status is 1, and each part says how."""
    done = shoplens(shop, "datasets", "verify", "clothing", "photos")
    assert (1, True) == (done.returncode, "train: photos/train does not exist" in done.stdout)
    unknown = shoplens(shop, "datasets", "verify", "birds", "photos")
    assert (status_said(unknown.stderr), True) == (unknown.returncode, "clothing, fashion-mnist" in unknown.stderr)


def test_the_shared_copies_match_the_checksums(shared_data: Path, tmp_path: Path) -> None:
    """If they are available."""
    if not (shared_data / "clothing").is_dir():
        pytest.skip("the shared data has no photos of clothes")
    for name in ("clothing", "fashion-mnist"):
        done = shoplens(tmp_path, "datasets", "verify", name, str(shared_data / name))
        assert 0 == done.returncode, done.stdout


def test_the_name_of_a_built_in_model_is_refused(shop: Path) -> None:
    """Before any photo is read."""
    done = shoplens(shop, "train", "photos", "--name", builtin_names()[0], "--recipe", "head")
    assert (2, True) == (done.returncode, "built-in" in done.stderr), done.stderr
    assert not (shop / "data").exists()
