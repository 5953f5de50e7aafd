"""The same photo again, and photos that look like it: by perceptual hashes that differ in a few bits.

The hashes of all records are kept in memory, eight bytes each: comparing a million of them takes a few
milliseconds, and the database is asked only for the records of those that are close.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np

from shoplens.db import Database
from shoplens.db.tables import make_id, time_of
from shoplens.images.near import NEAR_BITS, Hashes
from shoplens.predictions.entities import PredictionRecord
from shoplens.predictions.repository import PredictionRepository

MOST_SIMILAR: Final = 24
_MOST_HASHES: Final = 5_000_000
_READ_AT_ONCE: Final = 20_000
_MOST_READ: Final = 200_000
"""How many hashes one call reads: with very many records the first calls know only some, but none takes long."""
_CLOSEST: Final = 50
_OVERLAP: Final = timedelta(minutes=1)
"""How far records are read again: of two that are committed at once, the older may become visible later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """Another record of the same photo (`same`), or of one whose hash differs in `bits`."""

    record: PredictionRecord
    bits: int
    same: bool


class SimilarPhotos:
    """Thread-safe; methods block."""

    def __init__(self, database: Database, *, most_hashes: int = _MOST_HASHES) -> None:
        """Of more than `most_hashes` records, the newer ones are left out; the same photo is found all the same."""
        self._database = database
        self._most = most_hashes
        self._lock = threading.Lock()
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._after = ""
        self._recent: set[str] = set()  # the ids within the overlap, which are read again

    def of(self, record: PredictionRecord, *, limit: int = MOST_SIMILAR) -> list[Similar]:
        """Other records of this photo or of similar ones: the same photo first, then the closest, then the newest."""
        if not record.image.phash:
            return []
        wanted, hashes = int(record.image.phash, 16), self._current()
        near = np.unique(hashes[np.bitwise_count(hashes ^ np.uint64(wanted)) <= NEAR_BITS])
        order = np.argsort(np.bitwise_count(near ^ np.uint64(wanted)), kind="stable")[:_CLOSEST]
        closest = [f"{int(each):016x}" for each in near[order]]
        found: list[PredictionRecord] = []
        with self._database.reading() as tx:
            for phash in dict.fromkeys([record.image.phash, *closest]):
                found += PredictionRepository(tx).with_hash(phash, limit + 1)
                if len(found) > limit:
                    break
        others = [
            Similar(
                record=each,
                bits=(int(each.image.phash, 16) ^ wanted).bit_count(),
                same=each.image.sha256 == record.image.sha256,
            )
            for each in found
            if each.id != record.id
        ]
        return sorted(others, key=lambda each: (not each.same, each.bits))[:limit]

    def _current(self) -> Hashes:
        """The hashes of all records, read on from where the last call stopped."""
        with self._lock:
            fresh: list[int] = []
            read = 0
            while read < _MOST_READ and len(self._hashes) + len(fresh) < self._most:
                with self._database.reading() as tx:
                    rows = PredictionRepository(tx).hashes(self._after, _READ_AT_ONCE)
                if not rows:
                    break
                read += len(rows)
                fresh += [int(phash, 16) for row_id, phash in rows if phash and row_id not in self._recent]
                again = _earlier(rows[-1][0])
                self._recent = {row_id for row_id in (*self._recent, *(each for each, _ in rows)) if row_id > again}
                self._after = rows[-1][0]
            if fresh:
                self._hashes = np.concatenate([self._hashes, np.asarray(fresh, np.uint64)])
            self._after = _earlier(self._after)
            return self._hashes


def _earlier(record_id: str) -> str:
    if not record_id:
        return ""
    return make_id(max(0, int((time_of(record_id) - _OVERLAP).timestamp() * 1000)), bytes(10))
