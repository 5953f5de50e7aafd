"""Delete what is older than the settings allow: files of photos, idempotency keys, events, and files that no row names.

One process at a time does it, in bounded batches. Each batch deletes files first and notes it after: one that is
interrupted is repeated and finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from shoplens.db import Database
from shoplens.db.tables import is_id, time_of
from shoplens.db.turns import Turns
from shoplens.moderation.consequences.repository import RetentionRepository
from shoplens.moderation.entities import PhotoState
from shoplens.moderation.files import FOLDER, PhotoFiles
from shoplens.predictions.retention import MOST_LOOKED_AT, Due
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.threads import PeriodicTask
from shoplens.webhooks.repository import EventRepository

EVERY: Final = timedelta(hours=1)
KEYS_LAST: Final = timedelta(days=7)
"""For how long a repeated request with the same idempotency key gets the same answer."""
EVENTS_LAST: Final = timedelta(days=30)
"""For how long events of webhooks are kept. One that still waits to be sent is kept until it was."""
ORPHANS_LAST: Final = timedelta(days=1)
"""For how long files may lie in the store before their row is committed."""
ORPHANS_WATCHED: Final = timedelta(minutes=30)
"""How long apart files are seen without a row before they are deleted. A photo of a backlog has the id of its item,
which may be old, and its row comes seconds after its files."""
_MOST_WATCHED: Final = 100_000

_TASK: Final = "retention"
_LEASE: Final = timedelta(minutes=30)
_BATCH: Final = 100
_MOST_ROWS: Final = 1_000
_CHECK_EVERY_S: Final = 60.0
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Days after the decision for which a channel keeps the files of photos in each state. None: for ever."""

    refused_days: int | None = 30
    held_days: int | None = None
    published_days: int | None = None

    def days(self, state: PhotoState) -> int | None:
        """Those of one state."""
        return {
            PhotoState.REFUSED: self.refused_days,
            PhotoState.HELD: self.held_days,
            PhotoState.PUBLISHED: self.published_days,
        }[state]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """How much was deleted: photos whose files are gone, files, requests, events, and files that no row names."""

    photos: int = 0
    files: int = 0
    requests: int = 0
    events: int = 0
    orphans: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was."""
        return any(asdict(self).values())


class RetentionService:
    """`run` and `run_if_due` block; `start` lets a thread of this process look every minute whether it is due."""

    def __init__(
        self,
        database: Database,
        store: Store,
        files: PhotoFiles,
        *,
        channels: Mapping[str, Retention],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._channels = channels
        self._clock = clock
        self._watched: dict[str, datetime] = {}
        self._task = PeriodicTask("retention", self.run_if_due, every_s=_CHECK_EVERY_S)

    def start(self) -> None:
        """Begin to look. Call it once."""
        self._task.start()

    def close(self) -> None:
        """Stop after the batch that is being deleted. Blocks."""
        self._task.close()

    def run_if_due(self) -> Deleted | None:
        """Do it if the last time is an hour ago and no other process does it now; None otherwise."""
        now = self._clock()
        with self._database.transaction() as tx:
            if not Turns(tx).take(_TASK, now=now, lease=_LEASE):
                return None
        deleted = self.run()
        with self._database.transaction() as tx:
            Turns(tx).end(_TASK, next_at=self._clock() + EVERY)
        return deleted

    def run(self) -> Deleted:
        """Delete everything that is due now. Raises DatabaseUnavailable and StorageUnavailable."""
        now = self._clock()
        photos = files = 0
        for channel, retention in self._channels.items():
            for state in PhotoState:
                days = retention.days(state)
                if days is not None:
                    more = self._expire(channel, state, before=now - timedelta(days=days), now=now)
                    photos, files = photos + more[0], files + more[1]
        deleted = Deleted(
            photos=photos,
            files=files,
            requests=self._remove_requests(now - KEYS_LAST),
            events=self._remove_events(now - EVENTS_LAST),
            orphans=self._remove_orphans(now),
        )
        if deleted.any:
            _log.info("retention.deleted", **asdict(deleted))
        return deleted

    def due(self) -> list[Due]:
        """What every setting of every channel says of what is there now. Raises DatabaseUnavailable."""
        now = self._clock()
        return [
            self._due(channel, state, retention.days(state), now)
            for channel, retention in self._channels.items()
            for state in PhotoState
        ]

    def _due(self, channel: str, state: PhotoState, days: int | None, now: datetime) -> Due:
        if days is None:
            return Due(channel=channel, what=state.value, days=None)
        before = now - timedelta(days=days)
        with self._database.reading() as tx:
            due, appealed, oldest = RetentionRepository(tx).count(channel, state, before=before, most=MOST_LOOKED_AT)
        return Due(
            channel=channel,
            what=state.value,
            days=days,
            due=due,
            waiting=appealed,
            next_at=None if oldest is None else oldest + timedelta(days=days),
            more=due >= MOST_LOOKED_AT,
        )

    def _expire(self, channel: str, state: PhotoState, *, before: datetime, now: datetime) -> tuple[int, int]:
        """How many photos lost their files, and how many files those were."""
        photos = files = 0
        while not self._task.stopping.is_set():
            with self._database.reading() as tx:
                found = RetentionRepository(tx).expired(channel, state, before=before, limit=_BATCH)
            if not found:
                break
            files += sum(self._files.delete(folder) for _, folder in found)
            with self._database.transaction() as tx:
                RetentionRepository(tx).files_deleted([photo_id for photo_id, _ in found], state, now=now)
            photos += len(found)
        return photos, files

    def _remove_requests(self, before: datetime) -> int:
        removed = 0
        while not self._task.stopping.is_set():
            with self._database.transaction() as tx:
                some = RetentionRepository(tx).remove_intakes(before=before, limit=_MOST_ROWS)
            removed += some
            if some < _MOST_ROWS:
                break
        return removed

    def _remove_events(self, before: datetime) -> int:
        removed = 0
        while not self._task.stopping.is_set():
            with self._database.transaction() as tx:
                some = EventRepository(tx).remove_old(before=before, limit=_MOST_ROWS)
            removed += some
            if some < _MOST_ROWS:
                break
        return removed

    def _remove_orphans(self, now: datetime) -> int:
        """Delete the files of photos that no row names: their process died, or their row was deleted meanwhile.

        Only those that an earlier call of this process has seen, too.
        """
        removed = 0
        old = self._old_folders(now - ORPHANS_LAST)
        seen: dict[str, datetime] = {}
        while names := {PurePosixPath(folder).name: folder for folder in islice(old, _MOST_ROWS)}:
            with self._database.reading() as tx:
                kept = RetentionRepository(tx).existing(names.keys())
            for photo_id in names.keys() - kept:
                first = self._watched.get(photo_id, now)
                if now - first >= ORPHANS_WATCHED:
                    removed += self._files.delete(names[photo_id])
                elif len(seen) < _MOST_WATCHED:
                    seen[photo_id] = first
            if self._task.stopping.is_set():
                break
        self._watched = seen
        return removed

    def _old_folders(self, before: datetime) -> Iterator[str]:
        """The folders of photos whose id is older, each once as long as the store lists its files together."""
        last = ""
        for key in self._store.list(FOLDER):
            folder = str(PurePosixPath(key).parent)
            photo_id = PurePosixPath(folder).name
            if folder != last and is_id(photo_id) and time_of(photo_id) < before.astimezone(UTC):
                yield folder
            last = folder
