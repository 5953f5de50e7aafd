"""`shoplens worker` and what stands before it, as an operator sees them: processes, signals, a sentence per fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from servers.otlp import OtlpReceiver, running_receiver
from servers.process import free_port
from shoplens.batch.entities import ItemState
from tests.acceptance.batch_shop import BatchShop, tiny_photo
from tests.acceptance.fleet_of_processes import ProcessFleet
from tests.commands import run_command, status_said
from tests.conftest import colourful, jpeg_of

SHOPLENS = [sys.executable, "-m", "shoplens"]
WITHIN_S = 15


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    """What the processes of the fleet send their traces to."""
    with running_receiver() as started:
        yield started


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, receiver: OtlpReceiver) -> Iterator[ProcessFleet]:
    """A web server and one worker over Valkey, with a SQLite database each, and with traces."""
    traced = {
        "SHOPLENS_TRACING": "true",
        "SHOPLENS_CHANNELS__LOOK__KEEP": "original",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with ProcessFleet(tmp_path_factory.mktemp("fleet"), models_dir, with_postgres=False, settings=traced) as started:
        started.start_worker("one")
        started.start_web()
        yield started


def shoplens(*arguments: str, data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command with these settings and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    own = {f"SHOPLENS_{name.upper()}": value for name, value in settings.items()} | {"SHOPLENS_DATA_DIR": str(data_dir)}
    return run_command(*arguments, environment=clean | own, folder=data_dir, timeout_s=60)


def test_the_web_server_shows_what_its_workers_serve(fleet: ProcessFleet) -> None:
    """In the list of models, in its readiness and in its metrics."""
    models = httpx.get(f"{fleet.url}/models", timeout=60).json()
    served = {each["name"]: each["batching"] for each in models if each["served"]}
    assert "single calls on 1 thread in 1 worker" == served["efficientnet-lite0-int8"]
    assert 200 == httpx.get(f"{fleet.url}/health/ready", timeout=60).status_code
    metrics = httpx.get(f"{fleet.url}/metrics", timeout=60).text
    assert "shoplens_workers 1.0" in metrics
    assert 'shoplens_queue_jobs{priority="online"} 0.0' in metrics


def test_a_bad_photo_gets_the_same_error_as_without_workers(fleet: ProcessFleet) -> None:
    """Its code travels through the queue."""
    answer = httpx.post(f"{fleet.url}/predict", content=jpeg_of(colourful(1))[:500], timeout=60)
    assert (422, "image_corrupt") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("photo", [jpeg_of(colourful(2)), jpeg_of(colourful(1))[:500]], ids=["good", "damaged"])
def test_the_id_of_a_request_is_in_the_log_of_its_worker(fleet: ProcessFleet, photo: bytes) -> None:
    """Whether the photo is classified or refused, the lines of both processes can be joined."""
    own = f"order-{len(photo)}"
    httpx.post(f"{fleet.url}/predict", content=photo, headers={"x-request-id": own}, timeout=60)
    events = [json.loads(line) for line in fleet.log("one").splitlines() if line.startswith("{")]
    (event,) = [each["event"] for each in events if each.get("request_id") == own]
    assert event == ("worker.photo_failed" if len(photo) == 500 else "worker.photo_classified")


def test_a_request_is_one_trace_from_http_through_the_queue_and_a_worker_to_its_row(
    fleet: ProcessFleet, receiver: OtlpReceiver
) -> None:
    """It continues the trace of its caller, its parts have the right parents, and none holds a path or a name."""
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    answer = httpx.post(
        f"{fleet.url}/predict?top_k=3",
        files={"file": ("anna-smith.jpg", jpeg_of(colourful(3)), "image/jpeg")},
        headers={"traceparent": f"00-{trace}-{caller}-01", "x-request-id": "order-7"},
        timeout=60,
    )
    assert 200 == answer.status_code, answer.text
    spans = receiver.wait_for(
        lambda all_spans: {"POST /predict", "process job"} <= {each.name for each in all_spans if each.trace == trace}
    )
    mine = {each.name: each for each in spans if each.trace == trace}
    names = {each.id: each.name for each in mine.values()} | {caller: "the caller"}
    assert {
        "POST /predict": ("shoplens-serve", "the caller"),
        "send job": ("shoplens-serve", "POST /predict"),
        "wait in queue": ("shoplens-worker", "send job"),
        "process job": ("shoplens-worker", "send job"),
        "decode": ("shoplens-worker", "process job"),
        "infer": ("shoplens-worker", "process job"),
        "store.put": ("shoplens-serve", "POST /predict"),
        "INSERT predictions": ("shoplens-serve", "POST /predict"),
    } == {each.name: (each.service, names[each.parent]) for each in mine.values() if each.name != "wait for a thread"}
    assert all(each.started_ns <= each.ended_ns for each in mine.values())
    request, row = mine["POST /predict"], mine["INSERT predictions"]
    assert (200, "/predict", "order-7") == tuple(
        request.attributes[name] for name in ("http.response.status_code", "http.route", "shoplens.request_id")
    )
    assert (answer.json()["id"], "sqlite") == (row.attributes["shoplens.prediction"], row.attributes["db.system.name"])
    assert "anna" not in str(mine)
    assert "top_k" not in str(mine)
    for process in ("web", "one"):
        lines = [json.loads(line) for line in fleet.log(process).splitlines() if '"order-7"' in line]
        assert {trace} == {line["trace_id"] for line in lines}


def test_a_request_that_is_not_sampled_leaves_no_trace_anywhere(fleet: ProcessFleet, receiver: OtlpReceiver) -> None:
    """Its caller has decided so; probes and static files are not traced either."""
    for number, flags in ((1, "00"), (2, "01")):
        headers = {"traceparent": f"00-{number:032x}-00f067aa0ba902b7-{flags}"}
        assert (
            200
            == httpx.post(
                f"{fleet.url}/predict", content=jpeg_of(colourful(4)), headers=headers, timeout=60
            ).status_code
        )
    spans = receiver.wait_for(
        lambda all_spans: [each for each in all_spans if each.name == "infer" and each.trace[-1:] == "2"]
    )
    assert [] == [each for each in spans if each.trace == f"{1:032x}"]
    assert set() == {each.name for each in spans if "health" in each.name or "metrics" in each.name}


def test_a_failure_in_a_worker_is_marked_by_its_code(fleet: ProcessFleet, receiver: OtlpReceiver) -> None:
    """Its text may name files, so it is not there. A fault of the photo is none of the server's."""
    trace = f"{3:032x}"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    httpx.post(f"{fleet.url}/predict", content=jpeg_of(colourful(1))[:500], headers=headers, timeout=60)
    spans = receiver.wait_for(
        lambda all_spans: {"POST /predict", "process job"} <= {each.name for each in all_spans if each.trace == trace}
    )
    mine = {each.name: each for each in spans if each.trace == trace}
    assert (True, "image_corrupt") == (mine["process job"].failed, mine["process job"].attributes["error.type"])
    assert (False, 422) == (mine["POST /predict"].failed, mine["POST /predict"].attributes["http.response.status_code"])


def test_a_worker_ends_in_good_order_on_a_signal(fleet: ProcessFleet) -> None:
    """What it has taken is answered, it says goodbye, and its exit status is 0; without it requests are refused."""
    process = fleet.start_worker("leaving")
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(WITHIN_S)
    assert "worker.stopped" in fleet.log("leaving")
    assert 200 == httpx.post(f"{fleet.url}/predict", content=jpeg_of(colourful(1)), timeout=60).status_code


def test_a_killed_worker_is_detected_and_reported(fleet: ProcessFleet) -> None:
    """Readiness fails within seconds, a later request gets Retry-After, and a new worker restores the service."""
    fleet.processes["one"].kill()
    fleet.processes["one"].wait()
    ready = httpx.get(f"{fleet.url}/health/ready", timeout=60)
    give_up_at = time.monotonic() + WITHIN_S
    while ready.status_code == 200 and time.monotonic() < give_up_at:
        time.sleep(0.2)
        ready = httpx.get(f"{fleet.url}/health/ready", timeout=60)
    assert 503 == ready.status_code
    assert "No worker answers" in ready.text
    fleet.start_worker("one")
    assert 200 == httpx.get(f"{fleet.url}/health/ready", timeout=60).status_code


def test_the_doctor_looks_at_the_queue(fleet: ProcessFleet, tmp_path: Path, models_dir: Path) -> None:
    """Who answers for what."""
    url = f"redis://127.0.0.1:{fleet.redis_port}/0"
    findings = json.loads(
        shoplens("doctor", "--json", data_dir=tmp_path, redis_url=url, models_dir=str(models_dir)).stdout
    )
    (queue,) = (each for each in findings if each["part"] == "queue")
    assert queue["caution"]
    assert "no worker of this version does for clothing" in queue["text"]


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0"), ("doctor",)])
def test_a_missing_queue_is_reported_within_seconds(command: tuple[str, ...], tmp_path: Path, models_dir: Path) -> None:
    """Which setting, why, and never the password."""
    began = time.monotonic()
    url = f"redis://:very-secret@127.0.0.1:{free_port()}/0"
    done = shoplens(*command, data_dir=tmp_path, redis_url=url, models_dir=str(models_dir))
    said = f"{done.stdout}{done.stderr}"
    assert (1 if command == ("doctor",) else 5) == done.returncode
    for words in ("redis_url", "does not answer"):
        assert words in " ".join(said.split())
    for words in ("very-secret", "Traceback"):
        assert words not in said
    assert not any("very-secret" in log.read_text() for log in tmp_path.glob("logs/*"))
    assert time.monotonic() - began < WITHIN_S


def test_a_worker_for_a_model_that_no_channel_uses_is_refused(fleet: ProcessFleet, tmp_path: Path) -> None:
    """With those that are used."""
    url = f"redis://127.0.0.1:{fleet.redis_port}/0"
    done = shoplens("worker", "--model", "nix", data_dir=tmp_path, redis_url=url)
    assert status_said(done.stderr) == done.returncode
    assert "clothing" in done.stderr


def test_a_worker_without_a_queue_says_what_to_set(tmp_path: Path) -> None:
    """One sentence."""
    done = shoplens("worker", data_dir=tmp_path)
    assert (6, True) == (done.returncode, "redis_url is not set" in done.stderr)


def test_a_run_on_workers_ends_like_any_other(fleet: ProcessFleet, tmp_path: Path) -> None:
    """Every photo is classified by a worker, none in the process of the run."""
    shop = BatchShop(tmp_path).set_up()
    settings = {
        "SHOPLENS_REDIS_URL": f"redis://127.0.0.1:{fleet.redis_port}/0",
        "SHOPLENS_REDIS_PREFIX": "batch",
        "SHOPLENS_CHANNELS__LOOK__MODEL": "fruit",
        "SHOPLENS_CHANNELS__REVIEWS__MODEL": "fruit",
        "SHOPLENS_CHANNELS__REVIEWS__LABELS": "{}",
    }
    shop.settings.update(settings)
    for number in range(12):
        shop.bring(f"{number}_1.jpg", tiny_photo(number))
    shop.bring("broken_1.jpg", tiny_photo(99)[:200])

    def run(*arguments: str) -> str:
        done = run_command(*arguments, environment=shop.environment(), folder=tmp_path, timeout_s=60)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    run("batch", "ingest")
    with subprocess.Popen(
        [*SHOPLENS, "worker"], env=shop.environment(), cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            run("batch", "run", "--engine", "workers")
        finally:
            worker.terminate()
    states = Counter(item.state for item in shop.items())
    assert (13, 1) == (sum(states.values()), states[ItemState.QUARANTINED])
    assert {ItemState.DONE, ItemState.NEEDS_REVIEW, ItemState.QUARANTINED} >= set(states)
