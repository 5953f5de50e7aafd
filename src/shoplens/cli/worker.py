"""`shoplens worker`: load the models, take jobs until a signal, answer those that were taken."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from shoplens.cli.command import settings_for
from shoplens.cli.process import collect_all_rarely, keep_freed_memory, process_logs, run_on_loop, switch_threads_often
from shoplens.errors import Misconfigured
from shoplens.platform.parts import build_sandbox
from shoplens.platform.workers import WorkerParts, build_worker
from shoplens.settings import Settings
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import EXPOSITION_TYPE

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_HTTP_TIMEOUT_S: Final = 5
_log: Final = get_logger("shoplens.worker")


def run_worker(*, models: tuple[str, ...], data_dir: Path | None) -> None:
    """Work until a signal. Raises QueueUnavailable, Misconfigured, ExtraMissing, ModelNotFound and BundleError."""
    settings = settings_for(data_dir)
    with process_logs(settings, command="worker"):
        keep_freed_memory()
        switch_threads_often()
        run_on_loop(_work(settings, models, Console(stderr=True)))


async def _work(settings: Settings, models: tuple[str, ...], console: Console) -> None:
    """The first signal stops the worker gracefully; a second one ends the process at once."""
    with console.status("Starting") as status:
        parts = build_worker(settings, models=models, sandbox=build_sandbox(settings), progress=status.update)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        parts.worker.stop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    try:
        with _probes(settings, parts):
            collect_all_rarely()
            for number in _SIGNALS:
                loop.add_signal_handler(number, stop)
            loop.add_signal_handler(signal.SIGHUP, parts.follower.wake)
            names = ", ".join(str(each.ref) for each in parts.engine.served())
            console.print(f"Shoplens worker is ready: {names}", highlight=False)
            _log.info("worker.ready", models=names)
            await parts.worker.run()
            _log.info("worker.stopped")
    finally:
        await asyncio.to_thread(parts.follower.close)
        await parts.engine.close()


@contextmanager
def _probes(settings: Settings, parts: WorkerParts) -> Iterator[None]:
    """Answer HTTP requests of `ProbeHandler` on `worker_port`, if it is set. Raises Misconfigured."""
    if settings.worker_port is None:
        yield
        return
    try:
        server = ThreadingHTTPServer((settings.worker_host, settings.worker_port), partial(ProbeHandler, parts))
    except OSError as error:
        raise Misconfigured(
            f"Cannot listen on {settings.worker_host}:{settings.worker_port}: {error.strerror}. "
            "Set worker_port to another port."
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="worker-http", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class ProbeHandler(BaseHTTPRequestHandler):
    """Answers /health/live, /health/ready and /metrics."""

    timeout = _HTTP_TIMEOUT_S

    def __init__(self, parts: WorkerParts, *connection: Any) -> None:
        self._parts = parts
        super().__init__(*connection)

    def do_GET(self) -> None:
        """See BaseHTTPRequestHandler."""
        fault = self._parts.worker.fault
        status, content_type = HTTPStatus.OK, "application/json"
        match self.path.partition("?")[0]:
            case "/health/live":
                body = b'{"status":"live"}'
            case "/health/ready":
                status = HTTPStatus.OK if fault is None else HTTPStatus.SERVICE_UNAVAILABLE
                body = orjson.dumps({"status": "ready" if fault is None else "not ready", "fault": fault})
            case "/metrics":
                content_type, body = EXPOSITION_TYPE, self._parts.metrics.exposition()
            case _:
                status, body = HTTPStatus.NOT_FOUND, b'{"status":"not found"}'
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not logged."""
