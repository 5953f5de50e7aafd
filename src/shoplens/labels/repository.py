"""Label sets in the database, and feedback as labels, over a transaction that the caller opened."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.orm import aliased

from shoplens.db.tables import from_row, to_row
from shoplens.labels.entities import Label, LabelSet
from shoplens.labels.tables import label_removals, label_sets
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.tables import feedback, predictions

FEEDBACK: Final = "feedback"
"""`source` of the labels that come from feedback on predictions."""

_sets: Final = label_sets.c


class LabelSetRepository:
    """The table `label_sets`. Every method raises DatabaseUnavailable through the transaction."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, new: LabelSet) -> None:
        """Raises RecordRefused through the transaction where another process added this version meanwhile."""
        self._tx.execute(insert(label_sets), to_row(new))

    def change(self, changed: LabelSet, *, seen: str) -> bool:
        """Store what an erasure changed; False where the set no longer has the digest `seen`."""
        same = (_sets.id == changed.id, _sets.digest == seen)
        return self._tx.execute(update(label_sets).where(*same).values(to_row(changed))).rowcount == 1

    def count(self) -> int:
        """How many sets there are."""
        return self._tx.scalar(select(func.count()).select_from(label_sets)) or 0

    def removals(self) -> int:
        """How often samples were removed for good."""
        return self._tx.scalar(select(label_removals.c.count)) or 0

    def add_removal(self) -> None:
        """Count one more; the caller holds the lock of labels."""
        if not self._tx.execute(update(label_removals).values(count=label_removals.c.count + 1)).rowcount:
            self._tx.execute(insert(label_removals).values(id=1, count=1))

    def newest(self, channel: str) -> LabelSet | None:
        """The newest version of a channel."""
        return self._one(select(label_sets).where(_sets.channel == channel).order_by(_sets.version.desc()).limit(1))

    def get(self, channel: str, version: int) -> LabelSet | None:
        """One version of a channel."""
        return self._one(select(label_sets).where(_sets.channel == channel, _sets.version == version))

    def all(self, channel: str | None = None) -> list[LabelSet]:
        """Every set, newest version first."""
        found = select(label_sets) if channel is None else select(label_sets).where(_sets.channel == channel)
        rows = self._tx.execute(found.order_by(_sets.channel, _sets.version.desc()))
        return [from_row(LabelSet, row) for row in rows]

    def _one(self, found: Any) -> LabelSet | None:
        row = self._tx.execute(found).one_or_none()
        return None if row is None else from_row(LabelSet, row)


class FeedbackLabelRepository:
    """The last valid word of people on each prediction, where it says what the sample is."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def page(self, channel: str, *, after: str, limit: int) -> list[tuple[str, Label | None]]:
        """At most `limit` predictions in the order of their ids, from the one after `after` on.

        The label is None where the last word says that something is wrong but not what is right.
        """
        given, records = feedback.c, predictions.c
        newest = select(func.max(given.id)).where(given.withdrawn_at.is_(None), given.prediction_id > after)
        newest = newest.join(predictions, records.id == given.prediction_id).where(records.channel == channel)
        newest = newest.group_by(given.prediction_id).order_by(given.prediction_id).limit(limit)
        last = aliased(newest.subquery())
        found = select(
            given.created_at, given.prediction_id, given.verdict, given.label, records.top_label, records.model_name,
            records.model_version, records.image_sha256, records.image_key, records.image_phash,
        )  # fmt: skip
        found = found.join(predictions, records.id == given.prediction_id).where(given.id.in_(select(last)))
        rows = self._tx.execute(found.order_by(given.prediction_id))
        return [(row.prediction_id, _label(row, channel)) for row in rows]


def _label(row: Any, channel: str) -> Label | None:
    label = row.label or (row.top_label if row.verdict == FeedbackValue.RIGHT else None)
    if label is None or row.verdict not in (FeedbackValue.RIGHT, FeedbackValue.WRONG):
        return None
    return Label(
        sample_id=row.prediction_id,
        source=FEEDBACK,
        channel=channel,
        label=label,
        given_at=row.created_at,
        given_by=None,
        model=f"{row.model_name}@{row.model_version}",
        image_sha256=row.image_sha256,
        image_key=row.image_key,
        image_phash=row.image_phash or None,
    )
