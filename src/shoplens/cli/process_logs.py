"""Let a command log to standard error and to the log folder; a SIGTERM still closes the files before it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from shoplens.settings import Settings
from shoplens.telemetry.log_files import APP_LOG, LogFolder, log_folder
from shoplens.telemetry.logs import configure_logs, tell_always


@contextmanager
def process_logs(settings: Settings, *, command: str, quiet_terminal: bool = False) -> Iterator[LogFolder]:
    """Every event of the block, and of the process after it as far as standard error goes, is logged.

    With `quiet_terminal` a person at a terminal sees warnings only. A SIGTERM that nobody else handles unwinds the
    block like an exception; when the files are closed, the process ends by that signal as it would have done.
    """
    kept = {"file_bytes": settings.log_file_bytes, "kept": settings.log_files}
    with _sigterm_unwinds(), log_folder(settings.effective_log_dir, **kept) as folder:
        configure_logs(
            log_format=settings.log_format,
            level=settings.log_level,
            file=folder.file(APP_LOG).put,
            quiet_terminal=quiet_terminal,
        )
        tell_always(command=command, pid=os.getpid())
        yield folder


class _Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: object) -> NoReturn:
    del frame
    raise _Terminated(128 + number)
