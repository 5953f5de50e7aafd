"""Saved thresholds over a transaction that the caller opened."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, insert, select

from shoplens.configuration.entities import ThresholdVersion
from shoplens.configuration.tables import settings_thresholds
from shoplens.db.tables import from_row, to_row

_saved: Final = settings_thresholds.c


class ThresholdRepository:
    """The table `settings_thresholds`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def newest(self, channel: str) -> int:
        """The number of the newest version; 0 where nothing was saved."""
        return int(self._tx.scalar(select(func.max(_saved.version)).where(_saved.channel == channel)) or 0)

    def get(self, channel: str, version: int) -> ThresholdVersion | None:
        """One version, if it is there."""
        found = select(settings_thresholds).where(_saved.channel == channel, _saved.version == version)
        row = self._tx.execute(found).one_or_none()
        return None if row is None else from_row(ThresholdVersion, row)

    def page(self, channel: str, *, limit: int) -> list[ThresholdVersion]:
        """The newest versions, newest first."""
        found = select(settings_thresholds).where(_saved.channel == channel)
        rows = self._tx.execute(found.order_by(_saved.version.desc()).limit(limit))
        return [from_row(ThresholdVersion, row) for row in rows]

    def add(self, version: ThresholdVersion) -> None:
        """Raises RecordRefused where the channel has this version already."""
        self._tx.execute(insert(settings_thresholds), to_row(version))
