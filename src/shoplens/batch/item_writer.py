"""Turn files into items, each content once per channel: first the content into the store, then the row.

A crash may follow any step, and every step can be repeated. The id of an item, and with it the key of its content,
follows from channel, content and name, so a repetition overwrites the same object. Two processes that import the same
file at once are distinguished by the unique keys of the database.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.batch.entities import BatchItem, ItemState, References, incoming_key, target_key
from shoplens.batch.repository import ItemRepository
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import ImageMissing, ImageTooLarge, ImageUnsupported, RecordRefused, SampleError
from shoplens.images.headers import sniff
from shoplens.storage import Store

_LATEST_MS: Final = (1 << 48) - 1
_SNIFFED_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to import. Each call of `chunks` yields its content from the start; `changed_ms` is since 1970."""

    name: str
    byte_count: int
    changed_ms: int
    chunks: Callable[[], Iterable[bytes]]
    references: References
    stamp: str | None = None


def in_memory(data: bytes) -> Callable[[], Iterable[bytes]]:
    """The `chunks` of a file that was read already."""
    return lambda: (data,)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedItem:
    """An item that can be committed. `stored`: this process put its content into the store."""

    item: BatchItem
    stored: bool


class ImportOutcome(StrEnum):
    """What became of a file. The values are the names of the counts of an import."""

    TAKEN = "taken"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicates"
    KNOWN = "known"
    """This content was imported under this name before."""
    REFUSED = "refused"
    """The database does not accept the row. The file stays in the source."""


class Dedup:
    """Decides which of several equal files of one batch is stored: the first. Thread-safe."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def is_first(self, sha256: str) -> bool:
        """Whether this content was not asked for before."""
        with self._lock:
            first = sha256 not in self._seen
            self._seen.add(sha256)
            return first


class ItemWriter:
    """Writes items of one channel: `prepare` for each file, in any thread, then `commit` for many.

    Both raise StorageUnavailable and DatabaseUnavailable; then nothing was committed.
    """

    def __init__(
        self, database: Database, store: Store, *, channel: str, clock: Callable[[], datetime], max_image_bytes: int
    ) -> None:
        self._database = database
        self._store = store
        self._channel = channel
        self._clock = clock
        self._max_image_bytes = max_image_bytes

    def prepare(self, file: NewFile, dedup: Dedup) -> PreparedItem:
        """Hash the content, and store it durably unless it is known. `dedup` is that of the batch.

        Files of more than `max_image_bytes` are read twice and never held in memory. Raises what `file.chunks` raises.
        """
        digest, start = hashlib.sha256(), b""
        for chunk in file.chunks():
            digest.update(chunk)
            start = start or chunk[:_SNIFFED_BYTES]
        item = self._item(file, digest.hexdigest(), start)
        with self._database.reading() as tx:
            items = ItemRepository(tx)
            known = items.known_arrivals(self._channel, [(item.sha256, item.source_name)])
            is_new = not known and (_is_empty(item) or not items.with_contents(self._channel, [item.sha256]))
        stored = is_new and (_is_empty(item) or dedup.is_first(item.sha256))
        if stored and file.byte_count <= self._max_image_bytes:
            self._store.put(_key(item), b"".join(file.chunks()), durable=True)
        elif stored:
            self._store.put_pieces(_key(item), file.chunks())
        return PreparedItem(item=item, stored=stored)

    def commit(self, prepared: Sequence[PreparedItem]) -> dict[str, ImportOutcome]:
        """Add the rows of a batch, in one transaction if the database accepts all. Outcomes by item id."""
        # Items whose content is stored come before their duplicates.
        ordered = sorted(prepared, key=lambda each: not each.stored)
        with suppress(RecordRefused):
            return self._commit(ordered)
        outcomes: dict[str, ImportOutcome] = {}
        for each in ordered:
            outcomes[each.item.id] = ImportOutcome.REFUSED
            for _ in range(2):  # another process may add the same file between the look and the insert
                with suppress(RecordRefused):
                    outcomes |= self._commit([each])
                    break
        return outcomes

    def _item(self, file: NewFile, sha256: str, start: bytes) -> BatchItem:
        refusal: SampleError | None = None
        if file.byte_count == 0:
            refusal = ImageMissing("The file is empty.")
        elif file.byte_count > self._max_image_bytes:
            size_mb, most_mb = file.byte_count / 1e6, self._max_image_bytes / 1e6
            refusal = ImageTooLarge(f"The file has {size_mb:.1f} MB, more than the {most_mb:g} MB that are allowed.")
        # The extension follows from the content: an HTML page called photo.jpg must never be served as a photo.
        try:
            kind = sniff(start)
        except (ImageMissing, ImageUnsupported):
            kind = "bin"
        entropy = hashlib.sha256(f"{self._channel}\0{sha256}\0{file.name}".encode()).digest()[:10]
        item_id = make_id(min(file.changed_ms, _LATEST_MS), entropy)
        key = incoming_key(self._channel, item_id, file.name, "jpg" if kind == "jpeg" else kind)
        return BatchItem(
            id=item_id,
            channel=self._channel,
            received_at=self._clock(),
            source_name=file.name,
            source_stamp=file.stamp,
            references=file.references,
            sha256=sha256,
            byte_count=file.byte_count,
            state=ItemState.QUARANTINED if refusal else ItemState.WAITING,
            key=target_key(ItemState.QUARANTINED, None, key) if refusal else key,
            failure_code=refusal.code if refusal else None,
            failure=str(refusal) if refusal else None,
        )

    def _commit(self, prepared: Sequence[PreparedItem]) -> dict[str, ImportOutcome]:
        outcomes: dict[str, ImportOutcome] = {}
        rows: list[BatchItem] = []
        with self._database.transaction() as tx:
            items = ItemRepository(tx)
            items.hold_arrivals()
            arrivals = [(each.item.sha256, each.item.source_name) for each in prepared]
            known = items.known_arrivals(self._channel, arrivals)
            originals = items.with_contents(self._channel, [sha256 for sha256, _ in arrivals])
            for each, arrival in zip(prepared, arrivals, strict=True):
                row = _row(each, originals.get(each.item.sha256))
                if arrival in known:
                    outcome = ImportOutcome.KNOWN
                elif row is None:
                    outcome = ImportOutcome.REFUSED
                else:
                    outcome = _OUTCOMES[row.state]
                    rows.append(row)
                    known.add(arrival)
                    originals.setdefault(row.sha256, row)
                outcomes[each.item.id] = outcome
            items.add_many(rows)
            for each in prepared:
                if each.stored and outcomes[each.item.id] in (ImportOutcome.DUPLICATE, ImportOutcome.KNOWN):
                    self._discard(items, each.item)
        return outcomes

    def _discard(self, items: ItemRepository, item: BatchItem) -> None:
        """Delete our copy, because another process was faster; unless it stored the same item under the same key.

        This happens before the commit, so no crash can leave the copy behind.
        """
        row = items.arrival(self._channel, item.sha256, item.source_name)
        if row is None or row.key != item.key:
            self._store.delete(_key(item))
        elif row.target_key is not None:  # a run is moving the photo, and our copy is at its old place
            self._store.move(_key(item), row.target_key)


_OUTCOMES: Final = {
    ItemState.WAITING: ImportOutcome.TAKEN,
    ItemState.QUARANTINED: ImportOutcome.QUARANTINED,
    ItemState.DUPLICATE: ImportOutcome.DUPLICATE,
}


def _row(each: PreparedItem, original: BatchItem | None) -> BatchItem | None:
    """The item as it is written if `original` already has its content; None if its content is not in the store."""
    if original is None or _is_empty(each.item):
        return replace(each.item, duplicate_of=original.id if original else None) if each.stored else None
    return replace(
        each.item, state=ItemState.DUPLICATE, key=None, duplicate_of=original.id, failure_code=None, failure=None
    )


def _is_empty(item: BatchItem) -> bool:
    """Empty files are never duplicates: each is a photo that was not sent correctly, and is quarantined by itself."""
    return item.byte_count == 0


def _key(item: BatchItem) -> str:
    assert item.key is not None
    return item.key
