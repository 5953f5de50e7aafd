"""Views of stored photos cost a server little, however many are asked for at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

from shoplens.testing.cost import Meter
from shoplens.testing.hostile import encoded
from tests.conftest import running_server

AT_ONCE = 8
EXCESS = 36


def test_views_of_large_photos_are_made_few_at_a_time_and_once_and_excess_requests_wait(
    tmp_path: Path, models_dir: Path
) -> None:
    """Eight views took 5.5 GB; now two are made at a time, and the second request of each only reads."""
    photos = [encoded(Image.new("RGB", (3_200, 2_600), (shade, 90, 30)), "png") for shade in range(40, 40 + AT_ONCE)]
    keep = {"channels__look__keep": "original"}
    with (
        running_server(tmp_path / "data", models_dir, **keep) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        ThreadPoolExecutor(EXCESS) as threads,
    ):
        addresses = [f"/predictions/{client.post('/predict', content=each).json()['id']}/image" for each in photos]
        waits = Waits(server.url)
        with Meter(server.process.pid) as meter, waits:
            first = list(threads.map(client.get, addresses))
        assert {200} == {answer.status_code for answer in first}
        assert meter.cost.megabytes < 250
        assert waits.answered > 0
        with Meter(server.process.pid) as meter:
            assert [answer.content for answer in first] == [client.get(address).content for address in addresses]
        assert meter.cost.cpu_s < 0.5
        assert meter.cost.megabytes < 50
        for stored in (server.data_dir / "store").rglob("*.view.jpg"):
            stored.unlink()
        refused = [answer for answer in threads.map(client.get, [addresses[0]] * EXCESS) if answer.status_code != 200]
        assert {429} >= {answer.status_code for answer in refused}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert 200 == client.get(addresses[0]).status_code


class Waits:
    """A second client that asks whether the server lives while something else goes on."""

    def __init__(self, url: str) -> None:
        self.answered = 0
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while not self._ended.is_set():
                assert 200 == client.get("/health/live").status_code
                self.answered += 1
                time.sleep(0.01)
