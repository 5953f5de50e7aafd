"""Who looks at which item, so that two people who review at once get different photos; and what a person skipped.

A look is a short lease of one browser on one item. It only spreads people over the photos: an answer needs none, and
two answers for one photo are distinguished by its revision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, insert, select, update

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.repository import ItemRepository
from shoplens.batch.tables import batch_looks
from shoplens.db import Database
from shoplens.errors import ItemNotReady

LOOK_S: Final = 60.0
"""How long a look lasts. The page renews it while the photo is selected."""
MOST_ITEMS: Final = 100

_looks: Final = batch_looks.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one browser got. `item_id` is the item that it looks at now, None if it got none of those it asked for.

    `held` are the ids that others look at; `settled` are the items that need no review any more.
    """

    item_id: str | None
    held: tuple[str, ...]
    settled: tuple[BatchItem, ...]


class LookRepository:
    """The table `batch_looks`, over a transaction that the caller opened."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def held(self, item_ids: Sequence[str], *, browser: str, now: datetime) -> set[str]:
        """Those of these items that somebody else looks at."""
        theirs = (_looks.item_id.in_(item_ids), _looks.browser != browser, _looks.until > now)
        return set(self._tx.scalars(select(_looks.item_id).where(*theirs)))

    def look(self, item_id: str | None, *, browser: str, until: datetime) -> None:
        """The browser looks at this item, and at no other one."""
        mine = (_looks.browser == browser, _looks.until.is_not(None))
        self._tx.execute(update(batch_looks).where(*mine).values(until=None))
        if item_id is not None:
            self._write(item_id, browser, until=until)

    def skip(self, item_id: str, *, browser: str, now: datetime) -> None:
        """Note that the person skipped the item."""
        self._write(item_id, browser, until=None, skipped_at=now)

    def _write(self, item_id: str, browser: str, **values: datetime | None) -> None:
        own = update(batch_looks).where(_looks.item_id == item_id, _looks.browser == browser).values(**values)
        if self._tx.execute(own).rowcount == 0:
            self._tx.execute(insert(batch_looks).values(item_id=item_id, browser=browser, **values))


class LookService:
    """All methods block, and may be called from many threads and processes."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def look(self, item_ids: Sequence[str], *, browser: str) -> Look:
        """Look at the first of these items (at most `MOST_ITEMS`) that needs review and that nobody else looks at.

        The browser looks at nothing else then.
        """
        now = self._clock()
        wanted = list(dict.fromkeys(item_ids))[:MOST_ITEMS]
        with self._database.transaction() as tx:
            found = ItemRepository(tx).locked(wanted)
            looks = LookRepository(tx)
            held = looks.held(wanted, browser=browser, now=now)
            open_ids = {item.id for item in found if item.state is ItemState.NEEDS_REVIEW}
            chosen = next((each for each in wanted if each in open_ids and each not in held), None)
            looks.look(chosen, browser=browser, until=now + timedelta(seconds=LOOK_S))
        return Look(
            item_id=chosen,
            held=tuple(each for each in wanted if each in held),
            settled=tuple(item for item in found if item.id not in open_ids),
        )

    def skip(self, item_id: str, *, browser: str) -> BatchItem:
        """Put an item that needs review at the end of this person's queue. Raises ItemNotFound and ItemNotReady."""
        with self._database.transaction() as tx:
            item = ItemRepository(tx).get(item_id, lock=True)
            if item.state is not ItemState.NEEDS_REVIEW:
                raise ItemNotReady(f"The item {item_id} is {item.state.value}; only what needs review can be skipped.")
            LookRepository(tx).skip(item_id, browser=browser, now=self._clock())
            return item
