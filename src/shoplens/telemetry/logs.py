"""Configure structured logs: events with fields, one line each, for people or for programs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor

Sink = Callable[[bytes], None]
"""Takes one line of JSON; it must neither wait nor fail."""

LogFormat = Literal["auto", "console", "json"]

_TALKATIVE: Final = ("alembic", "uvicorn", "asyncio")

_process_fields: Final[dict[str, str | int]] = {}


def configure_logs(
    *, log_format: LogFormat, level: str, file: Sink | None = None, quiet_terminal: bool = False
) -> None:
    """Send every log of the process, the libraries' included, to standard error in one format, and as JSON to `file`.

    With `quiet_terminal` a person at a terminal sees warnings only; the command has a display of its own.
    Our own events take the short way: processors, then one write. Libraries log through `logging`, which is slower.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *(_to_json_lines() if as_json else _to_terminal(file, quiet=quiet_terminal))],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_logger_factory(file, as_json=as_json),
        cache_logger_on_first_use=True,
    )
    _configure_libraries(shared, level, file, as_json=as_json)


def tell_always(**fields: str | int) -> None:
    """Put fields on every later line of JSON of this process, whichever thread logs it; an event's own ones win."""
    _process_fields.update(fields)


def _logger_factory(file: Sink | None, *, as_json: bool) -> Callable[..., Any]:
    if not as_json:
        terminal: Any = _Terminal()
        return structlog.PrintLoggerFactory(terminal)
    stream: Any = sys.stderr.buffer if file is None else _Tee(sys.stderr.buffer, file)
    return structlog.BytesLoggerFactory(stream)


class _Terminal:
    """Standard error as it is at each line: a progress bar takes its place to put lines above itself."""

    def write(self, text: str) -> int:
        """Called with pieces of lines."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Called after each line."""
        sys.stderr.flush()


class _Tee:
    """Looks like a binary file: each line that is written goes to a stream and to a sink."""

    def __init__(self, stream: BinaryIO, sink: Sink) -> None:
        self._stream = stream
        self._sink = sink
        self.flush = stream.flush

    def write(self, line: bytes) -> int:
        """Called once per line."""
        self._sink(line)
        return self._stream.write(line)


def _configure_libraries(shared: list[Processor], level: str, file: Sink | None, *, as_json: bool) -> None:
    before: list[Processor] = [*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()]
    lines: list[Processor] = [*_to_json_lines(), _as_text]
    stream: Any = sys.stderr if as_json else _Terminal()
    shown = logging.StreamHandler(stream)
    shown.setFormatter(_formatter(before, lines if as_json else _to_terminal(None, quiet=False)))
    handlers: list[logging.Handler] = [shown]
    if file is not None:
        kept = _ToSink(file)
        kept.setFormatter(_formatter(before, lines))
        handlers.append(kept)
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(level.upper())
    if level != "debug":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)


class _ToSink(logging.Handler):
    """What a library logs, as one line of JSON."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        self._sink(self.format(record).encode())


def _formatter(before: list[Processor], render: list[Processor]) -> logging.Formatter:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=[remove, *render])


def _to_terminal(file: Sink | None, *, quiet: bool) -> list[Processor]:
    """Text for people; whole lines of JSON for `file` beside it."""
    copy: list[Processor] = [] if file is None else [_copy_to(file)]
    hide: list[Processor] = [_only_warnings] if quiet else []
    plain = structlog.dev.plain_traceback
    return [*copy, *hide, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _to_json_lines() -> list[Processor]:
    # Without the values of local variables: they may be photos, or secrets.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        _add_process_fields,
        structlog.processors.ExceptionRenderer(tracebacks),
        structlog.processors.JSONRenderer(_to_json),
    ]


def _copy_to(file: Sink) -> Processor:
    render = _to_json_lines()

    def copy(logger: Any, method: str, event: EventDict) -> EventDict:
        line: Any = dict(event)
        for process in render:
            line = process(logger, method, line)
        file(line)
        return event

    return copy


def _only_warnings(_: Any, __: str, event: EventDict) -> EventDict:
    if event["level"] in {"debug", "info"}:
        raise structlog.DropEvent
    return event


def _add_process_fields(_: Any, __: str, event: EventDict) -> EventDict:
    for name, value in _process_fields.items():
        event.setdefault(name, value)
    return event


def _to_json(event: Any, default: Any = None, **_: Any) -> bytes:
    return orjson.dumps(event, default=default)


def _as_text(_: Any, __: str, line: Any) -> str:
    """`logging` writes text where our own logger writes bytes."""
    return bytes(line).decode()
