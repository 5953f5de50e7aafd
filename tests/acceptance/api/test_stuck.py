"""A server whose threads are stuck says so, and says when they are not any more."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from shoplens.testing.cost import family
from shoplens.testing.hostile import encoded
from shoplens.testing.hostile import photo as picture
from tests.conftest import colourful, jpeg_of, running_server

PATIENCE_S = 60


def test_readiness_fails_while_photos_wait_and_none_is_finished_and_recovers(tmp_path: Path, models_dir: Path) -> None:
    """The only thread waits for a decoder that hangs; it is ended after its time, and the photos are answered."""
    with running_server(tmp_path / "data", models_dir, threads="1", deadline_s="50") as server:
        decoders = [pid for pid in family(server.process.pid) if is_decoder(pid)]
        assert decoders
        with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(2) as threads:
            for pid in decoders:
                os.kill(pid, signal.SIGSTOP)
            hanging = threads.submit(
                httpx.post, f"{server.url}/predict", content=encoded(picture(), "tiff"), timeout=60
            )
            time.sleep(0.5)
            waiting = threads.submit(httpx.post, f"{server.url}/predict", content=jpeg_of(colourful(1)), timeout=60)
            stuck = until_status(client, 503)
            assert "engine_stuck" in stuck.text or "finished" in stuck.text
            assert 200 == client.get("/health/live").status_code
            assert 200 == until_status(client, 200).status_code
            assert 422 == hanging.result().status_code
            assert 200 == waiting.result().status_code


def is_decoder(pid: int) -> bool:
    """Whether this is a process of the sandbox that decodes, not the one that forks them."""
    status = Path(f"/proc/{pid}/status").read_text()
    parent = int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])
    return "sandbox_process" in Path(f"/proc/{parent}/cmdline").read_text()


def until_status(client: httpx.Client, status: int) -> httpx.Response:
    """The first answer of the readiness probe with this status."""
    give_up_at = time.monotonic() + PATIENCE_S
    while (answer := client.get("/health/ready")).status_code != status:
        assert time.monotonic() < give_up_at, f"no {status} within {PATIENCE_S} s: {answer.text}"
        time.sleep(0.2)
    return answer
