"""The search in records: the beginning of a file name, an order or an item number, a label, or the id of a record.

Every part is a range of an index and bounded, so a search costs the same however many records there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from shoplens.db.tables import is_id
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository

MOST_FOUND: Final = 10_000
"""How many records a search finds at most, and how far records are counted."""
_MOST_LABELS: Final = 10
_MOST_WORDS: Final = 5
_NOT_SEARCHED: Final = frozenset({"order", "item", "return:"})
"""Words that pages write before numbers."""

FindReferences = Callable[[Connection, str, int], list[str]]
"""The ids of at most so many records whose order or item number begins with a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A filter whose text was looked up. `more`: so many match that not all of them were found."""

    wanted: RecordFilter
    more: bool = False


def resolve(tx: Connection, wanted: RecordFilter, references: FindReferences) -> Found:
    """The filter with the ids of the records that its text finds; the same one where it has no text.

    Several words find what all of them find, and what the whole text finds.
    """
    if wanted.text is None or wanted.ids is not None:
        return Found(wanted=wanted)
    found = _Search(tx, references)
    words = [word for word in wanted.text.replace(",", " ").split() if word.casefold() not in _NOT_SEARCHED]
    ids = found.ids_of(wanted.text)
    if words and words != [wanted.text]:
        ids |= set.intersection(*(found.ids_of(word) for word in words[:_MOST_WORDS]))
    newest = tuple(sorted(ids, reverse=True)[:MOST_FOUND])
    return Found(wanted=replace(wanted, ids=newest), more=found.more or len(ids) > MOST_FOUND)


class _Search:
    def __init__(self, tx: Connection, references: FindReferences) -> None:
        self._tx = tx
        self._references = references
        self.more = False

    def ids_of(self, text: str) -> set[str]:
        """The ids that a text finds in any way."""
        ids: set[str] = {text.lower()} if is_id(text.lower()) else set()
        for some in self._parts(text):
            self.more |= len(some) > MOST_FOUND
            ids.update(some)
        return ids

    def _parts(self, text: str) -> Iterator[list[str]]:
        repository, most = PredictionRepository(self._tx), MOST_FOUND + 1
        yield repository.named(text, most)
        yield self._references(self._tx, text, most)
        labels = [each for each in repository.labels() if text.casefold() in each.casefold()]
        self.more |= len(labels) > _MOST_LABELS
        for label in labels[:_MOST_LABELS]:
            yield repository.newest_ids(RecordFilter(label=label), most)
