"""`shoplens classify` of folders, patterns and lists, into rows, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shoplens.cli.app import app
from shoplens.predictions.commands import classify_photos
from tests.commands import run_command
from tests.conftest import colourful, jpeg_of

MODEL = "fashion-mnist"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> Path:
    """Two photos and a file that is none, one of them in a folder below."""
    (tmp_path / "photos" / "b").mkdir(parents=True)
    for name in ("photos/a.jpg", "photos/b/=c.jpg"):
        (tmp_path / name).write_bytes(jpeg_of(colourful(len(name))))
    (tmp_path / "photos" / "bad.jpg").write_text("<html>")
    (tmp_path / "photos" / ".hidden.jpg").touch()
    monkeypatch.setenv("SHOPLENS_MODELS_DIR", str(models_dir))
    monkeypatch.setenv("SHOPLENS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def classify(folder: Path) -> Callable[..., Result]:
    """The command, with lines for standard input."""

    def run(*arguments: str, lines: str = "") -> Result:
        assert Path.cwd() == folder
        return CliRunner().invoke(app, ["classify", *arguments, "--model", MODEL], input=lines)

    return run


def test_a_folder_becomes_a_csv_with_a_reason_for_what_is_no_photo(
    classify: Callable[..., Result], folder: Path
) -> None:
    """In the order of names, all levels, safe for spreadsheets; status 1, since one of them failed."""
    done = classify("photos", "--output", "labels.csv", "--top-k", "2")
    assert (1, "") == (done.exit_code, done.stdout), done.stderr
    assert "3 photos in " in done.stderr
    assert "1 of 3 photos could not be classified." in done.stderr
    rows = list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text())))
    assert ["photos/a.jpg", "photos/b/=c.jpg", "photos/bad.jpg"] == [row["path"] for row in rows]
    assert ["", "", "image_unsupported"] == [row["error"] for row in rows]
    assert rows[0]["label"] != rows[0]["label_2"]
    assert float(rows[0]["score"]) >= float(rows[0]["score_2"])
    assert rows[0]["model"].startswith(f"{MODEL}@")


def test_patterns_and_names_from_standard_input_keep_their_order(classify: Callable[..., Result]) -> None:
    """A pattern that no file fits is a row with its reason."""
    names = "photos/b/=c.jpg\nphotos/a.jpg\n"
    done = classify("-", "photos/*.jpg", "no/*.png", "--format", "json", lines=names)
    rows = json.loads(done.stdout)
    assert [*names.split(), "photos/a.jpg", "photos/bad.jpg", "no/*.png"] == [row["path"] for row in rows]
    assert [1, "image_missing"] == [done.exit_code, rows[-1]["error"]["code"]]
    assert 5 == len(rows[0]["labels"])


def test_a_program_gets_one_row_with_the_best_label(classify: Callable[..., Result]) -> None:
    """Path, label, score, decision, model, error and reason; JSON Lines with --json."""
    done = classify("photos/a.jpg")
    path, label, score, *others = done.stdout.rstrip("\n").split("\t")
    assert (0, "photos/a.jpg", 4, "") == (done.exit_code, path, len(others), others[-1])
    best = json.loads(classify("photos/a.jpg", "--json").stdout)["labels"][0]
    assert label == best["label"]
    assert float(score) == pytest.approx(best["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("photos", "--output", "labels.txt"), "End the name of labels.txt with .csv, .json or .jsonl"),
        (("photos", "--output", "no/labels.csv"), "cannot be written"),
        (("photos", "--json", "--format", "csv"), "exclude each other"),
        (("--text", "x", "--format", "csv"), "--text classifies one sample"),
    ],
)
def test_options_that_do_not_fit_are_explained(
    classify: Callable[..., Result], arguments: tuple[str, ...], sentence: str
) -> None:
    """With status 2."""
    done = classify(*arguments)
    assert (2, True) == (done.exit_code, sentence in done.stderr), done.stderr


def test_a_folder_that_cannot_be_read_is_a_row_and_the_others_go_on(folder: Path, models_dir: Path) -> None:
    """With the reason of the system."""
    (folder / "photos" / "b").chmod(0)
    environment = {"SHOPLENS_MODELS_DIR": str(models_dir), "SHOPLENS_DATA_DIR": str(folder / "data")}
    arguments = ("classify", "photos", "--model", MODEL, "--json")
    done = run_command(*arguments, environment=environment, folder=folder, obeys_modes=True)
    (folder / "photos" / "b").chmod(0o755)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["photos/a.jpg", "photos/b", "photos/bad.jpg"] == [row["path"] for row in rows]
    assert "The folder photos/b cannot be read: Permission denied." == rows[1]["error"]["detail"]


def test_names_are_read_as_they_are_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So a list of a million names needs no more memory than a short one."""
    most = 0
    written = 0

    def names() -> Iterator[str]:
        nonlocal most, written
        for number in range(300):
            written += len(capsys.readouterr().out.splitlines())
            most = max(most, number - written)
            yield f"{folder}/photos/a.jpg\n"

    monkeypatch.setattr(sys, "stdin", names())
    monkeypatch.setenv("SHOPLENS_THREADS", "2")
    classify_photos(
        [Path("-")], channel=None, model=MODEL, top_k=None, wanted="jsonl", output=None, data_dir=None
    )  # fmt: skip
    written += len(capsys.readouterr().out.splitlines())
    assert 300 == written
    assert most <= 8
