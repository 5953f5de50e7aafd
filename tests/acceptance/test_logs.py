"""What a running system writes into its log folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.otlp import OtlpReceiver, running_receiver
from shoplens.bundles.bundle import write_bundle
from tests.commands import run_command
from tests.conftest import colourful, jpeg_of, running_server
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model


def test_the_server_keeps_in_its_file_what_it_logs(tmp_path: Path, models_dir: Path) -> None:
    """Every line that standard error has, to the very last one of a stop, with the id of each request."""
    with running_server(tmp_path, models_dir) as server:
        for number in range(20):
            answer = httpx.post(
                f"{server.url}/predict", content=jpeg_of(colourful(1)), headers={"X-Request-ID": f"request-{number}"}
            )
            assert 200 == answer.status_code
        server.process.send_signal(signal.SIGTERM)
        assert -signal.SIGTERM == server.process.wait(30)
    kept = [json.loads(line) for line in (tmp_path / "logs" / "app.log").read_text().splitlines()]
    assert kept == server.events()
    assert {("serve", server.process.pid)} == {(event["command"], event["pid"]) for event in kept}
    asked = [event["request_id"] for event in kept if event.get("path") == "/predict"]
    assert [f"request-{number}" for number in range(20)] == asked
    assert "Traceback" not in server.log.read_text()
    assert not (tmp_path / "logs" / "trigger.log").exists()


def test_a_server_without_a_log_folder_serves(tmp_path: Path, models_dir: Path) -> None:
    """And warns once."""
    (tmp_path / "logs").write_text("a file in its place")
    with running_server(tmp_path, models_dir) as server:
        for _ in range(3):
            assert 200 == httpx.post(f"{server.url}/predict", content=jpeg_of(colourful(1)), timeout=60).status_code
    assert 1 == [event["event"] for event in server.events()].count("log_file.unwritable")


def test_what_is_started_over_http_is_logged_as_such(tmp_path: Path, models_dir: Path) -> None:
    """The import in the server and the run in a process of its own: one log of starts, one log of events, one trace."""
    with (
        running_receiver() as receiver,
        tracing_to(receiver),
        running_server(tmp_path, models_dir, channels__returns__batch__quiet_s="0", tracing="true") as server,
    ):
        (tmp_path / "drop" / "returns" / "order_item.jpg").write_bytes(jpeg_of(colourful(1)))
        assert 1 == httpx.post(f"{server.url}/batch/ingest", timeout=60).json()["counts"]["taken"]
        assert 200 == httpx.post(f"{server.url}/predict", content=jpeg_of(colourful(1)), timeout=60).status_code
        answer = httpx.post(f"{server.url}/batch/runs", headers={"X-Request-ID": "tonight"}, timeout=60)
        run_id = answer.json()["id"]
        ends = wait_for_ends(tmp_path / "logs", 2)
    assert [("ingest", "http", 0), ("run", "http", 0)] == [(end["job"], end["by"], end["exit_status"]) for end in ends]
    ingest, run = ends
    assert 1 == ingest["counts"]["taken"]
    assert (run_id, 1) == (run["run"], sum(run["counts"].values()))
    assert (server.process.pid, False) == (ingest["pid"], server.process.pid == run["pid"])
    lines = lines_of(tmp_path / "logs" / "app.log")
    assert {"serve", "batch run"} == {line["command"] for line in lines}
    of_run = [line for line in lines if line["command"] == "batch run"]
    assert {(run_id, "returns")} == {(line.get("run"), line.get("channel")) for line in of_run}
    (launched,) = [line for line in lines if line["event"] == "run.launched"]
    assert ("tonight", run_id) == (launched["request_id"], launched["run"])
    spans = receiver.wait_for(lambda all_spans: [each for each in all_spans if each.name == "batch run"])
    names = {each.id: each.name for each in spans}
    (embedded,) = (each.trace for each in spans if each.name == "POST /predict")
    assert {("decode", "POST /predict"), ("infer", "POST /predict"), ("INSERT predictions", "POST /predict")} <= {
        (each.name, names.get(each.parent)) for each in spans if each.trace == embedded
    }
    trace = next(each.trace for each in spans if each.name == "batch run")
    assert {
        ("shoplens-serve", "POST /batch/runs", ""),
        ("shoplens-batch", "batch run", "POST /batch/runs"),
        ("shoplens-batch", "commit results", "batch run"),
        ("shoplens-batch", "batch item", "batch run"),
        ("shoplens-batch", "decode", "batch item"),
        ("shoplens-batch", "infer", "batch item"),
    } <= {(each.service, each.name, names.get(each.parent, "")) for each in spans if each.trace == trace}
    assert {trace} == {line["trace_id"] for line in of_run if line["event"] in {"run.started", "run.finished"}}


@contextmanager
def tracing_to(receiver: OtlpReceiver) -> Iterator[None]:
    """Processes that are started in the block send their traces there, soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield


def wait_for_ends(logs: Path, count: int) -> list[dict[str, Any]]:
    """The ends of starts, once there are so many."""
    give_up_at = time.monotonic() + 200
    while time.monotonic() < give_up_at:
        ends = [line for line in lines_of(logs / "trigger.log") if line["event"] == "trigger.ended"]
        if len(ends) >= count:
            return ends
        time.sleep(0.1)
    raise AssertionError((logs / "trigger.log").read_text())


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_standard_output_has_results_only(tmp_path: Path) -> None:
    """A warning while a model is looked for goes to standard error, and from Python nowhere unless it is asked for."""
    write_bundle(
        tmp_path / "models" / "fruit" / "1.2.0", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model()
    )
    (tmp_path / "a.jpg").write_bytes(jpeg_of(colourful(1)))
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")} | nowhere
    environment |= {
        "SHOPLENS_DATA_DIR": str(tmp_path / "data"),
        "SHOPLENS_MODELS_DIR": str(tmp_path / "models"),
        "SHOPLENS_MODELS_URL": "s3://models",
    }
    arguments = ("classify", "a.jpg", "--model", "fruit", "--json")
    done = run_command(*arguments, environment=environment, folder=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert ["a.jpg"] == [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert "model.registry_away" in done.stderr
    program = "from shoplens import load_bundle\nload_bundle('fruit')"
    silent = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert ("", "") == (silent.stdout, silent.stderr)
