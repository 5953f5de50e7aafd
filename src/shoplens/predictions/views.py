"""Saved views: filters of the page Records under a name, for one person or for all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from shoplens.accounts.entities import Principal, PrincipalKind
from shoplens.db import Database
from shoplens.db.tables import from_row, new_id, to_row
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import SavedView
from shoplens.predictions.feedback import clean_text
from shoplens.predictions.tables import saved_views

MOST_VIEWS: Final = 50
"""For one person, and for all together."""
MAX_NAME: Final = 60
_MAX_QUERY: Final = 2_000


class SavedViewRepository:
    """The table `saved_views`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def of(self, owner: str) -> list[SavedView]:
        """Those of a person and those of all, each in alphabetical order, one's own first."""
        found = select(saved_views).where(saved_views.c.owner.in_({owner, ""}))
        rows = self._tx.execute(found.order_by(saved_views.c.owner.desc(), saved_views.c.name))
        return [from_row(SavedView, row) for row in rows]

    def count(self, owner: str) -> int:
        """How many views this owner has."""
        return int(self._tx.scalar(select(func.count()).where(saved_views.c.owner == owner)) or 0)

    def save(self, view: SavedView) -> None:
        """Add it, or give the one of this name and owner another filter."""
        same = (saved_views.c.owner == view.owner, saved_views.c.name == view.name)
        if self._tx.execute(update(saved_views).where(*same).values(query=view.query)).rowcount == 0:
            self._tx.execute(insert(saved_views), to_row(view))

    def remove(self, view_id: str, owner: str) -> None:
        """Remove one of this owner, or one of all."""
        theirs = (saved_views.c.id == view_id, saved_views.c.owner.in_({owner, ""}))
        self._tx.execute(delete(saved_views).where(*theirs))


class SavedViews:
    """All methods block. In a system without accounts all views are shared."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def of(self, principal: Principal) -> list[SavedView]:
        """Those of a person, and those of all."""
        with self._database.reading() as tx:
            return SavedViewRepository(tx).of(owner_of(principal))

    def save(self, name: str, query: str, *, by: Principal, shared: bool) -> None:
        """Save a filter; one of the same name is replaced. Raises RequestInvalid."""
        cleaned = clean_text(name, "name", MAX_NAME)
        if cleaned is None:
            raise RequestInvalid("Give the view a name.")
        if not query or len(query) > _MAX_QUERY:
            raise RequestInvalid("Set a filter first: a view without one shows all records.")
        now, owner = self._clock(), "" if shared else owner_of(by)
        view = SavedView(id=new_id(now), created_at=now, owner=owner, created_by=by.name, name=cleaned, query=query)
        with self._database.transaction() as tx:
            SavedViewRepository(tx).save(view)
            if SavedViewRepository(tx).count(owner) > MOST_VIEWS:
                raise RequestInvalid(f"There are {MOST_VIEWS} saved views already. Remove one first.")

    def remove(self, view_id: str, *, by: Principal) -> None:
        """Remove one of this person's views, or a shared one."""
        with self._database.transaction() as tx:
            SavedViewRepository(tx).remove(view_id, owner_of(by))


def owner_of(principal: Principal) -> str:
    """Whose views these are; "" where nobody signs in."""
    return "" if principal.kind is PrincipalKind.LOCAL else principal.id
