"""Structured logs: one event per line, on standard error and in `app.log`, which several processes share.

Events of structlog and records of `logging` take the same way: the root logger's handlers. Formatting happens in the
thread that logs; the file is written by a thread of its own, in groups of lines, so logging never blocks on the disk.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import IO, Any, Final, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor

from shoplens.telemetry.secrets import without_passwords

APP_LOG: Final = "app.log"
TRIGGER_LOG: Final = "trigger.log"

LogFormat = Literal["auto", "console", "json"]

_QUEUED_LINES: Final = 10_000
_GROUPED_LINES: Final = 64
_WRITE_EVERY_S: Final = 0.1
_CLOSE_S: Final = 5.0
_VERBOSE_LIBRARIES: Final = ("alembic", "asyncio", "uvicorn")

_PROCESSORS: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
)
logging.getLogger("shoplens").addHandler(logging.NullHandler())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of this package; `name` begins with "shoplens".

    Its events go to the handlers of `logging`, which `configure_logs` installs. In a program that uses Shoplens as a
    library and installs none, they are silent; structlog's own default would print them to standard output.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=(structlog.stdlib.filter_by_level, *_PROCESSORS),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


_log: Final = get_logger(__name__)
_process_fields: Final[dict[str, str | int]] = {}
_failing_files: Final[defaultdict[Path, set[str]]] = defaultdict(set)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFolder:
    """A folder of log files. Each is rotated at `file_bytes`, and `kept` older files remain."""

    path: Path
    file_bytes: int
    kept: int

    def open(self, name: str) -> LogFile:
        """A handler for one file of the folder. The file is created with its first line."""
        return LogFile(self.path / name, file_bytes=self.file_bytes, kept=self.kept)


@contextmanager
def logging_to(
    folder: LogFolder | None, *, log_format: LogFormat, level: str, quiet_terminal: bool = False
) -> Iterator[None]:
    """Log to standard error and, as JSON, to `app.log` in `folder`; what is queued is written when the block ends.

    After the block the process logs to standard error only. With `quiet_terminal`, a terminal shows warnings and
    errors only, for commands with a display of their own; JSON lines on standard error are never left out.
    """
    configure_logs(log_format=log_format, level=level, quiet_terminal=quiet_terminal)
    if folder is None:
        yield
        return
    to_file = FileQueue(folder.open(APP_LOG))
    to_file.setFormatter(_JsonFormatter())
    to_file.start()
    logging.getLogger().addHandler(to_file)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(to_file)
        to_file.close()


def configure_logs(*, log_format: LogFormat, level: str, quiet_terminal: bool = False) -> None:
    """Send every event of the process, those of libraries included, to standard error in one format."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    structlog.configure(
        processors=list(_PROCESSORS),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    terminal = _StandardError()
    if as_json:
        terminal.setFormatter(_JsonFormatter())
    else:
        plain = structlog.dev.plain_traceback
        colours = sys.stderr.isatty()
        terminal.setFormatter(_formatter(structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)))
    if quiet_terminal and not as_json:
        terminal.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.handlers[:] = [terminal]
    root.setLevel(level.upper())
    if level != "debug":
        for name in _VERBOSE_LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)


def bind_process_fields(**fields: str | int) -> None:
    """Add fields to every later JSON line of this process, in all threads. An event's own fields take precedence."""
    _process_fields.update(fields)


class LogFile(logging.Handler):
    """Appends lines to a file that rotates and that other processes may write at the same time.

    A file that cannot be written is reported once, and opened again for the next line. Lines that were lost are
    counted in a line of their own as soon as the file can be written.
    """

    def __init__(self, path: Path, *, file_bytes: int, kept: int) -> None:
        super().__init__()
        self._path = path
        self._file_bytes = file_bytes
        self._kept = kept
        self._file: logging.Handler | None = None
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or several that were joined; never raises."""
        try:
            if self._file is None:
                self._file = _open_rotating(self._path, file_bytes=self._file_bytes, kept=self._kept)
            if self._lost:
                lost = {
                    "event": "log_file.lines_lost",
                    "count": self._lost,
                    "level": "warning",
                    "timestamp": _iso(time()),
                }
                self._file.emit(logging.makeLogRecord({"msg": orjson.dumps(lost).decode()}))
                self._lost = 0
            self._file.emit(record)
        except Exception as error:  # noqa: BLE001 - logging must not end the work that is logged
            self._lost += 1 + record.msg.count("\n")
            self.close()
            self.report(str(error) or type(error).__name__)
        else:
            _failing_files[self._path.parent].discard(self._path.name)

    def lose_line(self, reason: str) -> None:
        """Count a line that could not be queued."""
        self._lost += 1
        self.report(reason)

    def report(self, reason: str) -> None:
        """Warn that lines are lost, once per folder until a line was written again."""
        known = bool(_failing_files[self._path.parent])
        _failing_files[self._path.parent].add(self._path.name)
        if not known:
            _log.warning("log_file.unwritable", path=str(self._path), reason=reason)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        file, self._file = self._file, None
        if file is None:
            return
        for _ in range(2):  # the first call may fail to flush; the second one then closes the lock file
            with contextlib.suppress(OSError, ValueError):
                file.close()


class FileQueue(logging.Handler):
    """Formats a record in the calling thread; a thread of its own appends the lines to `file`, in groups.

    A full queue loses the line and does not block. A killed process loses what was logged in the last 0.1 s.
    """

    def __init__(self, file: LogFile, *, limit: int = _QUEUED_LINES, close_s: float = _CLOSE_S) -> None:
        super().__init__()
        self._close_s = close_s
        self._file = file
        self._lines: queue.Queue[str | None] = queue.Queue(limit)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log-file", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._file.lose_line("lines arrive faster than they can be written")

    def close(self) -> None:
        """Write what is queued, then close the file.

        Gives up after `close_s`. The disk may hang; and the thread may wait for an import that a signal interrupted,
        whose lock Python never releases.
        """
        super().close()
        if self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=self._close_s)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            self._file.lock = None  # the thread holds it, and `logging` would wait for it when the process ends
        else:
            self._file.close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._lines.qsize() < _GROUPED_LINES:
                self._closing.wait(_WRITE_EVERY_S)  # more lines arrive: writing a group costs as much as writing one
            group = [line]
            with contextlib.suppress(queue.Empty):
                while len(group) < _GROUPED_LINES and (line := self._lines.get_nowait()) is not None:
                    group.append(line)
            self._file.handle(logging.makeLogRecord({"msg": "\n".join(group)}))
            if line is None:
                return


class _StandardError(logging.StreamHandler[IO[str]]):
    """Writes to what `sys.stderr` is at each line: a progress bar replaces it to print lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Handler."""
        return without_passwords(super().format(record))

    @property
    def stream(self) -> IO[str]:  # type: ignore[override] # logging's own handler of last resort does the same
        """The current standard error."""
        return sys.stderr


def _open_rotating(path: Path, *, file_bytes: int, kept: int) -> logging.Handler:
    """A rotating file that several processes may write. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size > 0:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # half a line of a killed process or a full disk: the next one starts on its own
                file.write(b"\n")
    # Imported here because it takes a tenth of a second, which no start should wait for.
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    class Rotating(ConcurrentRotatingFileHandler):
        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in `logging`
            """Called from an exception handler; re-raises for LogFile instead of printing a traceback."""
            del record
            raise  # noqa: PLE0704 - see above

    return Rotating(str(path), maxBytes=file_bytes, backupCount=kept, encoding="utf-8")


def _formatter(*renderers: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_time_of_record,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )


class _JsonFormatter(logging.Formatter):
    """One line of JSON. Standard error and the file show the same line, so it is made once per record."""

    def __init__(self) -> None:
        super().__init__()
        # Tracebacks without local variables: those may be photos or secrets.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        self._formatter = _formatter(
            _add_process_fields,
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(lambda event, default: orjson.dumps(event, default=default).decode()),
        )

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: str | None = record.__dict__.get("json_line")
        if line is None:
            line = record.json_line = without_passwords(self._formatter.format(record))
        return line


def _add_time_of_record(_: Any, __: str, event: EventDict) -> EventDict:
    """Every handler shows the same time for a record of a library."""
    event["timestamp"] = _iso(event["_record"].created)
    return event


def _add_process_fields(_: Any, __: str, event: EventDict) -> EventDict:
    for name, value in _process_fields.items():
        event.setdefault(name, value)
    return event


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
