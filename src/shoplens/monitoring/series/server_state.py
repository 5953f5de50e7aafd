"""How the server is at a moment: its queue, its workers, and the room that photos and database take."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from shoplens.db import Database
from shoplens.errors import ShoplensError
from shoplens.monitoring.series.entities import ServerState
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_FILES_AT_ONCE: Final = 20_000
"""Files that one look counts, so that a store with millions of photos costs a part of a second each minute."""
_COUNT_EVERY_S: Final = 3_600.0
_OBJECTS_AT_ONCE: Final = 10_000
"""Objects of a store elsewhere that one look lists: ten requests."""
_LIST_EVERY_S: Final = 86_400.0
_MOST_OBJECTS: Final = 10_000_000
_log: Final = get_logger(__name__)


class LookAtServer:
    """Call it once a minute; it raises nothing. What cannot be found out is None.

    `storage` counts the bytes of the stored photos, a part at each look; None: nobody counts. `folders` lie on the
    disks that may become full. `has_workers`: models run in processes of their own.
    """

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        *,
        storage: StoredSize | None,
        folders: Sequence[Path],
        has_workers: bool,
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._size = storage
        self._folders = folders
        self._has_workers = has_workers
        metrics.watch_disk(self._fullest_disk)

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


class StoredSize:
    """The bytes of everything in a store, counted a part at a time, and again after `every_s`.

    `sizes` begins to list: a listing that fails is begun again at the next turn. One of more than `most` objects is
    given up, and then the size is not known.
    """

    def __init__(
        self,
        sizes: Callable[[], Iterator[int]],
        *,
        at_once: int,
        every_s: float,
        most: int = _MOST_OBJECTS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begin = sizes
        self._at_once = at_once
        self._every_s = every_s
        self._most = most
        self._monotonic = monotonic
        self._sizes: Iterator[int] | None = None
        self._sum = self._count = 0
        self._last: int | None = None
        self._again_at = -math.inf

    def look(self) -> int | None:
        """Go on counting; the last complete count, None before the first one is complete."""
        now = self._monotonic()
        if self._sizes is None:
            if now < self._again_at:
                return self._last
            self._sizes, self._sum, self._count = self._begin(), 0, 0
        try:
            part = list(islice(self._sizes, self._at_once))
        except ShoplensError as error:
            _log.debug("monitoring.storage_unknown", code=error.code)
            self._sizes, self._again_at = None, now + self._every_s
            return self._last
        self._sum, self._count = self._sum + sum(part), self._count + len(part)
        if len(part) < self._at_once or self._count > self._most:
            self._last = self._sum if self._count <= self._most else None
            self._sizes, self._again_at = None, now + self._every_s
        return self._last


def size_of_folder(
    folder: Path, *, at_once: int = _FILES_AT_ONCE, monotonic: Callable[[], float] = time.monotonic
) -> StoredSize:
    """The files below a local folder, again every hour."""
    return StoredSize(lambda: _file_sizes(folder), at_once=at_once, every_s=_COUNT_EVERY_S, monotonic=monotonic)


def size_of_objects(sizes: Callable[[], Iterator[int]]) -> StoredSize:
    """The objects of a store elsewhere, once a day: a listing costs money and seconds."""
    return StoredSize(sizes, at_once=_OBJECTS_AT_ONCE, every_s=_LIST_EVERY_S)


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
