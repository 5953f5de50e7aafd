"""Look up shoppers' photos and what was decided on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shoplens.db import Database
from shoplens.moderation.entities import ModerationPhoto, PhotoDecision
from shoplens.moderation.repository import DecisionRepository, PhotoFilter, PhotoRepository

MAX_PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoPage:
    """Photos, newest first; `older` is the cursor of the next page, None where there is none."""

    photos: list[ModerationPhoto]
    older: str | None


class PhotoService:
    """All methods block, and may be called from many threads. They raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, photo_id: str) -> ModerationPhoto:
        """Raises PhotoNotFound."""
        with self._database.reading() as tx:
            return PhotoRepository(tx).get(photo_id)

    def history(self, photo_id: str) -> tuple[ModerationPhoto, list[PhotoDecision]]:
        """A photo with all decisions on it, oldest first. Raises PhotoNotFound."""
        with self._database.reading() as tx:
            return PhotoRepository(tx).get(photo_id), DecisionRepository(tx).of(photo_id)

    def page(self, wanted: PhotoFilter, *, limit: int = 50, before: str | None = None) -> PhotoPage:
        """At most `limit` photos (at most `MAX_PAGE`) that are older than the id `before`, where it is given."""
        limit = min(limit, MAX_PAGE)
        with self._database.reading() as tx:
            found = PhotoRepository(tx).page(wanted, limit=limit + 1, before=before)
        more = len(found) > limit
        return PhotoPage(photos=found[:limit], older=found[limit - 1].id if more else None)
