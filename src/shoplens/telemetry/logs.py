"""Configure structured logs: events with fields, one line each, for people or for programs."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Literal

import orjson
import structlog
from structlog.typing import Processor

LogFormat = Literal["auto", "console", "json"]

_TALKATIVE: Final = ("alembic", "uvicorn", "asyncio")


def configure_logs(*, log_format: LogFormat, level: str) -> None:
    """Send every log of the process, the libraries' included, to standard error in one format.

    Our own events take the short way: processors, then one write. Libraries log through `logging`, which is slower.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *_renderers(as_json=as_json)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=(
            structlog.BytesLoggerFactory(sys.stderr.buffer) if as_json else structlog.PrintLoggerFactory(sys.stderr)
        ),
        cache_logger_on_first_use=True,
    )
    _configure_libraries(shared, level, as_json=as_json)


def _configure_libraries(shared: list[Processor], level: str, *, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    decode: list[Processor] = [_as_text] if as_json else []
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[remove, *_renderers(as_json=as_json), *decode],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(*, as_json: bool) -> list[Processor]:
    if as_json:
        # Without the values of local variables: they may be photos, or secrets.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer(_to_json)]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _to_json(event: Any, default: Any = None, **_: Any) -> bytes:
    return orjson.dumps(event, default=default)


def _as_text(_: Any, __: str, line: Any) -> str:
    """`logging` writes text where our own logger writes bytes."""
    return bytes(line).decode()
