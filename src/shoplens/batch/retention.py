"""Delete the photos of finished runs that are older than the settings allow.

Rows stay, with what the run and people said of each: the numbers of a finished run, its report and its exports do not
change. The pictures in its stored report go with the photos. What needs review, or can be tried again, stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from shoplens.accounts.entities import SYSTEM
from shoplens.batch.entities import BatchItem
from shoplens.batch.report import without_pictures
from shoplens.batch.retention_repository import ItemRetentionRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.errors import BlobNotFound
from shoplens.predictions.entities import Aged, RecordFilter
from shoplens.predictions.image_store import view_key
from shoplens.predictions.removal import Removal, Removed, removable_keys
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.retention import ACTION, MOST_LOOKED_AT, Due, Expires, Stop, counted
from shoplens.storage import Store

_PAGE: Final = 1_000


class RunPhotoRetention:
    """The photos of runs, in the channels that have days. See `Expiring`."""

    def __init__(self, removal: Removal, store: Store, *, channels: Mapping[str, int | None], batch: int = 200) -> None:
        self._removal = removal
        self._database = removal.database
        self._store = store
        self._channels = channels
        self._batch = batch

    def expire(self, now: datetime, stop: Stop) -> dict[tuple[str, Expires], Removed]:
        """See Expiring."""
        done: dict[tuple[str, Expires], Removed] = {}
        for channel, days in self._channels.items():
            if days is not None:
                done[channel, Expires.RUN_PHOTOS] = self._expire(channel, now - timedelta(days=days), now, stop)
        return done

    def due(self, now: datetime) -> list[Due]:
        """See Expiring."""
        return [self._due(channel, days, now) for channel, days in self._channels.items()]

    def _due(self, channel: str, days: int | None, now: datetime) -> Due:
        found = counted(channel, Expires.RUN_PHOTOS, days, self._aged(channel, until=now), now=now)
        if days is None:
            return found
        before = now - timedelta(days=days)
        with self._database.reading() as tx:
            open_items = ItemRetentionRepository(tx).count_to_review(channel, before=before, most=MOST_LOOKED_AT)
        return replace(found, waiting=found.waiting + open_items)

    def _expire(self, channel: str, before: datetime, now: datetime, stop: Stop) -> Removed:
        done = Removed()
        expired = (each.id for each in self._aged(channel, until=before) if not each.waits and each.since < before)
        while ids := list(islice(expired, self._batch)):
            done += self._remove(ids, before=before, now=now)
            if stop():
                break
        return done

    def _aged(self, channel: str, *, until: datetime) -> Iterator[Aged]:
        """In the order of arrival; a page in memory at a time."""
        last = 0
        while True:
            with self._database.reading() as tx:
                page = ItemRetentionRepository(tx).aged(channel, after=last, until=until, limit=_PAGE)
            yield from (each for _, each in page)
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def _remove(self, ids: list[str], *, before: datetime, now: datetime) -> Removed:
        """The rows say first that the photos are gone, then the files go, then the rows no longer name them.

        So nobody reviews a photo that is being deleted, and one of which the files were left is deleted next time.
        """
        with self._database.transaction() as tx:
            items = ItemRetentionRepository(tx).mark(ids, before=before, now=now)
            owned = [item.prediction_id for item in items if item.prediction_id is not None]
            PredictionRepository(tx).mark_photos(owned, now=now)
            wanted = RecordFilter(ids=tuple(sorted(owned, reverse=True)))
            keys, _ = removable_keys(tx, PredictionRepository(tx).page(wanted, limit=len(ids)))
            reports = {run.report_key for run in RunRepository(tx).some({i.run_id for i in items if i.run_id})}
        if not items:
            return Removed()
        for report in reports:
            if report is not None:
                self._strip(report)
        keys |= {key for item in items for key in _keys(item)}
        self._removal.files(keys)
        marked = [item.id for item in items]
        with self._database.transaction() as tx:
            photos = ItemRetentionRepository(tx).drop(marked)
            PredictionRepository(tx).drop_photos(owned)
            if photos:
                details = {"photos": photos, "oldest": min(marked), "newest": max(marked)}
                self._removal.note(tx, SYSTEM, ACTION, target=max(marked), details=details)
        return Removed(photos=photos, files=len(keys))

    def _strip(self, report_key: str) -> None:
        """Take the pictures out of a stored report, which is otherwise as it was."""
        while True:
            seen = self._store.version(report_key)
            try:
                html = self._store.get(report_key)
            except BlobNotFound:
                return
            stripped = without_pictures(html)
            if stripped == html or self._store.put_if(report_key, stripped, seen=seen):
                return


def _keys(item: BatchItem) -> set[str]:
    """The files of an item; of one that was never classified also the copies, which no record has."""
    own = {item.key, item.thumbnail_key} | ({view_key(item.sha256)} if item.prediction_id is None else set())
    return {key for key in own if key is not None}
