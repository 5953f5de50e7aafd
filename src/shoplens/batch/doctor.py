"""What `shoplens doctor` says of returns: the drop folder, the log folder, the last ingest and the last night."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from shoplens.batch.entities import BatchRun, ItemFilter
from shoplens.batch.status import OwnerState, RunStatus
from shoplens.db import open_database
from shoplens.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from shoplens.platform.batch import build_status, local_folder
from shoplens.settings import Settings
from shoplens.storage import open_prefix
from shoplens.telemetry.logs import APP_LOG
from shoplens.telemetry.trigger_log import PastTrigger, last_triggers

LONGEST_PAUSE: Final = timedelta(hours=26)
"""A day, and two hours for a night that takes longer than the one before."""
_MOST_COUNTED: Final = 10_000
_STOPPED: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """Nothing is broken, but somebody should look."""

    text: str


_UNKNOWN: Final = Caution(text="not known while the database cannot be asked")


def look_at_drop(settings: Settings, channel: str) -> str:
    """Raises SourceUnavailable for a place from which photos could not be taken."""
    source = settings.batch_source(channel)
    if "://" in source and not source.startswith("file:"):
        open_prefix(source, setting=f"channels.{channel}.batch.source").check()
        return f"{source} can be listed and emptied"
    folder = local_folder(source)
    if not folder.exists():
        return f"{folder} is not there yet; make it, and let photos be put there"
    if not (folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
        raise SourceUnavailable(
            f"{folder} cannot be read and emptied by this account, so no photo can be taken from it. "
            f"Change its owner or its permissions, or set channels.{channel}.batch.source."
        )
    count = sum(1 for _ in islice(folder.rglob("*"), _MOST_COUNTED))
    lie = "is empty" if not count else f"has {'at least ' * (count == _MOST_COUNTED)}{count} files"
    return f"{folder} can be read and emptied; it {lie}"


def look_at_logs(settings: Settings) -> str:
    """Raises Misconfigured for a folder in which nothing can be written."""
    folder = settings.effective_log_dir
    if not folder.exists() and os.access(_nearest(folder), os.W_OK | os.X_OK) and _nearest(folder).is_dir():
        return f"{folder} is not there yet; it is made with the first line"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(b"\n")
            probe.flush()
    except OSError as error:
        raise Misconfigured(
            f"{folder} cannot be written ({error.strerror}): nothing is kept in {APP_LOG}. "
            "Make room, change its owner, or set log_dir."
        ) from error
    log_bytes = sum(path.stat().st_size for path in folder.glob("*.log*") if path.is_file())
    return f"{folder} can be written; its files have {log_bytes / 1e6:.1f} MB"


def look_at_ingest(settings: Settings, channel: str) -> str | Caution:
    """The last start that the log of starts knows, else the newest photo."""
    if (last := _last_trigger(settings, channel, "ingest")) is not None:
        return _told(last)
    try:
        newest = _newest_arrival(settings, channel)
    except DatabaseUnavailable:
        return _UNKNOWN
    return "none yet" if newest is None else f"the newest photo came {_ago(newest)}"


def look_at_run(settings: Settings, channel: str) -> str | Caution:
    """How the active run stands, or when the last one ended."""
    try:
        standing = _standing(settings, channel)
    except DatabaseUnavailable:
        return _UNKNOWN
    run = None if standing is None else standing.run
    if standing is not None and run is not None and run.active:
        return _active(standing, run)
    last = _last_trigger(settings, channel, "run")
    if last is not None and isinstance(told := _told(last), Caution):
        return told
    if run is None:
        waiting = 0 if standing is None else standing.waiting
        return f"none yet; {waiting} items wait for the first"
    return _ended(run)


def _active(standing: RunStatus, run: BatchRun) -> str | Caution:
    progress = f"{standing.counts.settled} of {run.planned} items are settled"
    if standing.owner is OwnerState.ALIVE and not run.stalled:
        return f"run {run.id} is at work: {progress}"
    if run.stalled:
        return Caution(text=f"run {run.id} lives, but no item comes to an end; {progress}. {APP_LOG} may say why.")
    sign = "" if run.heartbeat_at is None else f" since {_ago(run.heartbeat_at)}"
    return Caution(
        text=f"run {run.id} shows no sign of life{sign}; {progress}. The next `shoplens batch run` goes on with it."
    )


def _ended(run: BatchRun) -> str | Caution:
    ended_at = run.finished_at or run.created_at
    if datetime.now(UTC) - ended_at > LONGEST_PAUSE:
        return Caution(text=f"the last one ended {_ago(ended_at)}. Is the schedule on? docs/how-to/schedule-a-batch.md")
    return f"the last one ended {_ago(ended_at)}"


def _told(last: PastTrigger) -> str | Caution:
    started = f"started {_ago(last.started_at)} by {last.by}"
    if last.ended_at is None:
        gone = last.host == socket.gethostname() and not _lives(last.pid)
        return Caution(text=f"{started}; it was killed before its end") if gone else f"{started}; it is at work"
    if last.exit_status:
        how = "was stopped" if last.exit_status > _STOPPED else "failed"
        return Caution(text=f"{started}; it {how} with status {last.exit_status}. trigger.log says more.")
    counts = ", ".join(f"{count} {name}" for name, count in last.counts.items() if count)
    return f"{started}, ended well: {counts or 'nothing to do'}"


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
    except OSError:  # another finding says that the folder cannot be used
        return None


def _standing(settings: Settings, channel: str) -> RunStatus | None:
    if _no_database(settings):
        return None
    with closing(open_database(settings.effective_database_url)) as database:
        return build_status(settings, database)(channel)


def _newest_arrival(settings: Settings, channel: str) -> datetime | None:
    if _no_database(settings):
        return None
    with closing(open_database(settings.effective_database_url)) as database, database.read_uow() as work:
        newest = work.batch_items.page(ItemFilter(channel=channel), limit=1)
    return newest[0].received_at if newest else None


def _no_database(settings: Settings) -> bool:
    return settings.database_url is None and not (settings.data_dir / "shoplens.db").exists()


def _nearest(path: Path) -> Path:
    """The path itself or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _ago(then: datetime) -> str:
    minutes = max(0, round((datetime.now(UTC) - then).total_seconds() / 60))
    if minutes < 90:
        return f"{minutes} min ago"
    return f"{minutes / 60:.0f} h ago"
