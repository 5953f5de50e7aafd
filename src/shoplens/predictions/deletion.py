"""Delete records for good: with their photos, the copies of these, and what people said of them.

Files go first and rows last, in chunks, each with its entry in the audit log: one that is interrupted is called again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from shoplens.accounts.entities import Principal
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import PredictionRecord, RecordFilter
from shoplens.predictions.removal import MOST_AT_ONCE, Removal
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.search import MOST_FOUND, RecordSearch

MOST_SELECTED: Final = MOST_AT_ONCE
"""How many records are named one by one, and how many one transaction deletes."""
_LONGEST_S: Final = 20.0


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
        removal: Removal,
        *,
        search: RecordSearch,
        longest_s: float = _LONGEST_S,
    ) -> None:
        self._removal = removal
        self._database = removal.database
        self._search = search
        self._longest_s = longest_s

    def look(self, wanted: RecordFilter) -> Deletable:
        """What `delete` would do. Raises RequestInvalid for too many records that are named one by one."""
        ids, more = self._ids(wanted)
        with self._database.reading() as tx:
            owned: set[str] = set()
            for some in _chunks(ids):
                owned |= self._removal.owned(tx, some)
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
            removed, owned = self._removal.records(some, by=by, action="records.deleted")
            done = replace(
                done,
                records=done.records + removed.records,
                files=done.files + removed.files,
                owned=done.owned + owned,
            )
        return done

    def _ids(self, wanted: RecordFilter) -> tuple[list[str], bool]:
        if wanted.ids is not None and wanted.text is None and len(wanted.ids) > MOST_SELECTED:
            raise RequestInvalid(f"Select at most {MOST_SELECTED} records, or delete by a filter.")
        with self._database.reading() as tx:
            found = self._search.resolve(tx, wanted)
            ids = PredictionRepository(tx).newest_ids(found.wanted, MOST_FOUND + 1)
        return ids[:MOST_FOUND], found.more or len(ids) > MOST_FOUND


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[first : first + MOST_SELECTED] for first in range(0, len(ids), MOST_SELECTED)]
