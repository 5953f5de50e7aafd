"""Record each start of an import or a run in `trigger.log`: requested by, arguments, outcome; and read the file."""

from __future__ import annotations

import getpass
import logging
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

from shoplens.telemetry.logs import TRIGGER_LOG, LogFile, LogFolder, get_logger
from shoplens.telemetry.secrets import without_passwords

STARTED: Final = "trigger.started"
ENDED: Final = "trigger.ended"

Job = Literal["ingest", "run"]

_log: Final = get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Trigger:
    """One start of a job. The job sets `run_id` and `counts` while it works."""

    id: str
    job: Job
    by: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)


def failed(error: BaseException) -> dict[str, Any]:
    """The outcome of a job that ended with `error`; our own errors have a stable `code`."""
    code = getattr(error, "code", None)
    described = {"code": code if isinstance(code, str) else type(error).__name__, "text": str(error)}
    return {"outcome": "failed", "exit_status": 1, "error": described}


@contextmanager
def record_trigger(
    folder: LogFolder,
    *,
    job: Job,
    by: str,
    arguments: Mapping[str, object],
    describe: Callable[[BaseException], dict[str, Any]] = failed,
) -> Iterator[Trigger]:
    """Append the start and the end of the block to `trigger.log`. Errors of the block pass unchanged.

    A log that cannot be written never fails the block. A process that is killed inside it leaves the start only.
    """
    trigger = Trigger(id=secrets.token_hex(8), job=job, by=by)
    started_at, began_s = datetime.now(UTC), time.monotonic()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have them
        user = str(os.getuid())
    process = {"user": user, "host": socket.gethostname(), "pid": os.getpid()}
    facts = {"job": job, "by": by, **process, "arguments": dict(arguments)}
    file = folder.open(TRIGGER_LOG)
    try:
        _write(STARTED, trigger, facts, file)
        ended: dict[str, Any] = {"outcome": "done", "exit_status": 0}
        try:
            yield trigger
        except BaseException as error:
            ended = describe(error)
            raise
        finally:
            facts |= {"run": trigger.run_id, "counts": trigger.counts, "started_at": started_at}
            _write(ENDED, trigger, {**facts, **ended, "duration_s": round(time.monotonic() - began_s, 3)}, file)
    finally:
        file.close()


def _write(event: str, trigger: Trigger, facts: dict[str, Any], file: LogFile) -> None:
    _log.info(event, trigger=trigger.id, **facts)
    file.handle(logging.makeLogRecord({"msg": without_passwords(trigger_line(event, trigger.id, facts).decode())}))


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTrigger:
    """A start as the log has it. Without `ended_at` the job is still running, or was killed."""

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
    """One JSON line with the current time."""
    line = {"timestamp": datetime.now(UTC), "event": event, "trigger": trigger_id, **facts}
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)


def last_triggers(folder: Path) -> dict[tuple[str, str], PastTrigger]:
    """The newest start by channel and job, as far as the files go back. Lines that cannot be read are skipped.

    Raises OSError.
    """
    ended: dict[str, dict[str, Any]] = {}
    newest: dict[tuple[str, str], PastTrigger] = {}
    for line in _newest_first(folder):
        if line["event"] == ENDED:
            ended.setdefault(line["trigger"], line)
            continue
        arguments = line.get("arguments")
        channel = str(arguments.get("channel", "")) if isinstance(arguments, dict) else ""
        end = ended.get(line["trigger"], {})
        past = PastTrigger(
            id=line["trigger"],
            job=line["job"],
            by=str(line.get("by")),
            started_at=datetime.fromisoformat(line["timestamp"]),
            host=line.get("host"),
            pid=line.get("pid"),
            ended_at=datetime.fromisoformat(end["timestamp"]) if end else None,
            exit_status=end.get("exit_status"),
            counts=end.get("counts") or {},
        )
        newest.setdefault((channel, past.job), past)
    return newest


def _newest_first(folder: Path) -> Iterator[dict[str, Any]]:
    """The readable lines of the log and its older files. One file is in memory at a time."""
    number = 0
    path = folder / TRIGGER_LOG
    while path.is_file():
        for text in reversed(path.read_bytes().splitlines()):
            try:
                line = orjson.loads(text)
            except orjson.JSONDecodeError:
                continue
            if (
                isinstance(line, dict)
                and line.get("event") in {STARTED, ENDED}
                and {"trigger", "job", "timestamp"} <= line.keys()
            ):
                yield line
        number += 1
        path = folder / f"{TRIGGER_LOG}.{number}"
