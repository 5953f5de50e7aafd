"""What the rows of samples say: predictions, and shoppers' photos that are moderated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from shoplens.db.tables import make_id
from shoplens.moderation.entities import Signal
from shoplens.moderation.tables import moderation_photos
from shoplens.predictions.policy import Outcome
from shoplens.predictions.tables import predictions

_photos: Final = moderation_photos.c
_rows: Final = predictions.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One classified sample: what its row says. `model` is `name@version`, `pixels` width times height.

    `format` is "" for a text without a photo, `label` for a photo for which the model gave no answer.
    """

    id: str
    model: str
    label: str
    score: float
    format: str
    pixels: int
    has_photo: bool


class SampleRepository:
    """Over a transaction that the caller opened; it raises DatabaseUnavailable."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def predictions(self, channel: str, outcome: Outcome, *, after: str, before: str, limit: int) -> list[Sample]:
        """At most `limit` predictions with this outcome and an id between these two, in the order of their ids."""
        columns = (
            _rows.id, _rows.model_name, _rows.model_version, _rows.top_label, _rows.top_score, _rows.image_format,
            _rows.image_width, _rows.image_height, _rows.image_key,
        )  # fmt: skip
        within = (
            _rows.channel == channel, _rows.decision_outcome == outcome.value, _rows.id > after, _rows.id < before,
        )  # fmt: skip
        return [
            Sample(
                id=row.id,
                model=f"{row.model_name}@{row.model_version}",
                label=row.top_label,
                score=row.top_score,
                format=row.image_format,
                pixels=row.image_width * row.image_height,
                has_photo=row.image_key is not None,
            )
            for row in self._tx.execute(select(*columns).where(*within).order_by(_rows.id).limit(limit))
        ]

    def moderated(self, channel: str, *, after: str, before: str, limit: int) -> list[Sample]:
        """The same of shoppers' photos. The label is the signal of the model that speaks most against a photo."""
        columns = (
            _photos.id, _photos.signals, _photos.image_format, _photos.image_width, _photos.image_height,
            _photos.image_key,
        )  # fmt: skip
        within = (_photos.channel == channel, _photos.id > after, _photos.id < before)
        samples = []
        for row in self._tx.execute(select(*columns).where(*within).order_by(_photos.id).limit(limit)):
            top = _strongest(row.signals)
            samples.append(
                Sample(
                    id=row.id,
                    model="" if top is None else top.version,
                    label="" if top is None else top.name,
                    score=0.0 if top is None else top.score,
                    format=row.image_format,
                    pixels=row.image_width * row.image_height,
                    has_photo=row.image_key is not None,
                )
            )
        return samples


def first_id(moment: datetime) -> str:
    """The least id of this millisecond: ids begin with their time."""
    return make_id(int(moment.timestamp() * 1000), bytes(10))


def _strongest(signals: tuple[Signal, ...]) -> Signal | None:
    """Of the model of the channel, whose signals come first."""
    of_model = [signal for signal in signals if signal.version == signals[0].version]
    return max(of_model, key=lambda signal: signal.score, default=None)
