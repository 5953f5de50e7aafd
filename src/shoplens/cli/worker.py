"""`shoplens worker`: load the models, announce, take jobs until a signal, finish what was taken."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import structlog
from rich.console import Console

from shoplens.cli.allocator import keep_freed_memory
from shoplens.cli.options import settings_for
from shoplens.cli.process import process_logs
from shoplens.cli.worker_http import WorkerHttp
from shoplens.platform.parts import build_sandbox
from shoplens.platform.workers import WorkerParts, build_worker
from shoplens.settings import Settings

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_log: Final = structlog.get_logger("shoplens.worker")


def run_worker(*, models: tuple[str, ...], data_dir: Path | None) -> None:
    """Work until a signal. Raises QueueUnavailable, Misconfigured, ExtraMissing, ModelNotFound and BundleError."""
    settings = settings_for(data_dir)
    with process_logs(settings, command="worker"):
        keep_freed_memory()
        _run_on_loop(_work(settings, models, Console(stderr=True)))


async def _work(settings: Settings, models: tuple[str, ...], console: Console) -> None:
    with console.status("Starting") as status:
        parts = build_worker(settings, models=models, sandbox=build_sandbox(settings), progress=status.update)
    try:
        with WorkerHttp(settings.worker_host, settings.worker_port, parts):
            gc.freeze()
            await _until_signal(parts, console)
    finally:
        await parts.engine.close()


async def _until_signal(parts: WorkerParts, console: Console) -> None:
    """A first signal ends it in good order; a second one ends the process as it always does."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        parts.worker.stop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    names = ", ".join(str(each.ref) for each in parts.engine.served())
    console.print(f"Shoplens worker is ready: {names}", highlight=False)
    _log.info("worker.ready", models=names)
    await parts.worker.run()
    _log.info("worker.stopped")


def _run_on_loop(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # not there on Windows
        asyncio.run(work)
    else:
        uvloop.run(work)
