"""Bring photos in while somebody waits for it, or does not: one ingest at a time in this process, which others join."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypedDict

import structlog

from shoplens.batch.ingest import IngestPhotos
from shoplens.batch.tally import IngestSummary
from shoplens.errors import ShoplensError
from shoplens.telemetry.trigger_log import Trigger

Recorded = Callable[[], AbstractContextManager[Trigger]]
"""Records an ingest from its start to its end."""

_LONGEST_CLOSE_S: Final = 10.0
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How the ingest of this process stands, or the last one. `summary` is None before its first commit.

    `error` is what ended it early; what was committed until then stays.
    """

    running: bool
    started_at: datetime
    summary: IngestSummary | None = None
    error: Exception | None = None


class _Stopped(Exception):
    """The server stops; what is committed stays, and the next ingest takes the rest."""


class BringIn:
    """Thread-safe. Close it at the end."""

    def __init__(
        self, ingest: IngestPhotos, *, clock: Callable[[], datetime], recorded: Recorded | None = None
    ) -> None:
        self._ingest = ingest
        self._clock = clock
        self._recorded = recorded or nullcontext
        self._lock = threading.Lock()
        self._ended: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._arrivals: Arrivals | None = None
        self._closing = threading.Event()

    def join(self) -> Future[None]:
        """The end of the ingest that goes on, or of a new one from the usual source. It never raises; ask `standing`.

        The ingest ends by itself, whoever waits for it.
        """
        with self._lock:
            if self._ended is None or self._ended.done():
                self._ended = Future()
                self._arrivals = Arrivals(running=True, started_at=self._clock())
                self._thread = threading.Thread(
                    target=self._run, args=(self._ended, self._arrivals), name="ingest", daemon=True
                )
                self._thread.start()
            return self._ended

    def standing(self) -> Arrivals | None:
        """How it stands; None where this process brought nothing in yet."""
        return self._arrivals

    def close(self) -> None:
        """Let an ingest that goes on end after its present batch."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_CLOSE_S)

    def _run(self, ended: Future[None], arrivals: Arrivals) -> None:
        try:
            self._arrivals = replace(arrivals, running=False, **self._outcome(arrivals))
        finally:
            ended.set_result(None)

    def _outcome(self, arrivals: Arrivals) -> _Outcome:
        latest: IngestSummary | None = None

        def bring_in(trigger: Trigger | None) -> IngestSummary | None:
            with suppress(_Stopped):
                note(self._ingest(on_progress=lambda summary: note(summary, trigger)), trigger)
            return latest

        def note(summary: IngestSummary, trigger: Trigger | None) -> None:
            nonlocal latest
            latest = summary
            if trigger is not None:
                trigger.counts.update(summary.counts)
            self._arrivals = replace(arrivals, summary=summary)
            if self._closing.is_set():
                raise _Stopped

        try:
            with self._recorded() as trigger:
                return {"summary": bring_in(trigger), "error": None}
        except ShoplensError as error:
            _log.warning("returns.ingest_failed", code=error.code, reason=str(error))
            return {"summary": latest, "error": error}
        except Exception as error:  # noqa: BLE001 - whoever waits for it is told, and the log has it
            _log.exception("returns.ingest_crashed")
            return {"summary": latest, "error": error}


class _Outcome(TypedDict):
    summary: IngestSummary | None
    error: Exception | None
