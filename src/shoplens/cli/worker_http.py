"""The small HTTP server of a worker, for probes and Prometheus: /health/live, /health/ready and /metrics."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

import orjson

from shoplens.errors import Misconfigured
from shoplens.platform.workers import WorkerParts
from shoplens.telemetry.metrics import EXPOSITION_TYPE

_TIMEOUT_S: Final = 5


class WorkerHttp:
    """Answers on a thread of its own while the block runs; `port` None means not at all. Raises Misconfigured."""

    def __init__(self, host: str, port: int | None, parts: WorkerParts) -> None:
        self._server = None if port is None else _bound(host, port, parts)

    @property
    def port(self) -> int | None:
        """The port that it listens on."""
        return None if self._server is None else self._server.server_port

    def __enter__(self) -> Self:
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, name="worker-http", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _bound(host: str, port: int, parts: WorkerParts) -> ThreadingHTTPServer:
    try:
        server = ThreadingHTTPServer((host, port), _handler(parts))
    except OSError as error:
        raise Misconfigured(
            f"Cannot listen on {host}:{port}: {error.strerror}. Set worker_port to another one."
        ) from error
    server.daemon_threads = True
    return server


def _handler(parts: WorkerParts) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/health/live":
                    self._answer(HTTPStatus.OK, "application/json", b'{"status":"live"}')
                case "/health/ready":
                    self._ready()
                case "/metrics":
                    self._answer(HTTPStatus.OK, EXPOSITION_TYPE, parts.metrics.exposition())
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, "application/json", b'{"status":"not found"}')

        def log_message(self, format: str, *args: Any) -> None:
            """Probes are not worth a line."""

        def _ready(self) -> None:
            fault = parts.worker.fault
            status = HTTPStatus.OK if fault is None else HTTPStatus.SERVICE_UNAVAILABLE
            said = {"status": "ready" if fault is None else "not ready", "fault": fault}
            self._answer(status, "application/json", orjson.dumps(said))

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
