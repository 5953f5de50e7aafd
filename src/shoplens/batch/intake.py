"""Turn photos into items: content into the store, then a row, committed; only then is the photo ours.

Any of these steps may be the last before a crash, and all may be done again. The id, and with it the place in the
store, follows from content and name, so that doing it again writes over the same place instead of beside it. What two
processes do at once is settled by the database: the content of a photo is one item.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.batch.entities import BatchItem, ItemState, References, incoming_key, target_key
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.db.uow import UnitOfWork
from shoplens.errors import ImageMissing, ImageTooLarge, ImageUnsupported, RecordRefused, SampleError
from shoplens.images.headers import sniff
from shoplens.storage import Store

_LATEST_MS: Final = (1 << 48) - 1
_SNIFFED_BYTES: Final = 4_096
_SUFFIXES: Final = {"jpeg": "jpg"}
_NO_PICTURE: Final = "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file that came. `pieces` yields its content anew each time it is called; `changed_ms` is since 1970."""

    name: str
    byte_count: int
    changed_ms: int
    pieces: Callable[[], Iterable[bytes]]
    references: References
    stamp: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An item that can be committed. `stored`: its content is in the store."""

    item: BatchItem
    stored: bool


class Verdict(StrEnum):
    """What became of a file."""

    TAKEN = "taken"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicate"
    KNOWN = "known"
    """This content came under this name before: nothing to do."""
    REFUSED = "refused"
    """The database does not take its row; the file stays where it is."""


class Claims:
    """Which of several equal photos in one batch is stored: the first that asks."""

    def __init__(self) -> None:
        self._made: set[str] = set()
        self._lock = threading.Lock()

    def make(self, sha256: str) -> bool:
        """Whether nobody claimed this content before."""
        with self._lock:
            first = sha256 not in self._made
            self._made.add(sha256)
            return first


class Intake:
    """Both halves of taking photos in: `prepare` for each, in any thread, and `commit` for many. Raises
    StorageUnavailable and DatabaseUnavailable; then nothing was committed.
    """

    def __init__(
        self, database: Database, store: Store, *, channel: str, clock: Callable[[], datetime], max_image_bytes: int
    ) -> None:
        self._database = database
        self._store = store
        self._channel = channel
        self._clock = clock
        self._max_image_bytes = max_image_bytes

    def prepare(self, content: Content, claims: Claims) -> Prepared:
        """Hash it, and store it durably unless its photo is there already. `claims` are those of its batch.

        Raises whatever `content.pieces` raises.
        """
        item = self._item(content, *_digest(content.pieces()))
        stored = self._is_wanted(item, claims)
        if stored and content.byte_count <= self._max_image_bytes:
            self._store.put(_key(item), b"".join(content.pieces()), durable=True)
        elif stored:
            self._store.put_pieces(_key(item), content.pieces())
        return Prepared(item=item, stored=stored)

    def commit(self, prepared: Sequence[Prepared]) -> dict[str, Verdict]:
        """Write the rows of a batch, in one transaction if the database takes all; verdicts by the ids of the items."""
        try:
            return self._written(prepared)
        except RecordRefused:
            verdicts: dict[str, Verdict] = {}
            for each in _stored_first(prepared):
                verdicts |= self._written_alone(each)
            return verdicts

    def _item(self, content: Content, sha256: str, start: bytes) -> BatchItem:
        entropy = hashlib.sha256(f"{self._channel}\0{sha256}\0{content.name}".encode()).digest()[:10]
        item_id = make_id(min(content.changed_ms, _LATEST_MS), entropy)
        key = incoming_key(self._channel, item_id, content.name, _suffix(start))
        refusal = self._refusal(content.byte_count)
        return BatchItem(
            id=item_id,
            channel=self._channel,
            received_at=self._clock(),
            source_name=content.name,
            source_stamp=content.stamp,
            references=content.references,
            sha256=sha256,
            byte_count=content.byte_count,
            state=ItemState.QUARANTINED if refusal else ItemState.WAITING,
            key=target_key(ItemState.QUARANTINED, None, key) if refusal else key,
            failure_code=refusal.code if refusal else None,
            failure=str(refusal) if refusal else None,
        )

    def _refusal(self, byte_count: int) -> SampleError | None:
        """What can be told without looking inside."""
        if byte_count == 0:
            return ImageMissing("The file is empty.")
        if byte_count > self._max_image_bytes:
            sizes = f"{byte_count / 1e6:.1f} MB, more than the {self._max_image_bytes / 1e6:g} MB"
            return ImageTooLarge(f"The file has {sizes} that are allowed.")
        return None

    def _is_wanted(self, item: BatchItem, claims: Claims) -> bool:
        with self._database.read_uow() as work:
            if work.batch_items.known_arrivals(self._channel, [(item.sha256, item.source_name)]):
                return False
            if _is_alone(item):
                return True
            return not work.batch_items.with_contents(self._channel, [item.sha256]) and claims.make(item.sha256)

    def _written(self, prepared: Sequence[Prepared]) -> dict[str, Verdict]:
        with self._database.uow() as work:
            verdicts = _write(work, self._channel, prepared)
            for each in prepared:
                if each.stored and verdicts[each.item.id] in (Verdict.DUPLICATE, Verdict.KNOWN):
                    self._discard(work, each.item)
            return verdicts

    def _written_alone(self, each: Prepared) -> dict[str, Verdict]:
        """Somebody else's row may have come between looking and writing; the second time it is seen."""
        for _ in range(2):
            try:
                return self._written([each])
            except RecordRefused:
                continue
        return {each.item.id: Verdict.REFUSED}

    def _discard(self, work: UnitOfWork, item: BatchItem) -> None:
        """Another process was quicker, so what was stored for this item is nobody's, unless it did so for the same.

        This is rare, and done before the commit, so that no crash can leave it behind.
        """
        row = work.batch_items.arrival(self._channel, item.sha256, item.source_name)
        if row is None or row.key != item.key:
            self._store.delete(_key(item))
        elif row.target_key is not None:  # it is being moved, and may have been put back to where it came from
            self._store.move(_key(item), row.target_key)


def _write(work: UnitOfWork, channel: str, prepared: Sequence[Prepared]) -> dict[str, Verdict]:
    items = [each.item for each in prepared]
    work.batch_items.hold_arrivals()
    known = work.batch_items.known_arrivals(channel, [(item.sha256, item.source_name) for item in items])
    firsts = work.batch_items.with_contents(channel, [item.sha256 for item in items])
    verdicts: dict[str, Verdict] = {}
    rows: list[BatchItem] = []
    for each in _stored_first(prepared):
        row = _row(each, firsts.get(each.item.sha256))
        arrival = (each.item.sha256, each.item.source_name)
        verdicts[each.item.id] = _verdict(row, is_known=arrival in known)
        if row is not None and arrival not in known:
            rows.append(row)
            known.add(arrival)
            firsts.setdefault(row.sha256, row)
    work.batch_items.add_many(rows)
    return verdicts


def _row(each: Prepared, first: BatchItem | None) -> BatchItem | None:
    """How an item is written when `first` has its content already; None when its photo is nowhere."""
    if first is None or _is_alone(each.item):
        return replace(each.item, duplicate_of=first.id if first else None) if each.stored else None
    return replace(
        each.item, state=ItemState.DUPLICATE, key=None, duplicate_of=first.id, failure_code=None, failure=None
    )


def _verdict(row: BatchItem | None, *, is_known: bool) -> Verdict:
    if is_known:
        return Verdict.KNOWN
    if row is None:
        return Verdict.REFUSED
    return {ItemState.QUARANTINED: Verdict.QUARANTINED, ItemState.DUPLICATE: Verdict.DUPLICATE}.get(
        row.state, Verdict.TAKEN
    )


def _is_alone(item: BatchItem) -> bool:
    """Whether equal content means nothing: each empty file is a photo that somebody failed to send."""
    return item.byte_count == 0


def _stored_first(prepared: Sequence[Prepared]) -> list[Prepared]:
    """So that those that rely on another one of their batch come after it."""
    return sorted(prepared, key=lambda each: not each.stored)


def _digest(pieces: Iterable[bytes]) -> tuple[str, bytes]:
    """The hash of everything, and its first bytes."""
    digest, start = hashlib.sha256(), b""
    for piece in pieces:
        digest.update(piece)
        start = start or piece[:_SNIFFED_BYTES]
    return digest.hexdigest(), start


def _suffix(start: bytes) -> str:
    """By the content: what calls itself a photo and is a page of HTML shall never be sent to a browser as such."""
    try:
        kind = sniff(start)
    except (ImageMissing, ImageUnsupported):
        return _NO_PICTURE
    return _SUFFIXES.get(kind, kind)


def _key(item: BatchItem) -> str:
    assert item.key is not None
    return item.key
