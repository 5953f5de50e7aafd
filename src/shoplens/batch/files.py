"""Move photos to the keys that their rows name. Rows are committed first, so a crash leaves a list of moves.

Every step can be repeated, also by several processes at once: a move to where the photo already is does nothing, and a
move is noted in a row only while the row still names that target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from shoplens.batch.entities import BatchItem
from shoplens.batch.repository import ItemRepository
from shoplens.db import Database
from shoplens.errors import BlobNotFound, ImageGone
from shoplens.messages import marked
from shoplens.predictions.entities import PredictionRecord
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger

MOVE_THREADS: Final = 16
_LEAST_PER_THREAD: Final = 16
_PAGE: Final = 500
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The photo of one item, from one key to another."""

    item_id: str
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Ids of items with the target keys of their photos: those that arrived, and those that are missing."""

    arrived: tuple[tuple[str, str], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to note."""
        return bool(self.arrived or self.missing)


class PhotoMover:
    """Moves many photos in parallel, since a bucket takes long for each, and syncs folders once for all."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(MOVE_THREADS, thread_name_prefix="moves")

    def __call__(self, moves: Sequence[Move]) -> Moved:
        """Move all. On a local disk the moves survive a power failure. After StorageUnavailable call it again."""
        size = max(_LEAST_PER_THREAD, -(-len(moves) // MOVE_THREADS))
        parts = [moves[at : at + size] for at in range(0, len(moves), size)]
        results = (
            [self._move(part) for part in parts] if len(parts) == 1 else list(self._threads.map(self._move, parts))
        )
        self._store.sync(key for move in moves for key in (move.source, move.target))
        return Moved(
            arrived=tuple(each for part in results for each in part.arrived),
            missing=tuple(each for part in results for each in part.missing),
        )

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown()

    def _move(self, moves: Sequence[Move]) -> Moved:
        arrived, missing = [], []
        for move in moves:
            try:
                self._store.move(move.source, move.target, durable=False)
            except BlobNotFound:
                missing.append((move.item_id, move.target))
            else:
                arrived.append((move.item_id, move.target))
        return Moved(arrived=tuple(arrived), missing=tuple(missing))


def note_moves(tx: Connection, moved: Moved) -> None:
    """Write finished moves into the rows, in the caller's transaction."""
    ItemRepository(tx).moved(moved.arrived)
    ItemRepository(tx).lost(
        moved.missing, code=ImageGone.code, failure=marked("The photo is neither at its old place nor at its new one.")
    )


def finish_moves(
    database: Database, store: Store, channel: str, *, retry: Callable[[Callable[[], int]], int] = lambda act: act()
) -> int:
    """Finish the outstanding moves of a channel, each page of them within `retry`; how many.

    Raises StorageUnavailable and DatabaseUnavailable.
    """
    done, last = 0, 0
    with closing(PhotoMover(store)) as mover:
        while True:
            with database.reading() as tx:
                page = ItemRepository(tx).moving(channel, limit=_PAGE, beyond=last)
            if not page:
                return done
            done += retry(partial(_finish, database, mover, page))
            last = page[-1].seq


def finish_move(database: Database, store: Store, item_id: str) -> BatchItem:
    """Finish the outstanding move of one item, if there is one; the item as it is then.

    Raises ItemNotFound, StorageUnavailable and DatabaseUnavailable.
    """
    with database.reading() as tx:
        item = ItemRepository(tx).get(item_id)
    if item.target_key is None:
        return item
    with closing(PhotoMover(store)) as mover:
        _finish(database, mover, [item])
    with database.reading() as tx:
        return ItemRepository(tx).get(item_id)


def _finish(database: Database, mover: PhotoMover, found: Sequence[BatchItem]) -> int:
    moves = [
        Move(item_id=item.id, source=item.key, target=item.target_key)
        for item in found
        if item.key is not None and item.target_key is not None
    ]
    moved = mover(moves)
    with database.transaction() as tx:
        note_moves(tx, moved)
    for item_id, target in moved.missing:
        _log.error("batch.photo_missing", item=item_id, key=target)
    return len(found)


class MovedPhotos:
    """The other key of a photo that is being moved; for `ImageStore(moved_to=…)`. Blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self, record: PredictionRecord) -> str | None:
        """The other key; None for photos that are not moved."""
        with self._database.reading() as tx:
            item = ItemRepository(tx).by_prediction(record.id)
        if item is None:
            return None
        return item.key if item.key != record.image_key else item.target_key
