"""Remove the photos of records, and records as a whole, for good: whatever deletes them does it here.

Files go before the rows that name them, so a removal that was interrupted is repeated and ends. A photo stays while
another record names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.db import Database
from shoplens.predictions.entities import PredictionRecord, RecordFilter
from shoplens.predictions.image_store import copy_keys, made_keys
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.storage import Store

MOST_AT_ONCE: Final = 500
"""How many records one transaction changes."""

Owned = Callable[[Connection, Sequence[str]], set[str]]
"""Those of the records that another feature owns, and that go only with what it has."""


class Forgets(Protocol):
    """Whatever keeps copies of what people said of records: label sets."""

    def forget(self, sample_ids: Collection[str]) -> Any:
        """Remove all copies; what it returns is handed to `removed`."""
        ...

    def removed(self, tx: Connection, forgotten: Any) -> bool:
        """Whether the samples may be removed in this transaction; otherwise forget them again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was removed: records, photos (of these records, or alone) and their files."""

    records: int = 0
    photos: int = 0
    files: int = 0

    def __add__(self, other: Removed) -> Removed:
        """Both together."""
        return Removed(
            records=self.records + other.records, photos=self.photos + other.photos, files=self.files + other.files
        )


class Removal:
    """All methods block, for at most `MOST_AT_ONCE` records; they raise DatabaseUnavailable and StorageUnavailable."""

    def __init__(self, database: Database, store: Store, *, owned: Owned, labels: Forgets, audit: AuditLog) -> None:
        self.database: Final = database
        self.owned: Final = owned
        self._store = store
        self._labels = labels
        self._audit = audit

    def records(self, ids: Sequence[str], *, by: Principal, action: str) -> tuple[Removed, int]:
        """Remove records with their photos and feedback; how many stay because others own them is the second number.

        `action` is that of the entry in the audit log. A photo that is classified again at this very moment may be lost
        to its new record.
        """
        with self.database.reading() as tx:
            owned = self.owned(tx, ids)
            own = sorted(set(ids) - owned, reverse=True)
            records = PredictionRepository(tx).page(RecordFilter(ids=tuple(own)), limit=len(ids))
            own = [record.id for record in records]
            keys, photos = removable_keys(tx, records)
        self.files(keys)
        while own:
            with self.database.reading() as tx:
                labelled = FeedbackRepository(tx).said_of(own)
            forgotten = self._labels.forget(labelled)
            with self.database.transaction() as tx:
                if not self._labels.removed(tx, forgotten):
                    continue
                removed = PredictionRepository(tx).remove(own)
                details = {"records": removed, "photos": photos, "oldest": own[-1], "newest": own[0]}
                if removed:
                    self._audit.record(tx, by, action, target=own[0], details=details)
            return Removed(records=removed, photos=photos, files=len(keys)), len(owned)
        return Removed(), len(owned)

    def photos(self, ids: Sequence[str], *, now: datetime, by: Principal, action: str) -> Removed:
        """Remove the photos of records, which stay, and say so from the first moment on.

        The rows are marked before the files go, and no longer name them afterwards.
        """
        with self.database.transaction() as tx:
            repository = PredictionRepository(tx)
            repository.mark_photos(ids, now=now)
            records = repository.page(RecordFilter(ids=tuple(sorted(ids, reverse=True))), limit=len(ids))
            keys, _ = removable_keys(tx, records)
        self.files(keys)
        with self.database.transaction() as tx:
            photos = PredictionRepository(tx).drop_photos(ids)
            if photos:
                details = {"photos": photos, "oldest": min(ids), "newest": max(ids)}
                self._audit.record(tx, by, action, target=max(ids), details=details)
        return Removed(photos=photos, files=len(keys))

    def files(self, keys: Collection[str]) -> None:
        """Delete these; those that are gone already are passed over."""
        for key in keys:
            self._store.delete(key)

    def note(self, tx: Connection, by: Principal, action: str, *, target: str, details: dict[str, Any]) -> None:
        """An entry in the audit log, in the transaction that removes what it speaks of."""
        self._audit.record(tx, by, action, target=target, details=details)


def removable_keys(tx: Connection, records: Sequence[PredictionRecord]) -> tuple[set[str], int]:
    """The keys of what is stored of the photos of these records and that no other record shows; and of how many
    records the photo goes as a whole.

    The copies that are made of a photo have the same keys for all records of it.
    """
    repository = PredictionRepository(tx)
    ids = [record.id for record in records]
    keys: set[str] = set()
    photos = 0
    for record in records:
        if record.image_key is None:
            continue
        shown = repository.photo_elsewhere(record, ids)
        if not shown:
            keys |= copy_keys(record)
            photos += 1
        elif record.image_key not in shown | made_keys(record):
            keys.add(record.image_key)
    return keys, photos
