"""The search in records: by file name, order or item number, label and id, and by what people said that they show.

Of names and numbers the beginning is enough.

Every part is a range of an index and bounded, so a search costs the same however many records there are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection

from shoplens.db.tables import is_id
from shoplens.predictions.confusion import last_words
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSearch:
    """Looks up what people search for. `label_names` are the names of labels for people, by label.

    `references` finds what other features know of records.
    """

    references: FindReferences = lambda *_: []
    label_names: Mapping[str, Collection[str]] = field(default_factory=dict)

    def resolve(self, tx: Connection, wanted: RecordFilter) -> Found:
        """The filter with the ids of the records that its text and its truth find; the same one where it has none.

        Several words find what all of them find, and what the whole text finds.
        """
        if wanted.ids is not None or (wanted.text is None and wanted.truth is None):
            return Found(wanted=wanted)
        found: list[set[str]] = []
        more = False
        if wanted.text is not None:
            ids, more = self._ids_of_words(tx, wanted.text)
            found.append(ids)
        if wanted.truth is not None:
            words, older = last_words(tx, wanted.model)
            found.append({word.prediction_id for word in words if word.truth == wanted.truth})
            more |= older
        newest = sorted(set.intersection(*found), reverse=True)
        return Found(wanted=replace(wanted, ids=tuple(newest[:MOST_FOUND])), more=more or len(newest) > MOST_FOUND)

    def _ids_of_words(self, tx: Connection, text: str) -> tuple[set[str], bool]:
        ids, more = self._ids_of(tx, text)
        words = [word for word in text.replace(",", " ").split() if word.casefold() not in _NOT_SEARCHED]
        if words and words != [text]:
            each = [self._ids_of(tx, word) for word in words[:_MOST_WORDS]]
            ids |= set.intersection(*(found for found, _ in each))
            more |= any(beyond for _, beyond in each)
        return ids, more

    def _ids_of(self, tx: Connection, text: str) -> tuple[set[str], bool]:
        """The ids that a text finds in any way; whether so many that some were left out."""
        repository, most = PredictionRepository(tx), MOST_FOUND + 1
        labels = [each for each in repository.labels() if self._is_called(each, text.casefold())]
        parts = [
            repository.named(text, most),
            self.references(tx, text, most),
            *(repository.newest_ids(RecordFilter(label=label), most) for label in labels[:_MOST_LABELS]),
        ]
        ids = {text.lower()} if is_id(text.lower()) else set[str]()
        return ids.union(*parts), len(labels) > _MOST_LABELS or any(len(part) > MOST_FOUND for part in parts)

    def _is_called(self, label: str, text: str) -> bool:
        return any(text in name.casefold() for name in (label, *self.label_names.get(label, ())))
