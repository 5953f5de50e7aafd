"""Webhooks over HTTP, by the guide, and through a kill of the server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import RunningServer, running_server

GUIDE = (Path(__file__).parents[3] / "docs" / "how-to" / "send-webhooks.md").read_text(encoding="utf-8")
PATIENCE_S = 60


def test_the_guide_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """With this server's address in place of the usual one."""
    script = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert json.loads((tmp_path / "endpoint.json").read_text())["secret"].startswith("whsec_")
    assert '"type":"webhook.test"' in done.stdout


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://127.0.0.1/"}, "endpoint_invalid"),
        ({"url": "http://shop.example/"}, "endpoint_invalid"),
        ({"url": "https://shop.example/", "events": ["photo.sold"]}, "endpoint_invalid"),
        ({"url": "https://shop.example/", "secret": "whsec_short"}, "endpoint_invalid"),
        ({"address": "https://shop.example/"}, "request_invalid"),
    ],
)
def test_an_endpoint_that_could_never_work_is_refused(server: RunningServer, body: dict[str, Any], code: str) -> None:
    """With a code and a sentence."""
    answer = httpx.post(f"{server.url}/webhooks", json=body)
    assert (422, code) == (answer.status_code, answer.json()["code"])


@pytest.fixture
def received() -> Iterator[tuple[str, list[str]]]:
    """The address of a slow receiver, and the ids of the events that it answered."""
    ids: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(0.05)
            self.send_response(204)
            self.end_headers()
            ids.append(self.headers["webhook-id"])

        def log_message(self, *_: Any) -> None: ...

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.daemon_threads = True
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_port}/hooks", ids
    receiver.shutdown()
    receiver.server_close()


def test_no_event_is_lost_when_the_server_is_killed(
    received: tuple[str, list[str]], tmp_path: Path, models_dir: Path
) -> None:
    """Each of twenty events arrives, in spite of two kills while they are sent."""
    url, ids = received
    events: set[str] = set()
    for kill in (True, True, False):
        with running_server(tmp_path / "data", models_dir, webhook_networks="127.0.0.0/8") as server:
            if not events:
                endpoint = httpx.post(f"{server.url}/webhooks", json={"url": url}).json()["id"]
                for _ in range(20):
                    httpx.post(f"{server.url}/webhooks/{endpoint}/test").raise_for_status()
                page = httpx.get(f"{server.url}/webhooks/deliveries", params={"limit": 200}).json()
                events = {each["event_id"] for each in page["items"]}
                already = 0
            give_up_at = time.monotonic() + PATIENCE_S
            while len(set(ids)) < (already + 3 if kill else 20) and time.monotonic() < give_up_at:
                time.sleep(0.01)
            already = len(set(ids))
            if kill:
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                _end_leases(tmp_path / "data")
    assert 20 == len(events)
    assert events == set(ids)


def _end_leases(data_dir: Path) -> None:
    """As time would do within a minute."""
    script = (
        "import sys; from shoplens.db.sqlite import driver; c = driver.connect(sys.argv[1]);"
        "c.execute('UPDATE webhook_deliveries SET lease_until = NULL'); c.commit()"
    )
    subprocess.run([sys.executable, "-c", script, str(data_dir / "shoplens.db")], check=True)
