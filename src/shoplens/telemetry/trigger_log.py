"""Record each start of an ingest or a night in `trigger.log`: by whom, with what, and how it ended; and read it."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import structlog

from shoplens.telemetry.log_files import TRIGGER_LOG, LogFile, LogFolder, log_folder

STARTED: Final = "trigger.started"
ENDED: Final = "trigger.ended"

Job = Literal["ingest", "night"]

_log: Final = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Trigger:
    """One start of a job. What becomes known while it works is added to it."""

    id: str
    job: Job
    by: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def note_counts(self, counts: Mapping[str, int]) -> None:
        """What was done so far, by name."""
        self.counts.update(counts)


def failed(error: BaseException) -> dict[str, Any]:
    """How a job ended that `error` ended; our own errors have a stable `code`."""
    code = getattr(error, "code", None)
    described = {"code": code if isinstance(code, str) else type(error).__name__, "text": str(error)}
    return {"outcome": "failed", "exit_status": 1, "error": described}


class TriggerLog:
    """The log of starts in a folder; its file is open only while something is at work. Thread-safe."""

    def __init__(self, folder: Path, *, file_bytes: int, kept: int) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._kept = kept

    @contextmanager
    def recorded(self, *, job: Job, by: str, arguments: Mapping[str, object]) -> Iterator[Trigger]:
        """As the function of the same name."""
        with (
            log_folder(self._folder, file_bytes=self._file_bytes, kept=self._kept) as folder,
            recorded(folder, job=job, by=by, arguments=arguments) as trigger,
        ):
            yield trigger


@contextmanager
def recorded(
    folder: LogFolder,
    *,
    job: Job,
    by: str,
    arguments: Mapping[str, object],
    describe: Callable[[BaseException], dict[str, Any]] = failed,
) -> Iterator[Trigger]:
    """Write the start and the end of the block, which is never failed by that; errors pass unchanged."""
    file = folder.file(TRIGGER_LOG, gather_s=0.0)
    trigger = Trigger(id=secrets.token_hex(8), job=job, by=by)
    started_at, began_s = datetime.now(UTC), time.monotonic()
    facts = {"job": job, "by": by, **_who(), "arguments": dict(arguments)}
    _say(STARTED, trigger, facts, file)
    file.flush()  # a process that is killed from here on leaves its start
    ended: dict[str, Any] = {"outcome": "done", "exit_status": 0}
    try:
        yield trigger
    except BaseException as error:
        ended = describe(error)
        raise
    finally:
        facts |= {"run": trigger.run_id, "counts": trigger.counts, "started_at": started_at}
        _say(ENDED, trigger, {**facts, **ended, "duration_s": round(time.monotonic() - began_s, 3)}, file)


def _say(event: str, trigger: Trigger, facts: dict[str, Any], file: LogFile) -> None:
    _log.info(event, trigger=trigger.id, **facts)
    file.put(trigger_line(event, trigger.id, facts))


def _who() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have them
        user = str(os.getuid())
    return {"user": user, "host": socket.gethostname(), "pid": os.getpid()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTrigger:
    """What the log knows of one start. Without `ended_at` it is still at work, or it was killed."""

    id: str
    job: str
    by: str
    started_at: datetime
    host: str | None = None
    pid: int | None = None
    ended_at: datetime | None = None
    exit_status: int | None = None
    counts: Mapping[str, int]


def trigger_line(event: str, trigger_id: str, facts: Mapping[str, Any]) -> bytes:
    """One line of JSON, with the present time."""
    line = {"timestamp": datetime.now(UTC), "event": event, "trigger": trigger_id, **facts}
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)


def last_triggers(folder: Path) -> dict[str, PastTrigger]:
    """The newest start of each job, as far as the files go back. Lines that cannot be read are passed over.

    Raises OSError.
    """
    ended: dict[str, dict[str, Any]] = {}
    newest: dict[str, PastTrigger] = {}
    for line in _newest_first(folder):
        if line["event"] == ENDED:
            ended.setdefault(line["trigger"], line)
        elif line["job"] not in newest:
            newest[line["job"]] = _past(line, ended.get(line["trigger"]))
    return newest


def _past(started: dict[str, Any], ended: dict[str, Any] | None) -> PastTrigger:
    end = ended or {}
    return PastTrigger(
        id=started["trigger"],
        job=started["job"],
        by=str(started.get("by")),
        started_at=datetime.fromisoformat(started["timestamp"]),
        host=started.get("host"),
        pid=started.get("pid"),
        ended_at=datetime.fromisoformat(end["timestamp"]) if end else None,
        exit_status=end.get("exit_status"),
        counts=end.get("counts") or {},
    )


def _newest_first(folder: Path) -> Iterator[dict[str, Any]]:
    """One file in memory at a time."""
    number = 0
    path = folder / TRIGGER_LOG
    while path.is_file():
        for text in reversed(path.read_bytes().splitlines()):
            if (line := _read(text)) is not None:
                yield line
        number += 1
        path = folder / f"{TRIGGER_LOG}.{number}"


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    whole = isinstance(line, dict) and line.get("event") in {STARTED, ENDED}
    return line if whole and {"trigger", "job", "timestamp"} <= line.keys() else None
