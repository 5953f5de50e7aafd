"""Every command where the data folder cannot be used: one sentence and a status, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from shoplens.bundles.store import pack_bundle, resolve_bundle
from shoplens.db import upgrade
from tests.commands import run_command, status_said
from tests.conftest import colourful, jpeg_of

COMMANDS = {
    "serve": "serve --port 0",
    "worker": "worker",
    "classify": "classify photo.jpg",
    "classify as JSON": "classify photo.jpg --json",
    "doctor": "doctor",
    "doctor as JSON": "doctor --json",
    "db upgrade": "db upgrade",
    "backup": "backup copy",
    "restore": "restore copied",
    "train": "train photos --name garments --epochs 1",
    "models list": "models list",
    "models show": "models show fashion-mnist",
    "models prepare": "models prepare fashion-mnist",
    "models verify": "models verify",
    "models import": "models import model.onnx --labels labels.txt --name tiny --preset raw",
    "models pack": "models pack fashion-mnist packed.shoplens",
    "models install": "models install model.shoplens",
    "models push": "models push fashion-mnist",
    "models pull": "models pull fashion-mnist",
    "batch ingest": "batch ingest drop",
    "batch run": "batch run",
    "batch status": "batch status",
    "batch export": "batch export --all",
    "batch report": "batch report",
    "batch retry": "batch retry --all",
}
NEED_NO_DATA = {"models list", "models verify"}
"""Where there is no data, they say so with status 0."""


def a_file(data: Path) -> None:
    """A file where the folder should be."""
    data.write_text("not a folder")


def below_a_file(data: Path) -> None:
    """A file where the folder above it should be."""
    data.parent.rmdir()
    data.parent.write_text("not a folder")


def of_another_user(data: Path) -> None:
    """An empty folder that this user may not write."""
    data.mkdir()
    data.chmod(0o555)


def closed(data: Path) -> None:
    """A folder that this user may not even enter."""
    data.mkdir()
    data.chmod(0o000)


def on_a_full_disk(data: Path) -> None:
    """An empty folder; no file may get any content."""
    data.mkdir()


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    """Everything the commands are given, so that only the data folder is at fault."""
    root = tmp_path_factory.mktemp("materials")
    model = resolve_bundle("fashion-mnist", models_dir)
    shutil.copy(model.model_path, root / "model.onnx")
    (root / "labels.txt").write_text("\n".join(label.name for label in model.labels))
    pack_bundle(model.root, root / "model.shoplens")
    for number in range(12):
        photo = root / "photos" / ("shirt" if number % 2 else "shoe") / f"{number}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(jpeg_of(colourful(number)))
    (root / "drop").mkdir()
    for name in ("photo.jpg", "drop/a.jpg"):
        (root / name).write_bytes(jpeg_of(colourful(99)))
    (root / "copied" / "photos").mkdir(parents=True)
    upgrade(f"sqlite:///{root / 'copied' / 'shoplens.db'}")
    return root


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with a waiting photo and no run yet."""
    root = tmp_path_factory.mktemp("used")
    (root / "drop").mkdir()
    (root / "drop" / "a.jpg").write_bytes(jpeg_of(colourful(7)))
    settings = {"SHOPLENS_DATA_DIR": str(root / "data"), "SHOPLENS_CHANNELS__RETURNS__BATCH__QUIET_S": "0"}
    done = run_command("batch", "ingest", "drop", environment=dict(os.environ) | settings, folder=root)
    assert "imported 1" in done.stdout, done.stderr
    return root / "data"


def run_in(materials: Path, tmp_path: Path, command: str, *, full: bool) -> subprocess.CompletedProcess[str]:
    """A command over `tmp_path/deeper/data`, whose modes count for root too; no file gets any content if `full`."""
    folder = tmp_path / "work"
    shutil.copytree(materials, folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_DATA_DIR": str(tmp_path / "deeper" / "data"), "SHOPLENS_BATCH__RETRY_S": "1"}
    if command.startswith(("models push", "models pull")):
        environment["SHOPLENS_MODELS_URL"] = str(folder / "published")
    return run_command(
        *command.split(),
        environment=environment,
        folder=folder,
        timeout_s=60,
        obeys_modes=True,
        largest_file_bytes=0 if full else None,
    )


def require_sentence(command: str, done: subprocess.CompletedProcess[str]) -> None:
    """The status of the error and one error at the end, which says what to do; `doctor` has it among its findings."""
    assert (1 if command.startswith("doctor") else status_said(done.stderr)) == done.returncode, done.stderr
    if command == "doctor":
        assert "✗" in done.stdout
    elif command == "doctor as JSON":
        assert any(finding["fault"] for finding in orjson.loads(done.stdout))
    else:
        assert 1 == done.stderr.count("error (")
        last = done.stderr.partition("hint: ")[0].strip().splitlines()[-1]
        assert last.startswith("error ("), done.stderr
        assert len(last.split()) > 6, done.stderr


@pytest.mark.parametrize("kind", [a_file, below_a_file, of_another_user, closed, on_a_full_disk])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_used_ends_the_command_with_a_sentence(
    command: str, kind: Callable[[Path], None], materials: Path, tmp_path: Path
) -> None:
    """At once, with a code and status 1."""
    (tmp_path / "deeper").mkdir()
    kind(tmp_path / "deeper" / "data")
    done = run_in(materials, tmp_path, COMMANDS[command], full=kind is on_a_full_disk)
    assert "Traceback" not in done.stdout + done.stderr
    if command not in NEED_NO_DATA:
        require_sentence(command, done)


@pytest.mark.parametrize("full", [False, True], ids=["read-only", "full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_used_folder_that_cannot_be_written_is_at_most_read(
    command: str, full: bool, used: Path, materials: Path, models_dir: Path, tmp_path: Path
) -> None:
    """What only reads may succeed; what writes ends with a sentence."""
    data = tmp_path / "deeper" / "data"
    shutil.copytree(used, data)
    files = [path for path in data.rglob("*") if path.is_file()]
    shutil.copytree(models_dir, data / "models", copy_function=os.link)  # other tests share the files, not the folders
    for path in [] if full else [*files, data, *data.rglob("*/")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = run_in(materials, tmp_path, COMMANDS[command], full=full)
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode != 0 or command in {"serve", "doctor", "batch ingest", "batch run"}:
        require_sentence(command, done)
