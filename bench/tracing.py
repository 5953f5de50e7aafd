"""What traces cost per photo: while they are off, and while all of them are sent to a receiver.

    python -m bench.tracing [--photos 80]

Processor times of this process with its thread that encodes and sends, medians of several rounds, so that a busy
machine matters little. A photo is one of 1 MP on the default model, through the use case that `POST /predict` calls;
its spans are those of such a request. The receiver is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from bench.__main__ import heading
from bench.monitoring import MODEL, photo_ms
from shoplens.bundles.builtin import prepare_builtin
from shoplens.db import upgrade
from shoplens.platform.server import build_platform
from shoplens.serving.cores import usable_cores
from shoplens.settings import read_settings
from shoplens.telemetry.tracing import past_span, span, trace, tracing

_REQUESTS: Final = 1_000
_ROUNDS: Final = 5
_EMBEDDED: Final = ("decode", "infer", "store.put", "INSERT predictions")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=80)
    options = parser.parse_args()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_builtin(MODEL, folder / "models")
        upgrade(f"sqlite:///{folder}/shoplens.db")
        channels = {"look": {"model": MODEL}, "reviews": {"model": MODEL, "labels": {}}, "returns": {"model": MODEL}}
        platform = build_platform(read_settings(data_dir=folder, models_dir=folder / "models", channels=channels))
        photo = asyncio.run(photo_ms(platform, options.photos))
    off = statistics.median(_requests_ms() for _ in range(_ROUNDS))
    rounds = []
    with _receiver() as url:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        for _ in range(_ROUNDS):
            started = time.process_time()
            with tracing(on=True, service="bench"):
                _requests_ms()
            rounds.append(1000 * (time.process_time() - started) / _REQUESTS)
    on = statistics.median(rounds)
    print(f"\nA photo takes {photo:.2f} ms.\n\n| traces | us per photo | of the photo |\n|---|---|---|")
    for what, cost in (("off", off), ("on, all of them, sent", on)):
        print(f"| {what} | {1000 * cost:.1f} | {cost / photo:.2%} |")


def _requests_ms() -> float:
    """What the spans of one request take, without the thread that sends them."""
    started = time.process_time()
    for number in range(_REQUESTS):
        about = {"http.request.method": "POST", "url.scheme": "http", "shoplens.request_id": f"{number:016x}"}
        with trace("POST", about, kind="server") as block:
            past_span("wait for a thread", 0.0002)
            for name in _EMBEDDED:
                with span(name, {"shoplens.bytes": number, "shoplens.model": MODEL}):
                    pass
            block.note({"http.response.status_code": 200, "http.route": "/predict"}, name="POST /predict")
        if number % 100 == 99:  # as fast as photos come, not faster: the queue of spans drops what is too much
            time.sleep(0.1)
    return 1000 * (time.process_time() - started) / _REQUESTS


@contextmanager
def _receiver() -> Iterator[str]:
    """A process that takes whatever it is sent."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(there,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}"
    process.terminate()
    process.join()


def _receive(said: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    said.send(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
