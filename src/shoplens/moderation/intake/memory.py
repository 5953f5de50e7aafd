"""What is remembered of decided photos, and whether a new photo is nearly one of them.

A photo is found by perceptual hashes: those of a refused photo and of crops of it, and those of the new photo and of
its mirror image. Each process holds all hashes in one array, which takes a few milliseconds to compare with a million
of them. Few are near by chance; the fingerprints of these are read from the database and compared as a whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from shoplens.db import Database
from shoplens.images import fingerprint
from shoplens.moderation.consequences.repository import HashRepository
from shoplens.moderation.entities import HashVerdict, ModerationPhoto, PhotoState
from shoplens.moderation.policy.entities import NEAR_REFUSED

_CANDIDATE_BITS: Final = 10
"""How many bits of a hash may differ for its fingerprint to be read."""
_MOST_CANDIDATES: Final = 256
_CHUNK: Final = 10_000
_LEAST_CAPACITY: Final = 1_024
_SETTLES_AFTER: Final = timedelta(minutes=5)
"""A transaction may add a number below one that others have seen; none stays open for this long."""
_RELOAD_S: Final = 3_600.0
"""What was forgotten is left out of the array after this time at the latest. It is never found before."""


def remember(tx: Connection, photo: ModerationPhoto, to_state: PhotoState, *, by_person: bool, now: datetime) -> None:
    """Keep what finds copies of a photo that was refused, or that a person accepted; forget one that is held again.

    A refusal that itself follows from this memory is not kept: else each copy would be near a copy of a copy.
    """
    from_memory = any(signal.name == NEAR_REFUSED for signal in photo.signals)
    if not by_person and (to_state is not PhotoState.REFUSED or from_memory):
        return
    forget(tx, photo.id)
    if to_state is PhotoState.HELD or photo.fingerprint is None:
        return
    hashes = fingerprint.crop_hashes(photo.fingerprint)
    # Who wants a refused photo to be shown crops it; an accepted one is sent again as it is.
    verdict, kept = (
        (HashVerdict.REFUSED, hashes) if to_state is PhotoState.REFUSED else (HashVerdict.ACCEPTED, hashes[:1])
    )
    row = {
        "channel": photo.channel,
        "hashes": kept.tobytes(),
        "fingerprint": photo.fingerprint,
        "verdict": verdict.value,
        "photo_id": photo.id,
        "created_at": now,
    }
    HashRepository(tx).add(row)


def forget(tx: Connection, photo_id: str) -> int:
    """Remove what is remembered of a photo; returns how many hashes that were."""
    return HashRepository(tx).forget([photo_id])


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A known photo that a new one is like. `distance` is between 0 (the same) and 64; `mirrored`: like its mirror."""

    verdict: HashVerdict
    photo_id: str | None
    distance: int
    mirrored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hashes:
    """Hashes, with the row and the crop (an index of `fingerprint.CROPS`) that each belongs to."""

    hashes: NDArray[np.uint64]
    owners: NDArray[np.int64]
    crops: NDArray[np.uint8]


class HashMemory:
    """The hashes of all decided photos, in the memory of this process. Thread-safe.

    The array follows the database: before each lookup what was added since is read. What was removed is not found,
    since every candidate is read from the database.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._hashes = np.zeros(_LEAST_CAPACITY, np.uint64)
        self._owners = np.zeros(_LEAST_CAPACITY, np.int64)
        self._crops = np.zeros(_LEAST_CAPACITY, np.uint8)
        self._size = 0
        self._settled = 0
        self._recent: set[int] = set()
        self._loaded_at = time.monotonic()

    def __len__(self) -> int:
        """How many hashes are in the array."""
        return self._size

    def nearest(self, channel: str, print_: bytes, *, within: int) -> dict[HashVerdict, Near]:
        """The nearest refused and the nearest accepted photo of a channel, as far as they are near enough.

        `print_` is the fingerprint of the new photo. Raises DatabaseUnavailable. Blocks.
        """
        found: dict[HashVerdict, Near] = {}
        for near in self._near(channel, print_, within=within):
            best = found.get(near.verdict)
            if best is None or near.distance < best.distance:
                found[near.verdict] = near
        return found

    def similar(self, channel: str, print_: bytes, *, within: int, limit: int) -> list[Near]:
        """Known photos of a channel that are near enough, the nearest first, each once. Raises as `nearest` does."""
        ordered = sorted(self._near(channel, print_, within=within), key=lambda near: near.distance)
        each_once = {near.photo_id or str(index): near for index, near in reversed(list(enumerate(ordered)))}
        return sorted(each_once.values(), key=lambda near: near.distance)[:limit]

    def _near(self, channel: str, print_: bytes, *, within: int) -> list[Near]:
        found = []
        with self._database.reading() as tx:
            known = self._refreshed(tx)
            for mirrored, seen in ((False, print_), (True, fingerprint.mirrored(print_))):
                for row, crop in _candidates(tx, channel, seen, known):
                    distance = round(fingerprint.distance(row.fingerprint, seen, crop))
                    if distance <= within:
                        verdict = HashVerdict(row.verdict)
                        near = Near(verdict=verdict, photo_id=row.photo_id, distance=distance, mirrored=mirrored)
                        found.append(near)
        return found

    def _refreshed(self, tx: Connection) -> _Hashes:
        """All hashes, with those that were added since the last lookup."""
        with self._lock:
            if time.monotonic() - self._loaded_at > _RELOAD_S:
                # Into a new array: other threads may still compare with the old one.
                self._hashes = np.zeros(_LEAST_CAPACITY, np.uint64)
                self._owners = np.zeros(_LEAST_CAPACITY, np.int64)
                self._crops = np.zeros(_LEAST_CAPACITY, np.uint8)
                self._size, self._settled, self._loaded_at = 0, 0, time.monotonic()
                self._recent = set()
            repository = HashRepository(tx)
            settled_before = self._clock() - _SETTLES_AFTER
            after = self._settled
            while True:
                rows = repository.after(after, limit=_CHUNK)
                for row in rows:
                    self._add(row.seq, row.hashes)
                    if row.created_at < settled_before:
                        self._settled = row.seq
                if len(rows) < _CHUNK:
                    break
                after = rows[-1].seq
            self._recent = {seq for seq in self._recent if seq > self._settled}
            ends = self._size
            return _Hashes(hashes=self._hashes[:ends], owners=self._owners[:ends], crops=self._crops[:ends])

    def _add(self, seq: int, packed: bytes) -> None:
        if seq in self._recent:
            return
        self._recent.add(seq)
        hashes = np.frombuffer(packed, np.uint64)
        end = self._size + hashes.size
        if end > self._hashes.size:
            more = max(end - self._hashes.size, self._hashes.size)
            self._hashes = np.concatenate([self._hashes, np.zeros(more, np.uint64)])
            self._owners = np.concatenate([self._owners, np.zeros(more, np.int64)])
            self._crops = np.concatenate([self._crops, np.zeros(more, np.uint8)])
        self._hashes[self._size : end] = hashes
        self._owners[self._size : end] = seq
        self._crops[self._size : end] = np.arange(hashes.size)
        self._size = end


def _candidates(tx: Connection, channel: str, seen: bytes, known: _Hashes) -> list[tuple[Any, int]]:
    """The rows with a hash near that of `seen`, each with its nearest crop; the nearest rows where there are many."""
    bits = np.bitwise_count(known.hashes ^ np.uint64(fingerprint.hash_of(seen)))
    near = np.flatnonzero(bits <= _CANDIDATE_BITS)
    near = near[np.argsort(bits[near], kind="stable")]
    nearest: dict[int, int] = {}
    for index in near:
        nearest.setdefault(int(known.owners[index]), int(known.crops[index]))
        if len(nearest) == _MOST_CANDIDATES:
            break
    if not nearest:
        return []
    return [(row, nearest[row.seq]) for row in HashRepository(tx).of(channel, nearest)]
