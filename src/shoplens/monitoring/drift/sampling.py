"""Which samples a channel had on a day, and their photos: of predictions and of moderated photos of shoppers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol

from shoplens.db import Database
from shoplens.errors import BlobNotFound, ImageNotKept, PredictionNotFound
from shoplens.moderation.errors import PhotoNotFound
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.repository import PhotoRepository
from shoplens.monitoring.drift.sample_repository import Sample, SampleRepository, first_id
from shoplens.predictions.image_store import ImageSize, ImageStore
from shoplens.predictions.policy import Outcome
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store

MOST_PHOTOS: Final = 512
"""Photos of a channel and day that are looked at."""
_FETCHED: Final = 1_000


class SampleSource(Protocol):
    """The samples of a channel. Raises DatabaseUnavailable and StorageUnavailable."""

    def rows(self, channel: str, since: datetime, until: datetime) -> Iterator[Sample]:
        """All samples from `since` until before `until`, a page in memory at a time."""

    def photo(self, sample_id: str) -> bytes | None:
        """The stored photo, or a copy of it where the original is gone; None where neither is there."""


def chosen(samples: Iterable[Sample], most: int = MOST_PHOTOS) -> list[str]:
    """The ids of at most `most` samples with a photo: a random sample, and the same one each time.

    Ids end with random bits, so those whose reversed text comes first are a fair sample.
    """
    ids = (sample.id for sample in samples if sample.has_photo)
    return heapq.nsmallest(most, ids, key=lambda sample_id: sample_id[::-1])


class PredictionSamples:
    """Samples from the table of predictions, those of runs included."""

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._database = database
        self._images = images

    def rows(self, channel: str, since: datetime, until: datetime) -> Iterator[Sample]:
        """See SampleSource."""
        # One range of the index per outcome.
        for outcome in Outcome:
            last, end = first_id(since), first_id(until)
            while True:
                with self._database.reading() as tx:
                    found = SampleRepository(tx).predictions(channel, outcome, after=last, before=end, limit=_FETCHED)
                yield from found
                if len(found) < _FETCHED:
                    break
                last = found[-1].id

    def photo(self, sample_id: str) -> bytes | None:
        """See SampleSource."""
        with suppress(PredictionNotFound):
            with self._database.reading() as tx:
                record = PredictionRepository(tx).get(sample_id)
            for size in (ImageSize.ORIGINAL, ImageSize.THUMBNAIL):
                with suppress(ImageNotKept):
                    return self._images.open_record(record, size).data
        return None


class ModerationSamples:
    """Samples from shoppers' photos. The label is the signal that speaks most against a photo."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._files = PhotoFiles(store)

    def rows(self, channel: str, since: datetime, until: datetime) -> Iterator[Sample]:
        """See SampleSource."""
        last, end = first_id(since), first_id(until)
        while True:
            with self._database.reading() as tx:
                found = SampleRepository(tx).moderated(channel, after=last, before=end, limit=_FETCHED)
            yield from (sample for sample in found if sample.label)
            if len(found) < _FETCHED:
                return
            last = found[-1].id

    def photo(self, sample_id: str) -> bytes | None:
        """See SampleSource."""
        with suppress(PhotoNotFound, BlobNotFound):
            with self._database.reading() as tx:
                photo = PhotoRepository(tx).get(sample_id)
            return self._files.original(photo)
        return None
