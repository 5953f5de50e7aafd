"""The process of a long command: its logs, its signals, its event loop and its memory.

Events are logged to standard error and the log folder; starts of jobs also to `trigger.log`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import typer

from shoplens.cli.command import EXIT_FAILED, EXIT_INTERRUPTED
from shoplens.cli.output import manner
from shoplens.settings import Settings
from shoplens.telemetry.logs import bind_process_fields, logging_to
from shoplens.telemetry.tracing import tracing
from shoplens.telemetry.trigger_log import Job, Trigger, failed, record_trigger

Result = TypeVar("Result")

_NAMED: Final = ("channel", "run")
"""Arguments of a job that every line of its process has."""
_STOPPED: Final = frozenset({128 + signal.SIGINT, 128 + signal.SIGTERM})
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MMAP_THRESHOLD_BYTES: Final = 1 << 28
_TRIM_THRESHOLD_BYTES: Final = 1 << 29
_SWITCH_INTERVAL_S: Final = 0.0005
_YOUNGER_PER_FULL_COLLECTION: Final = 100


@contextmanager
def process_logs(settings: Settings, *, command: str, quiet_terminal: bool = False) -> Iterator[None]:
    """Log the block to standard error and to the log folder.

    With `quiet_terminal`, a terminal shows warnings and errors only. Raises Misconfigured without a data directory,
    and ExtraMissing where `tracing` is on and cannot be.
    """
    settings.make_data_dir()
    with logging_to(
        settings.log_folder, log_format=settings.log_format, level=settings.log_level, quiet_terminal=quiet_terminal
    ):
        bind_process_fields(command=command, pid=os.getpid())
        with tracing(on=settings.tracing, service=f"shoplens-{command.partition(' ')[0]}"):
            yield


@contextmanager
def logged_job(
    settings: Settings, *, command: str, job: Job, by: str, arguments: Mapping[str, object]
) -> Iterator[Trigger]:
    """Log the block as `process_logs` does, and record its start and end in `trigger.log`.

    Every line has the `channel` and the `run` among the arguments. A terminal shows warnings only, unless --verbose.

    A SIGTERM without a handler of its own unwinds the block like an exception, so that the end is recorded; the
    process then ends by that signal.
    """
    with _sigterm_unwinds(), process_logs(settings, command=command, quiet_terminal=not manner().verbose):
        bind_process_fields(**{name: str(arguments[name]) for name in _NAMED if arguments.get(name)})
        with record_trigger(settings.log_folder, job=job, by=by, arguments=arguments, describe=_outcome) as trigger:
            bind_process_fields(trigger=trigger.id)
            yield trigger


def run_on_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run`, on uvloop where it exists: it does not for Windows."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep freed memory: decoding reuses warm pages instead of asking the kernel each time.

    Does nothing elsewhere. Returns whether it took effect.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES), mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    return all(done)


def switch_threads_often() -> None:
    """Let a thread that wants the interpreter have it after half a millisecond instead of five.

    The stages of a photo release and take it many times. Beside four threads that run Python all the time a photo took
    240 ms, and takes 106.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def collect_all_rarely() -> None:
    """Never walk again what is loaded now, and all that came since ten times more rarely than Python would.

    Nearly all garbage is found young. A full collection keeps every thread waiting: 40 to 80 ms each, up to twice a
    second, in a server that sends ten tables at once (`bench/results.md`).
    """
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], _YOUNGER_PER_FULL_COLLECTION)


def _outcome(error: BaseException) -> dict[str, Any]:
    """The outcome of a job that ended with `error`; an exit is described by its status alone."""
    match error:
        case typer.Exit():
            status = error.exit_code
        case Exception():
            return failed(error)
        case KeyboardInterrupt():
            status = EXIT_INTERRUPTED
        case SystemExit(code=int(status)):
            pass
        case SystemExit(code=code):
            status = EXIT_FAILED if code else 0
        case _:
            status = EXIT_FAILED
    return {"outcome": "done" if status == 0 else "stopped" if status in _STOPPED else "failed", "exit_status": status}


class _Terminated(SystemExit):
    """SIGTERM was received."""


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def unwind(number: int, frame: object) -> NoReturn:
        del frame
        raise _Terminated(128 + number)

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
