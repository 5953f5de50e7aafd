"""A load test as a user runs it: Locust in a process of its own, for a few seconds, and what the report says."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import colourful, jpeg_of
from tools.project import ROOT


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Small ones, which cost little to make and to classify."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(jpeg_of(colourful(number)))
    return folder


def load(place: Path, photos: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m load` for four seconds of people in a hurry."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    command = [sys.executable, "-m", "load", "--seconds", "4", "--pace", "20", "--place", str(place)]
    return subprocess.run(
        [*command, "--photos", str(photos), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def names(place: Path) -> set[str]:
    """The kinds of requests that were answered."""
    return {f"{each['method']} {each['name']}" for each in json.loads((place / "stats.json").read_text())}


def test_people_use_a_system_and_nothing_fails(tmp_path: Path, models_dir: Path, photos: Path) -> None:
    """Photos, records, returns and the operator's pages are asked for, judged, and listed in every kind of report."""
    place = tmp_path / "report"
    done = load(place, photos, "--workers", "0", "--users", "8", "--models-dir", str(models_dir))
    assert 0 == done.returncode, done.stdout + done.stderr
    wanted = {"POST /predict 224 px", "GET /predictions", "GET /batch/runs/ID/items", "GET /health/ready"}
    assert set() == wanted - names(place), done.stdout
    assert (place / "report.md").read_text() in done.stdout
    assert "| 0 | web server |" in done.stdout
    assert "POST,/predict 224 px," in (place / "stats_stats.csv").read_text()
    assert "/predict 224 px" in (place / "report.html").read_text()


def test_refusals_are_respected_and_failures_reported(tmp_path: Path, photos: Path) -> None:
    """A server that refuses every photo for a second is asked once a second; one that is broken fails the test."""
    asked: Counter[str] = Counter()
    with refusing_server(asked) as url:
        done = load(tmp_path, photos, "--url", url, "--users", "4", "--journeys", "Shopper", "Operator")
    assert 1 == done.returncode, done.stdout + done.stderr
    entries = {each["name"]: each for each in json.loads((tmp_path / "stats.json").read_text())}
    assert (0, True) == (entries["/predict 224 px refused"]["num_failures"], 3 <= asked["/predict"] <= 3 * 10)
    assert "/predict 224 px" not in entries
    assert {"CatchResponseError('500')"} == {each["error"] for each in failures(tmp_path)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--url", "http://127.0.0.1:9"), "http://127.0.0.1:9 does not answer"),
        (("--photos", "docs"), "There is no JPEG below"),
        (("--journeys", "Thief"), "invalid choice: 'Thief'"),
        (("--pace", "0"), "is not above 0"),
    ],
)
def test_invalid_options_are_reported_before_anything_starts(
    tmp_path: Path, photos: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """A sentence, and the exit status of a wrong command."""
    done = load(tmp_path, photos, *arguments)
    assert (2, True) == (done.returncode, sentence in done.stderr), done.stderr


def failures(place: Path) -> list[dict[str, str]]:
    """What Locust says of them."""
    with (place / "stats_failures.csv").open() as lines:
        return [{name.lower(): value for name, value in row.items()} for row in csv.DictReader(lines)]


@contextmanager
def refusing_server(asked: Counter[str]) -> Iterator[str]:
    """Every POST gets 429 with a second to wait, every GET 500."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(429, ("Retry-After", "1"))

        def do_GET(self) -> None:
            self.answer(500)

        def answer(self, status: int, *headers: tuple[str, str]) -> None:
            asked[self.path.partition("?")[0]] += 1
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", "0")):
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not of interest."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
