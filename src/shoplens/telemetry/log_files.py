"""Keep log lines in files that rotate by size and that several processes share; who logs never waits for the disk."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Final

import orjson
import structlog

APP_LOG: Final = "app.log"
TRIGGER_LOG: Final = "trigger.log"

GATHER_S: Final = 0.2
"""How long lines gather before they are written together: a lock and a write per line would cost more than the line."""
_WAITING_LINES: Final = 10_000
_LINES_PER_WRITE: Final = 200
_FLUSH_S: Final = 2.0
_CLOSE_S: Final = 5.0

_log = structlog.get_logger(__name__)


class LogFolder:
    """A folder of log files, each at most about `file_bytes` long and followed by `kept` older ones."""

    def __init__(self, path: Path, *, file_bytes: int, kept: int, waiting_lines: int = _WAITING_LINES) -> None:
        self._path = path
        self._file_bytes = file_bytes
        self._kept = kept
        self._waiting_lines = waiting_lines
        self._files: dict[str, LogFile] = {}
        self._troubled: set[str] = set()

    def file(self, name: str, *, gather_s: float = GATHER_S) -> LogFile:
        """Open a file of the folder for writing; both are made with the first line."""
        path = self._path / name
        opened = LogFile(
            lambda: open_rotating(path, file_bytes=self._file_bytes, kept=self._kept),
            on_trouble=lambda reason: self._note(name, reason),
            gather_s=gather_s,
            waiting_lines=self._waiting_lines,
        )
        self._files[name] = opened
        return opened

    def close(self) -> None:
        """Write what still waits, for some seconds at most."""
        for each in self._files.values():
            each.close()

    def _note(self, name: str, reason: str | None) -> None:
        """Warn once, however many files and lines it concerns, until everything could be written again."""
        if reason is None:
            self._troubled.discard(name)
            return
        known = bool(self._troubled)
        self._troubled.add(name)
        if not known:
            _log.warning("log_file.unwritable", path=str(self._path / name), reason=reason)


@contextmanager
def log_folder(path: Path, *, file_bytes: int, kept: int) -> Iterator[LogFolder]:
    """A folder of log files that is closed at the end of the block."""
    folder = LogFolder(path, file_bytes=file_bytes, kept=kept)
    try:
        yield folder
    finally:
        folder.close()


class LogFile:
    """Lines on their way to one file. `put` neither waits nor fails; a thread writes what has gathered.

    At most `waiting_lines` wait. What cannot be written is counted, and the count follows as a line of its own.
    """

    def __init__(
        self,
        open_file: Callable[[], logging.Handler],
        *,
        on_trouble: Callable[[str | None], None],
        gather_s: float,
        waiting_lines: int,
    ) -> None:
        self._open = open_file
        self._handler: logging.Handler | None = None
        self._on_trouble = on_trouble
        self._gather_s = gather_s
        self._waiting: deque[bytes | Event] = deque()
        self._waiting_lines = waiting_lines
        self._lost = 0
        self._losing = Lock()
        self._arrived = Event()
        self._closing = Event()
        self._thread = Thread(target=self._work, name="log-file", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Let a line be written, with or without its newline; after `close` nothing is."""
        if self._closing.is_set():
            return
        if len(self._waiting) >= self._waiting_lines:
            self._lose(1, "lines come faster than they can be written")
            return
        self._waiting.append(line)
        if not self._arrived.is_set():
            self._arrived.set()

    def flush(self, timeout_s: float = _FLUSH_S) -> None:
        """Wait until what was put so far is written, or lost, or `timeout_s` is over."""
        written = Event()
        self._waiting.append(written)
        self._arrived.set()
        written.wait(timeout_s)

    def close(self) -> None:
        """Write what waits, then end; a file that hangs is given up after some seconds."""
        self._closing.set()
        self._arrived.set()
        self._thread.join(_CLOSE_S)

    def _work(self) -> None:
        while not (self._closing.is_set() and not self._waiting):
            self._arrived.wait()
            self._closing.wait(self._gather_s)
            self._arrived.clear()
            while self._waiting:
                self._take([self._waiting.popleft() for _ in range(min(len(self._waiting), _LINES_PER_WRITE))])
        self._shut()

    def _take(self, batch: list[bytes | Event]) -> None:
        if lines := [each for each in batch if isinstance(each, bytes)]:
            self._write(lines)
        for each in batch:
            if isinstance(each, Event):
                each.set()

    def _write(self, lines: list[bytes]) -> None:
        lost = self._lost
        told = [_lost_line(lost)] if lost else []
        text = "\n".join(line.decode("utf-8", "replace").rstrip("\n") for line in (*told, *lines))
        try:
            self._emit(text)
        except Exception as error:  # noqa: BLE001 - whatever it is: logging must not end the work that is logged
            self._shut()
            self._lose(len(lines), str(error) or type(error).__name__)
        else:
            with self._losing:
                self._lost -= lost
            self._on_trouble(None)

    def _emit(self, text: str) -> None:
        if self._handler is None:
            self._handler = self._open()
        self._handler.emit(logging.makeLogRecord({"msg": text}))

    def _lose(self, count: int, reason: str) -> None:
        with self._losing:
            self._lost += count
        self._on_trouble(reason)

    def _shut(self) -> None:
        """What a failed write left in a buffer is dropped with the file: it was counted as lost."""
        handler, self._handler = self._handler, None
        if handler is None:
            return
        for _ in range(2):  # where the first fails at the buffer, the second closes the lock's file
            with contextlib.suppress(OSError, ValueError):
                handler.close()


def open_rotating(path: Path, *, file_bytes: int, kept: int) -> logging.Handler:
    """A file that any number of processes write at once. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_broken_line(path)
    # Here, because its import takes a tenth of a second that no start should wait for.
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    class Rotating(ConcurrentRotatingFileHandler):
        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in `logging`
            """Called while the error is handled: it shall reach the caller instead of standard error."""
            del record
            raise  # noqa: PLE0704 - see above

    return Rotating(str(path), maxBytes=file_bytes, backupCount=kept, encoding="utf-8")


def _end_broken_line(path: Path) -> None:
    """A process that was stopped while it wrote, or a full disk, leaves half a line; the next must not join it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _lost_line(count: int) -> bytes:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    fields: dict[str, Any] = {"event": "log_file.lines_lost", "count": count, "level": "warning", "timestamp": now}
    return orjson.dumps(fields)
