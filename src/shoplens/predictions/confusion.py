"""What people say that records show, against what was predicted: the confusion matrix of what a model did here.

Both the counts of its cells and the records of one cell come from the same rows, so they agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from shoplens.bundles.manifest import ModelRef
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.tables import feedback, predictions

MOST_ANSWERS: Final = 20_000
"""How many of the newest answers are read, so that the page costs the same however many there are."""
_SAID_LABEL: Final = {FeedbackValue.RIGHT.value, FeedbackValue.WRONG.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """What a person said last of one prediction. `truth` is None where they named no label."""

    prediction_id: str
    predicted: str
    truth: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often each label was predicted (`counts[truth][predicted]`) where a person said what it is.

    `labels` are those that occur, the most frequent truth first. `unlabelled` predictions were answered without a
    label. `more`: there are older answers that were not read.
    """

    labels: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    unlabelled: int
    more: bool

    @property
    def answered(self) -> int:
        """How many predictions the matrix holds."""
        return sum(sum(row.values()) for row in self.counts.values())


def last_words(tx: Connection, model: ModelRef | None) -> tuple[list[LastWord], bool]:
    """The last word on each prediction (of a model) that the newest answers are about; whether there are older ones."""
    newest = (
        select(feedback.c.id, feedback.c.prediction_id, feedback.c.verdict, feedback.c.label)
        .where(feedback.c.withdrawn_at.is_(None))
        .order_by(feedback.c.id.desc())
        .limit(MOST_ANSWERS + 1)
        .subquery()
    )
    query = select(newest, predictions.c.top_label, predictions.c.model_name, predictions.c.model_version)
    rows = tx.execute(query.join(predictions, predictions.c.id == newest.c.prediction_id).order_by(newest.c.id.desc()))
    found: dict[str, LastWord] = {}
    read = 0
    for row in rows:
        read += 1
        if read > MOST_ANSWERS or row.prediction_id in found:
            continue
        if model is not None and (row.model_name, row.model_version) != (model.name, model.version):
            continue
        right = row.verdict == FeedbackValue.RIGHT
        truth = (row.label or (row.top_label if right else None)) if row.verdict in _SAID_LABEL else None
        found[row.prediction_id] = LastWord(prediction_id=row.prediction_id, predicted=row.top_label, truth=truth)
    return list(found.values()), read > MOST_ANSWERS


def confusion(tx: Connection, model: ModelRef) -> Confusion:
    """The matrix of one version of a model."""
    words, more = last_words(tx, model)
    counts: dict[str, Counter[str]] = {}
    for word in words:
        if word.truth is not None:
            counts.setdefault(word.truth, Counter())[word.predicted] += 1
    by_size = sorted(counts, key=lambda label: (-counts[label].total(), label))
    predicted = sorted({label for row in counts.values() for label in row} - counts.keys())
    return Confusion(
        labels=(*by_size, *predicted),
        counts=counts,
        unlabelled=sum(word.truth is None for word in words),
        more=more,
    )
