"""How the server is at a moment: its queue, its workers, and the room that photos and database take."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from shoplens.db import Database
from shoplens.errors import ShoplensError
from shoplens.monitoring.entities import ServerState
from shoplens.monitoring.repository import SeriesRepository
from shoplens.telemetry.metrics import Metrics

_FILES_AT_ONCE: Final = 20_000
"""Files that one look counts, so that a store with millions of photos costs a part of a second each minute."""
_COUNT_EVERY_S: Final = 3_600.0


class LookAtServer:
    """Call it once a minute; it raises nothing. What cannot be found out is None.

    `storage` is the folder of a local store, None for one elsewhere. `folders` lie on the disks that may become full.
    `has_workers`: models run in processes of their own.
    """

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        *,
        storage: Path | None,
        folders: Sequence[Path],
        has_workers: bool,
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._size = FolderSize(storage) if storage is not None else None
        self._folders = folders
        self._has_workers = has_workers

    def __call__(self) -> ServerState:
        """The state now."""
        free = self._fullest_disk()
        return ServerState(
            queue=int(_value(self._metrics.queue_jobs if self._has_workers else self._metrics.queue_length)),
            workers=self._metrics.workers_alive() if self._has_workers else None,
            storage_bytes=self._size.look() if self._size is not None else None,
            database_bytes=self._database_bytes(),
            disk_free_bytes=None if free is None else free[0],
            disk_total_bytes=None if free is None else free[1],
        )

    def _fullest_disk(self) -> tuple[int, int] | None:
        """Free and total bytes of the disk with the least room."""
        found: list[tuple[int, int]] = []
        for folder in self._folders:
            try:
                usage = shutil.disk_usage(folder)
            except OSError:
                continue
            found.append((usage.free, usage.total))
        return min(found, default=None)

    def _database_bytes(self) -> int | None:
        try:
            with self._database.reading() as tx:
                return SeriesRepository(tx).database_bytes()
        except ShoplensError:
            return None


class FolderSize:
    """The bytes of the files below a folder, counted a part at a time and again every hour."""

    def __init__(
        self, folder: Path, *, at_once: int = _FILES_AT_ONCE, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._at_once = at_once
        self._monotonic = monotonic
        self._sizes: Iterator[int] | None = None
        self._sum = 0
        self._last: int | None = None
        self._again_at = 0.0

    def look(self) -> int | None:
        """Go on counting; the last complete count, None before the first one is complete."""
        now = self._monotonic()
        if self._sizes is None:
            if self._last is not None and now < self._again_at:
                return self._last
            self._sizes, self._sum = _file_sizes(self._folder), 0
        for _ in range(self._at_once):
            size = next(self._sizes, None)
            if size is None:
                self._sizes, self._last, self._again_at = None, self._sum, now + _COUNT_EVERY_S
                break
            self._sum += size
        return self._last


def _file_sizes(folder: Path) -> Iterator[int]:
    """The size of each file; files that go meanwhile are left out, and links are not followed."""
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    yield 0
                else:
                    yield entry.stat(follow_symlinks=False).st_size
            except OSError:
                continue


def _value(gauge: Any) -> float:
    """A gauge, with all of its labels together."""
    return float(sum(sample.value for family in gauge.collect() for sample in family.samples))
