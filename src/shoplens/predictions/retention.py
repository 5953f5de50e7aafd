"""Delete photos and records of single classifications that are older than the settings allow, and say what is due.

`RetentionJob` does it for all features that have something to expire: one process at a time, every hour, in bounded
batches with pauses. A batch that was interrupted is repeated and ends: see `removal.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final, Protocol

from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database
from shoplens.db.turns import Turns
from shoplens.predictions.entities import Aged
from shoplens.predictions.removal import Removal, Removed
from shoplens.predictions.repository import PredictionRepository
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import PeriodicTask

EVERY: Final = timedelta(hours=1)
MOST_LOOKED_AT: Final = 10_000
"""How many records or photos are looked at to say how much is due."""
ACTION: Final = "retention.deleted"
"""What the audit log calls it."""

_TASK: Final = "records-retention"
_LEASE: Final = timedelta(minutes=30)
_LONGEST_S: Final = 20 * 60.0
"""Less than the lease, so that no other process begins meanwhile."""
_CHECK_EVERY_S: Final = 60.0
_PAUSE_S: Final = 0.05
_PAGE: Final = 1_000
_log: Final = get_logger(__name__)


class Expires(StrEnum):
    """What a setting lets expire."""

    RECORDS = "records"
    PHOTOS = "photos"
    RUN_PHOTOS = "run_photos"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What one setting of a channel says of what is there now. `days` None: all is kept for ever. `what` is a value of
    `Expires`, or a state of photos of moderation.

    `due` are deleted in the next turn. `waiting` are older, too, but stay: a person has not decided on them yet.
    `next_at` is when the oldest of the others is due. `more`: there is more than was looked at.
    """

    channel: str
    what: str
    days: int | None
    due: int = 0
    waiting: int = 0
    next_at: datetime | None = None
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepDays:
    """Days after which a channel deletes photos and whole records of single classifications. None: never."""

    photos: int | None = None
    records: int | None = None


Stop = Callable[[], bool]
"""Whether to end after the batch that was just done; may wait a moment."""


class Expiring(Protocol):
    """A feature with something that expires. Methods block; they raise DatabaseUnavailable and StorageUnavailable."""

    def expire(self, now: datetime, stop: Stop) -> dict[tuple[str, Expires], Removed]:
        """Delete what is due, in batches; what was deleted, by channel."""
        ...

    def due(self, now: datetime) -> list[Due]:
        """What every setting says of what is there now."""
        ...


def counted(channel: str, what: Expires, days: int | None, things: Iterator[Aged], *, now: datetime) -> Due:
    """How many of `things`, which come in the order in which they were made, are due. Reads no more than it needs."""
    if days is None:
        return Due(channel=channel, what=what, days=None)
    before = now - timedelta(days=days)
    due = waiting = looked_at = 0
    oldest: datetime | None = None
    for each in things:
        looked_at += 1
        if looked_at > MOST_LOOKED_AT:
            break
        if each.owned:
            continue
        if each.waits:
            waiting += each.since < before
        elif each.since < before:
            due += 1
        else:
            oldest = each.since if oldest is None else min(oldest, each.since)
            if each.since == each.made_at:  # whatever was made later is due later
                break
    return Due(
        channel=channel,
        what=what,
        days=days,
        due=due,
        waiting=waiting,
        next_at=None if oldest is None else oldest + timedelta(days=days),
        more=looked_at > MOST_LOOKED_AT,
    )


class RecordRetention:
    """Records of single classifications and their photos, in the channels that have days. Those of runs are no part."""

    def __init__(self, removal: Removal, *, channels: Mapping[str, KeepDays], batch: int = 200) -> None:
        self._removal = removal
        self._channels = channels
        self._batch = batch

    def expire(self, now: datetime, stop: Stop) -> dict[tuple[str, Expires], Removed]:
        """See Expiring. Records go first: their photos go with them."""
        done: dict[tuple[str, Expires], Removed] = {}
        for channel, keep in self._channels.items():
            for what, days in ((Expires.RECORDS, keep.records), (Expires.PHOTOS, keep.photos)):
                if days is not None:
                    done[channel, what] = self._expire(channel, what, days=days, now=now, stop=stop)
        return done

    def due(self, now: datetime) -> list[Due]:
        """See Expiring."""
        return [
            counted(channel, what, days, self._aged(channel, what, until=now), now=now)
            for channel, keep in self._channels.items()
            for what, days in ((Expires.PHOTOS, keep.photos), (Expires.RECORDS, keep.records))
        ]

    def _expire(self, channel: str, what: Expires, *, days: int, now: datetime, stop: Stop) -> Removed:
        done = Removed()
        before = now - timedelta(days=days)
        expired = (
            each.id
            for each in self._aged(channel, what, until=before)
            if not (each.waits or each.owned) and each.since < before
        )
        while ids := list(islice(expired, self._batch)):
            if what is Expires.RECORDS:
                done += self._removal.records(ids, by=SYSTEM, action=ACTION)[0]
            else:
                done += self._removal.photos(ids, now=now, by=SYSTEM, action=ACTION)
            if stop():
                break
        return done

    def _aged(self, channel: str, what: Expires, *, until: datetime) -> Iterator[Aged]:
        """In the order in which they were made; a page in memory at a time."""
        last = ""
        with_photo = what is Expires.PHOTOS
        while True:
            with self._removal.database.reading() as tx:
                page = PredictionRepository(tx).aged(
                    channel, after=last, until=until, limit=_PAGE, with_photo=with_photo
                )
                owned = self._removal.owned(tx, [each.id for each in page]) if page else set()
            yield from (replace(each, owned=True) if each.id in owned else each for each in page)
            if len(page) < _PAGE:
                return
            last = page[-1].id


class RetentionJob:
    """`run` and `run_if_due` block; `start` lets a thread of this process look every minute whether it is due."""

    def __init__(
        self,
        database: Database,
        features: Sequence[Expiring],
        *,
        clock: Callable[[], datetime],
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._features = features
        self._clock = clock
        self._metrics = metrics
        self._task = PeriodicTask(_TASK, self.run_if_due, every_s=_CHECK_EVERY_S)

    def start(self) -> None:
        """Begin to look. Call it once."""
        self._task.start()

    def close(self) -> None:
        """Stop after the batch that is being deleted. Blocks."""
        self._task.close()

    def due(self) -> list[Due]:
        """What every setting of every channel says of what is there now. Raises DatabaseUnavailable."""
        now = self._clock()
        found = [due for feature in self._features for due in feature.due(now)]
        return sorted(found, key=lambda each: each.channel)

    def run_if_due(self) -> bool:
        """Do it if the last time is an hour ago and no other process does it now; whether it was."""
        with self._database.transaction() as tx:
            if not Turns(tx).take(_TASK, now=self._clock(), lease=_LEASE):
                return False
        complete = False
        try:
            complete = self._run()[1]
        finally:
            with self._database.transaction() as tx:
                Turns(tx).end(_TASK, next_at=self._clock() + (EVERY if complete else timedelta(0)))
        return True

    def run(self) -> dict[tuple[str, Expires], Removed]:
        """Delete everything that is due now, for at most twenty minutes.

        Raises DatabaseUnavailable and StorageUnavailable.
        """
        return self._run()[0]

    def _run(self) -> tuple[dict[tuple[str, Expires], Removed], bool]:
        """What was deleted, and whether that was all."""
        give_up_at = time.monotonic() + _LONGEST_S
        stopped = False

        def stop() -> bool:
            nonlocal stopped
            stopped = self._task.stopping.wait(_PAUSE_S) or time.monotonic() > give_up_at
            return stopped

        done: dict[tuple[str, Expires], Removed] = {}
        for feature in self._features:
            for (channel, what), removed in feature.expire(self._clock(), stop).items():
                done[channel, what] = removed
                self._report(channel, what, removed)
            if stopped:
                break
        return done, not stopped

    def _report(self, channel: str, what: Expires, removed: Removed) -> None:
        if removed == Removed():
            return
        _log.info("retention.deleted", channel=channel, what=what.value, **asdict(removed))
        if self._metrics is not None:
            for kind, count in (("records", removed.records), ("photos", removed.photos)):
                if count:
                    self._metrics.retention_deleted.labels(channel=channel, kind=kind).inc(count)
