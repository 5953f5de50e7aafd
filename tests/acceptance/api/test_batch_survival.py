"""A run that was started over HTTP is finished whatever is killed: the client, the server or the run's own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.batch_server import (
    FRUIT,
    TIMEOUT_S,
    clear_photo,
    dim_photo,
    ended,
    items_of,
    models_with_fruit,
    run_through,
    send,
    torn_photo,
)
from tests.conftest import RunningServer, running_server

PHOTOS = {f"{number}_1.jpg": clear_photo(number) for number in range(1, 41)}
PHOTOS |= {f"{number}_1.jpg": dim_photo(number) for number in range(41, 61)}
PHOTOS |= {"61_1.jpg": torn_photo(61)}
COUNTS = {
    "waiting": 0,
    "processing": 0,
    "done": 40,
    "needs_review": 20,
    "quarantined": 1,
    "duplicate": 0,
    "dismissed": 0,
}


@pytest.fixture
def fruit_models(tmp_path: Path, models_dir: Path) -> Path:
    """With the tiny model."""
    return models_with_fruit(tmp_path / "models", models_dir)


@pytest.fixture(autouse=True)
def _end_run_processes(tmp_path: Path) -> Iterator[None]:
    """Kill the processes that a failed test left."""
    yield
    for process in run_processes(tmp_path):
        process.kill()


def run_processes(root: Path) -> list[psutil.Process]:
    """The processes that work on runs of this test, whatever their parent is."""
    found = []
    for process in psutil.process_iter():
        try:
            if "batch" in process.cmdline() and process.environ().get("SHOPLENS_DATA_DIR", "").startswith(str(root)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(holds: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def client_of(server: RunningServer) -> httpx.Client:
    """A client that believes in no proxy."""
    return httpx.Client(base_url=server.url, timeout=60, trust_env=False)


def test_a_run_continues_when_the_server_is_killed(tmp_path: Path, fruit_models: Path) -> None:
    """The run is a process of its own; the next server shows it finished, and another run can start."""
    with running_server(tmp_path / "data", fruit_models, **FRUIT) as server, client_of(server) as client:
        send(client, PHOTOS)
        run_id = client.post("/batch/runs").json()["id"]
        refused = client.post("/batch/runs")
        assert (409, "run_in_progress") == (refused.status_code, refused.json()["code"])
        until(lambda: len(run_processes(tmp_path)) == 1)
        server.process.kill()
        server.process.wait()
    until(lambda: not run_processes(tmp_path))
    with running_server(tmp_path / "data", fruit_models, **FRUIT) as server, client_of(server) as client:
        run = client.get(f"/batch/runs/{run_id}").json()
        assert ("finished", COUNTS) == (run["state"], run["counts"])
        nothing = client.post("/batch/runs")
        assert (409, "nothing_waiting") == (nothing.status_code, nothing.json()["code"])
        assert run_id == client.get("/batch/runs").json()["runs"][0]["id"]
        send(client, {"new.jpg": clear_photo(4_000)})
        assert 1 == run_through(client)["planned"]


def test_a_new_server_resumes_a_run_that_was_killed_too(tmp_path: Path, fruit_models: Path) -> None:
    """As after a loss of power; nothing is lost and nothing is counted twice. Two servers at once do no harm."""
    slow = {**FRUIT, "batch__commit_items": "1"}
    with running_server(tmp_path / "data", fruit_models, **slow) as server, client_of(server) as client:
        send(client, PHOTOS)
        run_id = client.post("/batch/runs").json()["id"]
        until(lambda: client.get(f"/batch/runs/{run_id}").json()["settled"] > 2)
        (process,) = run_processes(tmp_path)
        server.process.kill()
        process.kill()
        server.process.wait()
    until(lambda: not run_processes(tmp_path))
    with (
        running_server(tmp_path / "data", fruit_models, **slow) as server,
        running_server(tmp_path / "data", fruit_models, **slow),
        client_of(server) as client,
    ):
        run = ended(client, run_id)
        assert COUNTS == run["counts"]
        assert 60 == sum(item["prediction_id"] is not None for item in items_of(client, run_id, limit="200"))
        until(lambda: not run_processes(tmp_path))
        with (tmp_path / "data" / "server.log").open() as log:
            assert "run.resumed" in log.read()


def test_a_server_resumes_a_run_that_was_killed(tmp_path: Path, fruit_models: Path) -> None:
    """By itself after a few seconds, at once when asked; meanwhile it says plainly that the process has ended."""
    slow = {**FRUIT, "batch__commit_items": "1"}
    with running_server(tmp_path / "data", fruit_models, **slow) as server, client_of(server) as client:
        send(client, PHOTOS)
        run_id = client.post("/batch/runs").json()["id"]
        until(lambda: client.get(f"/batch/runs/{run_id}").json()["settled"] > 2)
        (process,) = run_processes(tmp_path)
        process.kill()
        until(lambda: client.get(f"/batch/runs/{run_id}").json()["worker"] == "gone")
        page = client.get(f"/console/batch/returns/{run_id}").text
        assert "The worker stopped. No data was lost; resume to continue." in page
        resumed = client.post("/batch/runs")
        assert (202, run_id) == (resumed.status_code, resumed.json()["id"])
        assert COUNTS == ended(client, run_id)["counts"]
