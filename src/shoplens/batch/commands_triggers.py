"""Let a command that works on returns log to the log folder, and record its start and its end there."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import typer

from shoplens.cli.failures import exit_status
from shoplens.cli.process_logs import process_logs
from shoplens.settings import Settings
from shoplens.telemetry.logs import tell_always
from shoplens.telemetry.trigger_log import Job, failed, recorded
from shoplens.telemetry.trigger_log import Trigger as Record

_STOPPED: Final = frozenset({128 + signal.SIGINT, 128 + signal.SIGTERM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What a command that was started adds to its record."""

    record: Record

    def note_run(self, run_id: str) -> None:
        """From here on every line of JSON that this process logs names the run."""
        self.record.run_id = run_id
        tell_always(run=run_id)

    def note_counts(self, counts: Mapping[str, int]) -> None:
        """What was done so far, by name."""
        self.record.note_counts(counts)


@contextmanager
def triggered(settings: Settings, *, job: Job, by: str, arguments: Mapping[str, object]) -> Iterator[Trigger]:
    """Log the block to the log folder, and its start and end to `trigger.log`; errors and exits pass unchanged."""
    command = "returns ingest" if job == "ingest" else "returns run"
    with (
        process_logs(settings, command=command, quiet_terminal=True) as folder,
        recorded(folder, job=job, by=by, arguments=arguments, describe=_describe) as record,
    ):
        tell_always(trigger=record.id)
        yield Trigger(record=record)


def _describe(error: BaseException) -> dict[str, Any]:
    """An exit is no error of its own; its status says how it ended."""
    status = exit_status(error)
    if isinstance(error, Exception) and not isinstance(error, typer.Exit):
        return {**failed(error), "exit_status": status}
    return {"outcome": "done" if status == 0 else "stopped" if status in _STOPPED else "failed", "exit_status": status}
