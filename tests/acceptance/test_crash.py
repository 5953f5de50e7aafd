"""Killed without warning: what was answered is in the database, and the next start goes on."""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from pathlib import Path

import httpx

from tests.conftest import RunningServer, colourful, jpeg_of, running_server

CLIENTS = 6
PHOTOS = [jpeg_of(colourful(seed)) for seed in range(8)]


def load_until_it_dies(server: RunningServer, answered: list[str]) -> list[threading.Thread]:
    """Clients that post photos and note the ids that they were given."""

    def client(index: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as connection:
            try:
                for number in range(10_000):
                    answer = connection.post("/predict", content=PHOTOS[(index + number) % len(PHOTOS)])
                    if answer.status_code == 200:
                        answered.append(answer.json()["id"])
            except httpx.HTTPError:
                return

    threads = [threading.Thread(target=client, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads


def test_no_answered_prediction_is_lost_by_a_kill(tmp_path: Path, models_dir: Path) -> None:
    """Three kills at random moments under load; every id that a client was given is found again, and so is a photo."""
    answered: list[str] = []
    settings = {"channels__look__keep": "original"}
    for _ in range(3):
        with running_server(tmp_path, models_dir, **settings) as server:
            before = len(answered)
            threads = load_until_it_dies(server, answered)
            while len(answered) < before + 20:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.2))
            os.kill(server.process.pid, signal.SIGKILL)
            for thread in threads:
                thread.join(30)
    assert len(answered) == len(set(answered))
    with running_server(tmp_path, models_dir, **settings) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            lost = [each for each in answered if client.get(f"/predictions/{each}").status_code != 200]
        shown = httpx.get(f"{server.url}/predictions/{answered[-1]}/image?size=original", timeout=60)
        assert shown.content in PHOTOS
    assert [] == lost


def test_a_stopping_server_answers_what_it_accepted(tmp_path: Path, models_dir: Path) -> None:
    """After SIGTERM no request that had arrived is dropped, and the process ends by itself."""
    photo = jpeg_of(colourful(1, width=4_000, height=3_000))
    with running_server(tmp_path, models_dir, threads="1") as server:
        connections = [http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60) for _ in range(40)]
        for connection in connections:
            connection.request("POST", "/predict", photo)
        httpx.get(f"{server.url}/health/live", timeout=30)  # accepted after the others, so all of them have arrived
        server.process.send_signal(signal.SIGTERM)
        statuses = [connection.getresponse().status for connection in connections]
        for connection in connections:
            connection.close()
        assert server.process.wait(30) in {0, -signal.SIGTERM}
    assert [200] * 40 == statuses
