"""Delete records for good: with their photos, the copies of these, and what people said of them.

Files go first and rows last, in chunks, each with its entry in the audit log: one that is interrupted is called again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import PredictionRecord, RecordFilter
from shoplens.predictions.image_store import copy_keys
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.search import MOST_FOUND, RecordSearch
from shoplens.storage import Store

MOST_SELECTED: Final = 500
"""How many records are named one by one, and how many one transaction deletes."""
_LONGEST_S: Final = 20.0

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
class Deletable:
    """What a deletion would do: `records` are deleted, `owned` stay, because they belong to a run or its like.

    `more`: more match than one deletion looks at. `newest` is the id of the newest one; later ones are left alone.
    """

    records: int
    owned: int
    more: bool
    newest: str
    examples: tuple[PredictionRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What a deletion did. `left`: its time was over before all was deleted."""

    records: int = 0
    files: int = 0
    owned: int = 0
    left: bool = False


class DeletionService:
    """All methods block; they raise DatabaseUnavailable and StorageUnavailable."""

    def __init__(
        self,
        database: Database,
        store: Store,
        *,
        search: RecordSearch,
        owned: Owned,
        labels: Forgets,
        audit: AuditLog,
        longest_s: float = _LONGEST_S,
    ) -> None:
        self._database = database
        self._store = store
        self._search = search
        self._owned = owned
        self._labels = labels
        self._audit = audit
        self._longest_s = longest_s

    def look(self, wanted: RecordFilter) -> Deletable:
        """What `delete` would do. Raises RequestInvalid for too many records that are named one by one."""
        ids, more = self._ids(wanted)
        with self._database.reading() as tx:
            owned: set[str] = set()
            for some in _chunks(ids):
                owned |= self._owned(tx, some)
            own = [each for each in ids if each not in owned]
            examples = PredictionRepository(tx).page(RecordFilter(ids=tuple(own[:6])), limit=6)
        return Deletable(
            records=len(own), owned=len(owned), more=more, newest=ids[0] if ids else "", examples=tuple(examples)
        )

    def delete(self, wanted: RecordFilter, *, newest: str, by: Principal) -> Deleted:
        """Delete the records that match and are not newer than the id `newest`, for about twenty seconds.

        A photo stays while another record has it. One that is classified again at this very moment may be lost to its
        new record. Raises RequestInvalid as `look`.
        """
        give_up_at = time.monotonic() + self._longest_s
        ids, more = self._ids(wanted)
        done = Deleted(left=more)
        for some in _chunks([each for each in ids if each <= newest]):
            if time.monotonic() > give_up_at:
                return replace(done, left=True)
            records, files, owned = self._delete_some(some, by)
            done = replace(done, records=done.records + records, files=done.files + files, owned=done.owned + owned)
        return done

    def _ids(self, wanted: RecordFilter) -> tuple[list[str], bool]:
        if wanted.ids is not None and wanted.text is None and len(wanted.ids) > MOST_SELECTED:
            raise RequestInvalid(f"Select at most {MOST_SELECTED} records, or delete by a filter.")
        with self._database.reading() as tx:
            found = self._search.resolve(tx, wanted)
            ids = PredictionRepository(tx).newest_ids(found.wanted, MOST_FOUND + 1)
        return ids[:MOST_FOUND], found.more or len(ids) > MOST_FOUND

    def _delete_some(self, ids: Sequence[str], by: Principal) -> tuple[int, int, int]:
        """How many records and files were deleted, and how many records stay because others own them."""
        with self._database.reading() as tx:
            owned = self._owned(tx, ids)
            repository = PredictionRepository(tx)
            records = repository.page(RecordFilter(ids=tuple(sorted(set(ids) - owned, reverse=True))), limit=len(ids))
            own = [record.id for record in records]
            alone = [each for each in records if each.has_photo and not repository.others_have(each, own)]
        keys = {key for record in alone for key in copy_keys(record)}
        for key in keys:
            self._store.delete(key)
        while own:
            forgotten = self._labels.forget(own)
            with self._database.transaction() as tx:
                if not self._labels.removed(tx, forgotten):
                    continue
                removed = PredictionRepository(tx).remove(own)
                details = {"records": removed, "photos": len(alone), "oldest": own[-1], "newest": own[0]}
                self._audit.record(tx, by, "records.deleted", target=own[0], details=details)
            return removed, len(keys), len(owned)
        return 0, 0, len(owned)


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[first : first + MOST_SELECTED] for first in range(0, len(ids), MOST_SELECTED)]
