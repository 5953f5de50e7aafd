"""Bring photos to where the rows say that they belong. The rows are committed first, so any crash leaves a list to do.

Every step can be done again, and by several processes at once: a move to where the photo is already does nothing, and
a row takes note of an arrival only while it still wants the photo at that place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from shoplens.batch.entities import BatchItem
from shoplens.db import Database
from shoplens.db.uow import UnitOfWork
from shoplens.errors import BlobNotFound, ImageGone
from shoplens.storage import Store

Attempt = Callable[[Callable[[], int]], int]
"""Does what it is given; may do it again and again, as Patience does."""

MOVE_THREADS: Final = 16
_LEAST_PER_THREAD: Final = 16
_PAGE: Final = 500
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The photo of one item on its way."""

    item_id: str
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Ids of items with the keys that their photos were to come to: those that came, and those that are nowhere."""

    arrived: tuple[tuple[str, str], ...] = ()
    gone: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to take note of."""
        return bool(self.arrived or self.gone)


class MovePhotos:
    """Moves many photos at once: a bucket takes its time for each, and a disk its time for each fsync."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(MOVE_THREADS, thread_name_prefix="moves")

    def __call__(self, moves: Sequence[Move]) -> Moved:
        """Returns when all are where they belong, on a local disk also after a loss of power.

        Raises StorageUnavailable; those that were moved until then do no harm, they are just moved again.
        """
        size = max(_LEAST_PER_THREAD, -(-len(moves) // MOVE_THREADS))
        parts = [moves[at : at + size] for at in range(0, len(moves), size)]
        results = (
            [self._move(part) for part in parts] if len(parts) == 1 else list(self._threads.map(self._move, parts))
        )
        self._store.sync(key for move in moves for key in (move.source, move.target))
        return Moved(
            arrived=tuple(each for part in results for each in part.arrived),
            gone=tuple(each for part in results for each in part.gone),
        )

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown()

    def _move(self, moves: Sequence[Move]) -> Moved:
        gone = [(move.item_id, move.target) for move in moves if not self._arrives(move)]
        lost = dict(gone)
        arrived = [(move.item_id, move.target) for move in moves if move.item_id not in lost]
        return Moved(arrived=tuple(arrived), gone=tuple(gone))

    def _arrives(self, move: Move) -> bool:
        try:
            self._store.move(move.source, move.target, durable=False)
        except BlobNotFound:
            return False
        return True


def note(work: UnitOfWork, moved: Moved) -> None:
    """Let the rows know, in a transaction of somebody else's."""
    work.batch_items.moved(moved.arrived)
    work.batch_items.lost(
        moved.gone, code=ImageGone.code, failure="The photo was neither where it was nor where it was to go."
    )


def outstanding(found: Iterable[BatchItem]) -> list[Move]:
    """The moves that these items wait for."""
    return [
        Move(item_id=item.id, source=item.key, target=item.target_key)
        for item in found
        if item.key is not None and item.target_key is not None
    ]


def finish_moves(database: Database, store: Store, channel: str, *, attempt: Attempt | None = None) -> int:
    """Bring every photo that is on its way to where it belongs, whoever sent it; how many there were.

    `attempt` may do a page again when database or store are away. Raises StorageUnavailable and DatabaseUnavailable.
    """
    movers = MovePhotos(store)
    done, last = 0, 0
    try:
        while page := _page(database, channel, beyond=last):
            done += (attempt or _once)(partial(_finish, database, movers, page))
            last = page[-1].seq
    finally:
        movers.close()
    return done


def finish_move(database: Database, store: Store, item_id: str) -> BatchItem:
    """Bring the photo of one item to where it belongs now, if it is on its way. The item as it then is.

    Raises ItemNotFound, StorageUnavailable and DatabaseUnavailable.
    """
    with database.read_uow() as work:
        item = work.batch_items.get(item_id)
    if item.target_key is None:
        return item
    movers = MovePhotos(store)
    try:
        _finish(database, movers, [item])
    finally:
        movers.close()
    with database.read_uow() as work:
        return work.batch_items.get(item_id)


def _once(act: Callable[[], int]) -> int:
    return act()


def _page(database: Database, channel: str, *, beyond: int) -> list[BatchItem]:
    with database.read_uow() as work:
        return work.batch_items.moving(channel, limit=_PAGE, beyond=beyond)


def _finish(database: Database, movers: MovePhotos, found: Sequence[BatchItem]) -> int:
    moved = movers(outstanding(found))
    with database.uow() as work:
        note(work, moved)
    for item_id, target in moved.gone:
        _log.error("returns.photo_gone", item=item_id, key=target)
    return len(found)
