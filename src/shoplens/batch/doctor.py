"""The checks of `shoplens doctor` on a channel's batch side: source, log folder, last import and last run."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from shoplens.advice import Caution
from shoplens.batch.entities import BatchRun, ItemFilter
from shoplens.batch.repository import ItemRepository
from shoplens.batch.sources import local_folder
from shoplens.batch.status import OwnerState, RunStatus
from shoplens.db import Database, open_database
from shoplens.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from shoplens.platform.batch import build_planner, build_status
from shoplens.settings import Settings
from shoplens.storage import open_prefix
from shoplens.telemetry.logs import APP_LOG
from shoplens.telemetry.trigger_log import PastTrigger, last_triggers

LONGEST_PAUSE: Final = timedelta(hours=26)
"""A day, and two hours for a run that takes longer than the previous one."""
_MOST_COUNTED: Final = 10_000
_MOST_NAMED: Final = 3
_STOPPED: Final = 128


_UNKNOWN: Final = Caution(text="unknown while the database is unavailable")


def look_at_drop(settings: Settings, channel: str) -> str | Caution:
    """Raises SourceUnavailable for a source from which no photos can be imported."""
    source = settings.batch_source(channel)
    if "://" in source and not source.startswith("file:"):
        open_prefix(source, setting=f"channels.{channel}.batch.source").check()
        return f"{source} can be listed"
    folder = local_folder(source)
    if not folder.exists():
        return f"{folder} does not exist yet. Create it and copy photos into it"
    if not (folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
        raise SourceUnavailable(
            f"{folder} cannot be read and written by this account, so no photo can be imported. "
            f"Change its owner or its permissions, or set channels.{channel}.batch.source."
        )
    found = list(islice(folder.rglob("*"), _MOST_COUNTED))
    stuck = [each for each in found if not is_importable(each)]
    if stuck:
        names = ", ".join(str(each.relative_to(folder)) for each in stuck[:_MOST_NAMED])
        return Caution(
            text=f"{folder} has {len(stuck)} files or folders that this account cannot read or remove ({names}). "
            "They are not imported, or stay after their import. Change their owner or their permissions."
        )
    count = len(found)
    content = "empty" if not count else f"with {'at least ' * (count == _MOST_COUNTED)}{count} files"
    return f"{folder} is readable and writable, {content}"


def is_importable(path: Path) -> bool:
    """Whether this account may read it and, for what lies in a folder, remove it."""
    try:
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            return os.access(path, os.R_OK | os.W_OK | os.X_OK)
        sticky = path.parent.stat().st_mode & stat.S_ISVTX and os.geteuid() not in (0, path.lstat().st_uid)
        removable = os.access(path.parent, os.W_OK | os.X_OK) and not sticky
        return not stat.S_ISREG(kind) or (os.access(path, os.R_OK) and removable)
    except OSError:  # it was deleted
        return True


def look_at_logs(settings: Settings) -> str:
    """Raises Misconfigured for a folder that cannot be written."""
    folder = settings.effective_log_dir
    if not folder.exists() and os.access(_nearest(folder), os.W_OK | os.X_OK) and _nearest(folder).is_dir():
        return f"{folder} does not exist yet. It is created with the first log entry"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(b"\n")
            probe.flush()
    except OSError as error:
        raise Misconfigured(
            f"{folder} cannot be written ({error.strerror}), so there is no {APP_LOG}. "
            "Free some space, change its owner, or set log_dir."
        ) from error
    log_bytes = sum(path.stat().st_size for path in folder.glob("*.log*") if path.is_file())
    return f"{folder} is writable, {log_bytes / 1e6:.1f} MB of logs"


def look_at_ingest(settings: Settings, channel: str) -> str | Caution:
    """The last import in `trigger.log`, else the newest photo."""
    if (last := _last_trigger(settings, channel, "ingest")) is not None:
        return _outcome(last)
    try:
        with _database(settings) as database:
            found = []
            if database is not None:
                with database.reading() as tx:
                    found = ItemRepository(tx).page(ItemFilter(channel=channel), limit=1)
    except DatabaseUnavailable:
        return _UNKNOWN
    return f"last photo received {_ago(found[0].received_at)}" if found else "none yet"


def look_at_run(settings: Settings, channel: str) -> str | Caution:
    """The state of the active run, or the end of the last one."""
    try:
        with _database(settings) as database:
            status = RunStatus(waiting=0) if database is None else build_status(settings, database)(channel)
            plan = None if database is None else build_planner(settings, database)(channel)
    except DatabaseUnavailable:
        return _UNKNOWN
    run = status.run
    if run is not None and run.active:
        return _active(status, run)
    last = _last_trigger(settings, channel, "run")
    if last is not None and isinstance(found := _outcome(last), Caution):
        return found
    if plan is not None and plan.missed_at is not None:
        return _missed(plan.missed_at)
    return _last_run(status, last)


def _missed(planned: datetime) -> Caution:
    return Caution(
        text=f"the run that was planned for {planned:%Y-%m-%d %H:%M} UTC did not begin, and items wait for it. Is it "
        "scheduled? docs/how-to/schedule-a-batch.md"
    )


def _last_run(status: RunStatus, last: PastTrigger | None) -> str | Caution:
    run = status.run
    idle_at = last.ended_at if last is not None and last.counts.get("planned") == 0 else None
    idle = f"; nothing waited {_ago(idle_at)}" if idle_at else ""
    if run is None:
        return f"none yet, {status.waiting} items waiting{idle}"
    ended_at = run.finished_at or run.created_at
    finished = f"finished {_ago(ended_at)}{idle}"
    if datetime.now(UTC) - max(ended_at, idle_at or ended_at) > LONGEST_PAUSE:
        return Caution(text=f"{finished}. Check the schedule: docs/how-to/schedule-a-batch.md")
    return finished


def _active(status: RunStatus, run: BatchRun) -> str | Caution:
    progress = f"{status.processed} of {run.planned} processed"
    if status.owner is OwnerState.ALIVE and not run.stalled:
        return f"run {run.id} is running: {progress}"
    if run.stalled:
        return Caution(text=f"run {run.id} is stalled: no item finishes; {progress}. See {APP_LOG}.")
    last = "" if run.heartbeat_at is None else f"; last heartbeat {_ago(run.heartbeat_at)}"
    return Caution(text=f"run {run.id} has no worker{last}; {progress}. `shoplens batch run` resumes it.")


def _outcome(last: PastTrigger) -> str | Caution:
    when = f"{_ago(last.started_at)} (via {last.by})"
    if last.ended_at is None:
        gone = last.host == socket.gethostname() and not _lives(last.pid)
        return Caution(text=f"killed, started {when}") if gone else f"running, started {when}"
    if last.exit_status:
        how = "stopped" if last.exit_status > _STOPPED else "failed"
        return Caution(text=f"{how} with status {last.exit_status}, {when}. See trigger.log.")
    counts = ", ".join(f"{count} {name}" for name, count in last.counts.items() if count)
    return f"OK, {when}, {counts or 'no new files'}"


def _lives(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_trigger(settings: Settings, channel: str, job: str) -> PastTrigger | None:
    try:
        return last_triggers(settings.effective_log_dir).get((channel, job))
    except OSError:  # another check reports that
        return None


@contextmanager
def _database(settings: Settings) -> Iterator[Database | None]:
    """The database; None if it was not created yet."""
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        yield None
        return
    with closing(open_database(settings.effective_database_url)) as database:
        yield database


def _nearest(path: Path) -> Path:
    """The path itself or the nearest parent that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def _ago(then: datetime) -> str:
    minutes = max(0, round((datetime.now(UTC) - then).total_seconds() / 60))
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{minutes / 60:.0f} h ago"
