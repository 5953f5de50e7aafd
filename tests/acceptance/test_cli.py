"""The command line as a person and a script see it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shoplens.bundles.store import resolve_bundle
from tests.commands import run_command, start_command
from tests.conftest import colourful, jpeg_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, models_dir: Path) -> Run:
    """Run `shoplens …` with a data directory of its own; `settings` become SHOPLENS_ variables."""

    def run_shoplens(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
        environment |= {"SHOPLENS_DATA_DIR": str(tmp_path / "data"), "SHOPLENS_MODELS_DIR": str(models_dir)}
        environment |= {f"SHOPLENS_{name.upper()}": value for name, value in settings.items()}
        return run_command(*arguments, environment=environment, folder=tmp_path)

    return run_shoplens


def test_help_names_every_command(run: Run) -> None:
    """And needs no heavy import: the bench says how quick it is."""
    done = run("--help")
    assert 0 == done.returncode
    for command in ("serve", "classify", "models", "db", "doctor"):
        assert command in done.stdout


def test_help_and_version_import_neither_models_nor_web() -> None:
    """That is what keeps them quick."""
    heavy = "'onnxruntime', 'fastapi', 'numpy', 'rich', 'pydantic', 'sqlalchemy', 'asyncio', 'shoplens.batch'"
    probe = (
        "import sys; from shoplens.cli.app import app; app(['-h'], standalone_mode=False); "
        f"print([name for name in ({heavy}) if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.splitlines()[-1]


def test_photos_are_classified_in_the_order_given(run: Run, tmp_path: Path) -> None:
    """One JSON line each, from files and from folders; a bad one fails alone and makes the status 1."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.jpg").write_bytes(jpeg_of(colourful(1)))
    (tmp_path / "folder" / ".hidden").write_bytes(b"not looked at")
    (tmp_path / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    (tmp_path / "bad.jpg").write_text("<html>")
    done = run("classify", "a.jpg", "bad.jpg", "folder", "missing.jpg", "--json", "--top-k", "3")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["a.jpg", "bad.jpg", "folder/b.jpg", "missing.jpg"] == [row["path"] for row in rows]
    assert [3, 3] == [len(row["labels"]) for row in rows if "labels" in row]
    assert ["image_unsupported", "image_missing"] == [row["error"]["code"] for row in rows if "error" in row]
    assert 1 == done.returncode


def test_a_good_photo_is_a_row_for_programs_and_ends_with_status_0(run: Run, tmp_path: Path) -> None:
    """Its path and its label; people see bars."""
    (tmp_path / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    done = run("classify", "a.jpg", "--channel", "reviews")
    assert 0 == done.returncode, done.stderr
    assert ["a.jpg", "safe"] == done.stdout.split("\t")[:2]


def test_a_text_is_classified_alone_or_with_its_photos(run: Run, tmp_path: Path) -> None:
    """By a model that takes texts; another one says what it takes, and nothing at all says what is needed."""
    (tmp_path / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    alone = run("classify", "--text", "<b>Granny Smith</b> apples", "--channel", "catalogue", "--json")
    found = json.loads(alone.stdout)
    assert ("Granny Smith apples", [], "catalogue") == (found["text"], found["paths"], found["channel"])
    assert "Granny Smith" in found["labels"][0]["label"]
    both = run("classify", "a.jpg", "--text", "Granny Smith apples", "--model", "starter-catalogue")
    assert (0, True) == (both.returncode, "Granny Smith apples, a.jpg" in both.stdout), both.stderr
    for arguments, sentence in (
        (("a.jpg", "--text", "x", "--channel", "look"), "takes photos only"),
        (("--text", " "), "Name photos or folders, or a text"),
        ((), "Name photos or folders, or a text"),
    ):
        refused = run("classify", *arguments)
        assert (2, True) == (refused.returncode, sentence in refused.stderr), refused.stderr


def test_an_unknown_channel_or_model_is_reported_in_one_sentence(run: Run, tmp_path: Path) -> None:
    """No traceback."""
    (tmp_path / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    for option in ("--channel", "--model"):
        done = run("classify", "a.jpg", option, "nix")
        assert 3 == done.returncode
        assert "nix" in done.stderr
        assert "Traceback" not in done.stderr


def test_models_are_listed_shown_and_verified(run: Run) -> None:
    """For people and for programs."""
    assert "efficientnet-lite0-int8" in run("models", "list").stdout
    names = [row["name"] for row in json.loads(run("models", "list", "--json").stdout)]
    assert {
        "clothing",
        "efficientnet-lite0",
        "efficientnet-lite0-int8",
        "fashion-mnist",
        "opennsfw",
        "starter-catalogue",
    } <= set(names)
    shown = json.loads(run("models", "show", "opennsfw", "--json").stdout)
    assert ["safe", "nsfw"] == shown["label_names"]
    assert "opennsfw" in run("models", "show", "opennsfw").stdout
    verified = run("models", "verify", "--json")
    assert 0 == verified.returncode, verified.stdout
    assert all(row["ok"] for row in json.loads(verified.stdout))


def test_a_tampered_model_is_found_and_refused(run: Run, tmp_path: Path, models_dir: Path) -> None:
    """By `verify` with status 1, and by `serve` before it listens."""
    source = resolve_bundle("opennsfw", models_dir).root
    bad = tmp_path / "models" / "opennsfw" / source.name
    bad.mkdir(parents=True)
    for file in source.iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    with (bad / "model.onnx").open("r+b") as model:
        model.seek(1_000)
        model.write(b"\x00\x01\x02\x03")
    done = run("models", "verify", models_dir=str(tmp_path / "models"))
    assert 1 == done.returncode
    assert "bundle_tampered" in done.stdout
    served = run("serve", "--port", "0", models_dir=str(tmp_path / "models"))
    assert 7 == served.returncode
    for text in ("bundle_tampered", f"opennsfw@{source.name}", str(bad), "Remove this folder"):
        assert text in served.stderr
    bad.joinpath("model.onnx").unlink()
    assert f"opennsfw@{source.name}" in run("serve", "--port", "0", models_dir=str(tmp_path / "models")).stderr


def test_a_folder_without_photos_is_said_and_ends_with_status_7(run: Run, tmp_path: Path) -> None:
    """Before a model is loaded: there is none of this name."""
    (tmp_path / "empty").mkdir()
    done = run("classify", "empty", "--model", "nix", "--json")
    assert (7, "") == (done.returncode, done.stdout)
    assert "image_missing" in done.stderr
    assert "empty" in done.stderr


def test_a_command_leaves_nothing_in_the_folder_where_it_is_run(tmp_path: Path, models_dir: Path) -> None:
    """Its data is in the folder of the user."""
    here, home = tmp_path / "photos", tmp_path / "home"
    here.mkdir()
    (here / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPLENS_", "XDG_"))}
    environment |= {"HOME": str(home)}
    listed = run_command("models", "prepare", "fashion-mnist", environment=environment, folder=here)
    done = run_command("classify", "a.jpg", "--model", "fashion-mnist", environment=environment, folder=here)
    assert (0, 0) == (listed.returncode, done.returncode), done.stderr
    assert ["a.jpg"] == [path.name for path in here.iterdir()]
    assert (home / ".local" / "share" / "shoplens" / "models" / "fashion-mnist").is_dir()


def test_ctrl_c_ends_a_classification_and_says_what_is_kept(tmp_path: Path, models_dir: Path) -> None:
    """Status 130; the file has the results until then."""
    (tmp_path / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    (tmp_path / "many").mkdir()
    for number in range(3_000):
        (tmp_path / "many" / f"{number:04}.jpg").hardlink_to(tmp_path / "a.jpg")
    environment = {"SHOPLENS_DATA_DIR": str(tmp_path / "data"), "SHOPLENS_MODELS_DIR": str(models_dir)}
    arguments = ("classify", "many", "--model", "fashion-mnist", "--output", "labels.jsonl")
    running = start_command(*arguments, environment=environment, folder=tmp_path, log=tmp_path / "said.txt")
    labels = tmp_path / "labels.jsonl"
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s and not (labels.exists() and labels.stat().st_size):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    assert 130 == running.wait(60), (tmp_path / "said.txt").read_text()
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    said = f"error: Interrupted after {len(rows):,} photos. labels.jsonl has the results until then."
    assert said in (tmp_path / "said.txt").read_text()
    assert 0 < len(rows) < 3_000


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(tmp_path: Path) -> None:
    """As `| head` does, also when it goes before the first byte; the status is that of a broken pipe."""
    command = f"{sys.executable} -m shoplens datasets --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"SHOPLENS_DATA_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (141, "") == (done.returncode, done.stderr)


def test_the_doctor_finds_a_healthy_system_healthy(run: Run) -> None:
    """Before the first start, too."""
    done = run("doctor", "--json")
    findings = {row["part"]: row for row in json.loads(done.stdout)}
    assert 0 == done.returncode, done.stdout
    assert [] == [part for part, row in findings.items() if row["fault"]]
    assert "model of look" in findings
    assert "✓" in run("doctor").stdout


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"storage_url": "file:///proc/missing"}, "photo store"),
        ({"database_url": "sqlite:////proc/missing/x.db"}, "database"),
        ({"channels__look__model": "nix"}, "model of look"),
        ({"host": "0.0.0.0"}, "listening"),
    ],
)
def test_the_doctor_names_the_part_that_is_not_well(run: Run, settings: dict[str, str], part: str) -> None:
    """With what to do, while the other parts are still looked at."""
    done = run("doctor", "--json", **settings)
    findings = json.loads(done.stdout)
    assert 1 == done.returncode
    assert [part] == [row["part"] for row in findings if row["fault"]]


def test_other_users_can_neither_enter_nor_read_the_data(run: Run, tmp_path: Path) -> None:
    """The folder is for this user, whichever command creates it; the files in it are for the group at most."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    alone["SHOPLENS_DATA_DIR"] = str(tmp_path / "data")
    assert 0 == run_command("models", "prepare", "fashion-mnist", environment=alone, folder=tmp_path).returncode
    assert 0o700 == (tmp_path / "data").stat().st_mode & 0o777
    assert 0 == run("batch", "status").returncode
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert tmp_path / "data" / "shoplens.db" in files
    assert [] == [path for path in files if path.stat().st_mode & 0o027]


@pytest.mark.parametrize(
    "command", [("batch", "status"), ("db", "upgrade"), ("serve", "--port", "0"), ("batch", "run")]
)
def test_a_data_directory_that_cannot_be_made_is_told_in_one_sentence(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A file stands in its place."""
    (tmp_path / "data").write_text("not a folder")
    done = run(*command, channels__returns__model="opennsfw")
    assert 6 == done.returncode
    assert "error (file_unusable): data_dir: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_database_is_made_by_upgrade(run: Run, tmp_path: Path) -> None:
    """And upgrading again changes nothing."""
    first, second = run("db", "upgrade"), run("db", "upgrade")
    assert (0, 0) == (first.returncode, second.returncode)
    assert first.stdout == second.stdout
    assert (tmp_path / "data" / "shoplens.db").exists()


def test_a_public_address_is_refused_unless_said_explicitly(run: Run) -> None:
    """There is no account."""
    done = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert 6 == done.returncode
    assert "unsafe_bind" in done.stderr
    assert "--allow-public" in done.stderr


def test_a_port_in_use_is_reported_before_models_are_loaded(run: Run) -> None:
    """In one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        started = time.monotonic()
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert 6 == done.returncode
    assert "misconfigured" in done.stderr
    assert time.monotonic() - started < 60


def test_wrong_settings_are_reported_in_one_sentence(run: Run) -> None:
    """On every command that reads them."""
    for command in (("serve",), ("doctor",), ("models", "list"), ("db", "upgrade")):
        done = run(*command, port="many")
        assert 6 == done.returncode
        assert "port" in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_is_written_beside_the_data(run: Run, tmp_path: Path, models_dir: Path) -> None:
    """No file in the home folder, where the runtime of the models would keep a number of this machine."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "photo.jpg").write_bytes(jpeg_of(colourful(1)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPLENS_", "ORT_"))}
    done = subprocess.run(
        [sys.executable, "-m", "shoplens", "classify", "photo.jpg"],
        env=environment | {"HOME": str(home), "SHOPLENS_MODELS_DIR": str(models_dir)},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    assert [] == list(home.iterdir())
