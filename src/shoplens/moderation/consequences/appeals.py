"""Appeals: a shopper disagrees with a refusal, and another person than the first looks at the photo again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RequestInvalid
from shoplens.moderation.consequences.repository import AppealRepository
from shoplens.moderation.consequences.statements import Statement, statement_of
from shoplens.moderation.entities import Appeal, ModerationPhoto, PhotoState, QueueReason
from shoplens.moderation.errors import AppealExists, AppealNotFound, NotRefused
from shoplens.moderation.queue.service import queue_rank
from shoplens.moderation.reasons import Reason
from shoplens.moderation.repository import DecisionRepository, PhotoRepository

MAX_MESSAGE: Final = 2_000
MAX_PAGE: Final = 200


class AppealService:
    """All methods block, and may be called from many threads and processes. `PhotoReview.decide` decides on an appeal.

    `reasons` gives the shop's list for a channel; `kept_days` are the days for which each keeps refused photos,
    None for ever.
    """

    def __init__(
        self,
        database: Database,
        *,
        reasons: Callable[[str], Sequence[Reason]],
        kept_days: Mapping[str, int | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._reasons = reasons
        self._kept_days = kept_days
        self._clock = clock

    def statement(self, photo_id: str) -> Statement:
        """Why a photo was refused. Raises PhotoNotFound, and NotRefused for one that is not refused."""
        with self._database.reading() as tx:
            return self._statement(tx, PhotoRepository(tx).get(photo_id))

    def appeal(self, photo_id: str, message: str) -> Appeal:
        """Take the one appeal on a refused photo, and put it into the queue.

        Raises PhotoNotFound, NotRefused, AppealExists for the second one, and RequestInvalid for a message that is
        empty or has more than `MAX_MESSAGE` characters.
        """
        message = message.replace("\x00", "").strip()
        if not 1 <= len(message) <= MAX_MESSAGE:
            raise RequestInvalid(f"The message has {len(message)} characters; write 1 to {MAX_MESSAGE:,}.")
        now = self._clock()
        with self._database.transaction() as tx:
            photo = PhotoRepository(tx).get(photo_id, lock=True)
            appeals = AppealRepository(tx)
            if (known := appeals.of(photo_id)) is not None:
                raise AppealExists(
                    f"The photo {photo_id} has an appeal of {known.at:%Y-%m-%d %H:%M} UTC; there is one per photo."
                )
            if photo.state is not PhotoState.REFUSED:
                raise NotRefused(f"The photo {photo_id} is {photo.state.value}, so there is nothing to appeal against.")
            if photo.image_key is None:
                raise NotRefused(f"The photo {photo_id} was deleted meanwhile, so nobody can look at it again.")
            appeal = Appeal(id=new_id(now), at=now, photo_id=photo_id, message=message)
            appeals.add(appeal)
            waiting = replace(photo, queue=QueueReason.APPEAL, queue_rank=queue_rank(QueueReason.APPEAL))
            PhotoRepository(tx).update(replace(waiting, claimed_by=None, claimed_until=None))
            return appeal

    def of(self, photo_id: str) -> Appeal:
        """The appeal on a photo. Raises PhotoNotFound and AppealNotFound."""
        with self._database.reading() as tx:
            PhotoRepository(tx).get(photo_id)
            appeal = AppealRepository(tx).of(photo_id)
        if appeal is None:
            raise AppealNotFound(f"There is no appeal on the photo {photo_id}.")
        return appeal

    def open(self, *, limit: int = 50) -> list[tuple[Appeal, ModerationPhoto]]:
        """Appeals that wait, oldest first, with their photos."""
        with self._database.reading() as tx:
            return AppealRepository(tx).open(limit=min(limit, MAX_PAGE))

    def _statement(self, tx: Connection, photo: ModerationPhoto) -> Statement:
        return statement_of(
            photo,
            DecisionRepository(tx).of(photo.id),
            AppealRepository(tx).of(photo.id),
            reasons=self._reasons(photo.channel),
            kept_days=self._kept_days.get(photo.channel),
        )
