"""Versions of policies, and the photos that a dry run judges, over a transaction that the caller opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, insert, select

from shoplens.accounts.entities import SYSTEM
from shoplens.db.tables import from_row, to_row
from shoplens.moderation.entities import POLICY, PhotoState, PolicyVersion, Signal
from shoplens.moderation.tables import moderation_photos, moderation_policies

_policies: Final = moderation_policies.c
_photos: Final = moderation_photos.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPhoto:
    """What a dry run reads of a photo. `by_person`: a person published or refused it."""

    id: str
    state: PhotoState
    by_person: bool
    has_files: bool
    signals: tuple[Signal, ...]


class PolicyRepository:
    """The table `moderation_policies`, over a transaction that the caller opened."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def newest(self, channel: str) -> int:
        """The number of the newest version; 0 where none is stored."""
        return int(self._tx.scalar(select(func.max(_policies.version)).where(_policies.channel == channel)) or 0)

    def get(self, channel: str, version: int) -> PolicyVersion | None:
        """One version, if it is stored."""
        found = select(moderation_policies).where(_policies.channel == channel, _policies.version == version)
        row = self._tx.execute(found).one_or_none()
        return None if row is None else from_row(PolicyVersion, row)

    def page(self, channel: str, *, limit: int) -> list[PolicyVersion]:
        """The newest versions, newest first."""
        found = select(moderation_policies).where(_policies.channel == channel)
        rows = self._tx.execute(found.order_by(_policies.version.desc()).limit(limit))
        return [from_row(PolicyVersion, row) for row in rows]

    def add(self, version: PolicyVersion) -> None:
        """Raises RecordRefused if this number is taken."""
        self._tx.execute(insert(moderation_policies), to_row(version))

    def judged(self, channel: str, *, limit: int, before: str | None) -> list[ScoredPhoto]:
        """The newest photos of a channel, newest first, older than the id `before` where it is given."""
        columns = (_photos.id, _photos.state, _photos.decided_by, _photos.image_key, _photos.signals)
        found = select(*columns).where(_photos.channel == channel).order_by(_photos.id.desc()).limit(limit)
        rows = self._tx.execute(found if before is None else found.where(_photos.id < before))
        return [
            ScoredPhoto(
                id=row.id,
                state=PhotoState(row.state),
                by_person=row.decided_by not in (POLICY, SYSTEM.id) and row.state != PhotoState.HELD.value,
                has_files=row.image_key is not None,
                signals=row.signals,
            )
            for row in rows
        ]
