"""From a figure of ours over a real Prometheus and a real Alertmanager to a webhook, and back when all is well."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from servers.prometheus import (
    ALERTMANAGER,
    PROMETHEUS,
    is_missing,
    running_alertmanager,
    running_prometheus,
    wait_until,
)
from shoplens.batch.status import RunStatus, StatusMetrics
from shoplens.telemetry.metrics import EXPOSITION_TYPE, Metrics
from tests.deploy.files import DEPLOY, load

MISSING = is_missing(PROMETHEUS, ALERTMANAGER)
pytestmark = pytest.mark.skipif(MISSING is not None and "CI" not in os.environ, reason=str(MISSING))


@dataclass
class Receiver:
    """Notes what Alertmanager posts."""

    url: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def has(self, status: str, name: str) -> bool:
        """Whether an alert of this name came with this status."""
        return any(each["status"] == status and each["labels"]["alertname"] == name for each in list(self.alerts))


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    """A web server on a free port; it may be ended before the block is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server that takes everything."""
    noted = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            noted.alerts += json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"]
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler) as server:
        noted.url = f"http://127.0.0.1:{server.server_port}/"
        yield noted


@pytest.fixture
def shop() -> Iterator[tuple[dict[str, RunStatus], str, ThreadingHTTPServer]]:
    """The metrics of a web server at an address of their own, and the runs that they show."""
    runs = {"returns": RunStatus(waiting=0)}
    metrics = Metrics()
    now = iter(range(0, 1_000_000, 10))
    status = StatusMetrics(lambda: runs, metrics, monotonic=lambda: float(next(now)))
    metrics.before_scrape(status)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.exposition()
            self.send_response(200)
            self.send_header("content-type", EXPOSITION_TYPE)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler) as server:
        yield runs, f"127.0.0.1:{server.server_port}", server
    status.close()


def quick_rules(folder: Path) -> Path:
    """The shipped rules, whose waiting times are a moment."""
    rules = load(DEPLOY / "prometheus" / "rules.yml")
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "400ms"
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump(rules), encoding="utf-8")
    return path


def test_an_alert_fires_reaches_people_and_is_resolved(
    receiver: Receiver, shop: tuple[dict[str, RunStatus], str, ThreadingHTTPServer], tmp_path: Path
) -> None:
    """With the sentences, the severity and the runbook of the shipped rules, over the shipped routes."""
    runs, target, web = shop
    config = load(DEPLOY / "prometheus" / "alertmanager.yml")
    config["receivers"] = [{"name": "people", "webhook_configs": [{"url": receiver.url}]}]
    config["route"] |= {"group_wait": "100ms", "group_interval": "300ms"}
    config["global"] = {"resolve_timeout": "1s"}
    labels = {"shoplens_url": "https://photos.shop.example"}
    with (
        running_alertmanager(tmp_path / "alertmanager", config) as alertmanager,
        running_prometheus(
            tmp_path / "prometheus", {"shoplens-web": target}, rules=quick_rules(tmp_path),
            alertmanager=alertmanager.address, external_labels=labels,
        ) as prometheus,
    ):  # fmt: skip
        wait_until(lambda: bool(prometheus.query('shoplens_batch_waiting{channel="returns"}')), "a scrape")
        assert [] == [each for each in prometheus.alerts() if each["labels"]["alertname"] == "ShoplensBatchMissing"]
        runs["returns"] = RunStatus(waiting=1_200)
        wait_until(lambda: receiver.has("firing", "ShoplensBatchMissing"), "the alert reaches the receiver")
        told = next(each for each in receiver.alerts if each["labels"]["alertname"] == "ShoplensBatchMissing")
        assert ("warning", "returns") == (told["labels"]["severity"], told["labels"]["channel"])
        assert "Items of returns have waited" in told["annotations"]["summary"]
        assert "shoplens batch run --channel returns" in told["annotations"]["action"]
        runbook = "https://photos.shop.example/console/monitoring/alerts/ShoplensBatchMissing"
        assert runbook == told["annotations"]["runbook_url"]
        runs["returns"] = RunStatus(waiting=0)
        wait_until(lambda: receiver.has("resolved", "ShoplensBatchMissing"), "the end reaches the receiver")
        web.shutdown()
        web.server_close()
        wait_until(lambda: receiver.has("firing", "ShoplensWebDown"), "a server that is down reaches the receiver")
