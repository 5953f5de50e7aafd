"""What follows from decisions, in the database: known hashes, appeals, strikes, erasures and what retention deletes.

All over a transaction that the caller opened; every method raises DatabaseUnavailable through it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from shoplens.accounts.entities import SYSTEM
from shoplens.db.tables import from_row, to_row
from shoplens.moderation.entities import POLICY, Appeal, Erasure, ModerationPhoto, PhotoState
from shoplens.moderation.tables import (
    moderation_appeals,
    moderation_decisions,
    moderation_erasures,
    moderation_hashes,
    moderation_human_reviews,
    moderation_intakes,
    moderation_photos,
    moderation_reports,
    moderation_skips,
)

_hashes: Final = moderation_hashes.c
_appeals: Final = moderation_appeals.c
_photos: Final = moderation_photos.c
_erasures: Final = moderation_erasures.c


class HashRepository:
    """The table `moderation_hashes`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, row: dict[str, Any]) -> None:
        """Append what is remembered of one photo."""
        self._tx.execute(insert(moderation_hashes), row)

    def forget(self, photo_ids: Collection[str]) -> int:
        """Remove what is remembered of these photos; how many hashes that were."""
        known = self._tx.scalars(select(_hashes.hashes).where(_hashes.photo_id.in_(photo_ids))).all()
        self._tx.execute(delete(moderation_hashes).where(_hashes.photo_id.in_(photo_ids)))
        return sum(len(hashes) // 8 for hashes in known)

    def after(self, seq: int, *, limit: int) -> Sequence[Any]:
        """At most `limit` rows with `seq`, `hashes` and `created_at`, from the one after this number on."""
        columns = select(_hashes.seq, _hashes.hashes, _hashes.created_at)
        return self._tx.execute(columns.where(_hashes.seq > seq).order_by(_hashes.seq).limit(limit)).all()

    def of(self, channel: str, seqs: Collection[int]) -> Sequence[Any]:
        """Those of these rows that are there, with `seq`, `verdict`, `photo_id` and `fingerprint`."""
        columns = select(_hashes.seq, _hashes.verdict, _hashes.photo_id, _hashes.fingerprint)
        return self._tx.execute(columns.where(_hashes.seq.in_(seqs), _hashes.channel == channel)).all()


class AppealRepository:
    """The table `moderation_appeals`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, appeal: Appeal) -> None:
        """The only one of its photo."""
        self._tx.execute(insert(moderation_appeals), to_row(appeal))

    def of(self, photo_id: str) -> Appeal | None:
        """The appeal on a photo."""
        row = self._tx.execute(select(moderation_appeals).where(_appeals.photo_id == photo_id)).one_or_none()
        return None if row is None else from_row(Appeal, row)

    def open(self, *, limit: int) -> list[tuple[Appeal, ModerationPhoto]]:
        """Appeals that nobody decided yet, oldest first, with their photos."""
        waiting = select(moderation_appeals).where(_appeals.decided_at.is_(None)).order_by(_appeals.id).limit(limit)
        appeals = [from_row(Appeal, row) for row in self._tx.execute(waiting)]
        of_these = select(moderation_photos).where(_photos.id.in_([each.photo_id for each in appeals]))
        photos = {row.id: from_row(ModerationPhoto, row) for row in self._tx.execute(of_these)}
        return [(each, photos[each.photo_id]) for each in appeals]

    def settle(self, appeal: Appeal) -> None:
        """Store the decision on an appeal."""
        self._tx.execute(update(moderation_appeals).where(_appeals.id == appeal.id).values(to_row(appeal)))

    def reopen(self, photo_id: str, *, decided_at: datetime) -> None:
        """The decision of that moment was taken back: the appeal waits again."""
        then = (_appeals.photo_id == photo_id, _appeals.decided_at == decided_at)
        again = {"decided_at": None, "decided_by": None, "outcome": None, "answer": None}
        self._tx.execute(update(moderation_appeals).where(*then).values(again))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal that stands."""

    photo_id: str
    channel: str
    at: datetime
    reason: str | None


class CustomerRepository:
    """What there is of a customer."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def refusals(self, customer: str, *, since: datetime, limit: int) -> list[Refusal]:
        """Photos of a customer that were refused since then and still are, newest first."""
        theirs = (_photos.ref_customer == customer, _photos.state == PhotoState.REFUSED.value)
        found = select(_photos.id, _photos.channel, _photos.decided_at, _photos.reason).where(*theirs)
        rows = self._tx.execute(
            found.where(_photos.decided_at >= since).order_by(_photos.decided_at.desc()).limit(limit)
        )
        return [Refusal(photo_id=row.id, channel=row.channel, at=row.decided_at, reason=row.reason) for row in rows]

    def count(self, customer: str) -> dict[PhotoState, int]:
        """How many photos of a customer have each state."""
        counted = select(_photos.state, func.count()).where(_photos.ref_customer == customer).group_by(_photos.state)
        return {PhotoState(state): count for state, count in self._tx.execute(counted)}

    def remove_photos(self, photo_ids: Collection[str]) -> int:
        """Remove photos with everything that refers to them, except hashes; how many photos there were."""
        decided = select(moderation_decisions.c.id).where(moderation_decisions.c.photo_id.in_(photo_ids))
        self._tx.execute(delete(moderation_human_reviews).where(moderation_human_reviews.c.decision_id.in_(decided)))
        for table in (moderation_skips, moderation_appeals, moderation_reports, moderation_decisions):
            self._tx.execute(delete(table).where(table.c.photo_id.in_(photo_ids)))
        intakes = self._tx.scalars(select(_photos.intake_id).where(_photos.id.in_(photo_ids))).all()
        removed = self._tx.execute(delete(moderation_photos).where(_photos.id.in_(photo_ids))).rowcount
        used = exists().where(_photos.intake_id == moderation_intakes.c.id)
        self._tx.execute(delete(moderation_intakes).where(moderation_intakes.c.id.in_(intakes), ~used))
        return removed


class DecidedRepository:
    """Photos whose state is what a person decided."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def by_people(self, channel: str, *, after: str, limit: int) -> list[ModerationPhoto]:
        """At most `limit` published or refused ones in the order of their ids, from the one after `after` on."""
        shown = (PhotoState.PUBLISHED.value, PhotoState.REFUSED.value)
        theirs = (_photos.state.in_(shown), _photos.decided_by.not_in((POLICY, SYSTEM.id)))
        found = select(moderation_photos).where(_photos.channel == channel, *theirs, _photos.id > after)
        return [from_row(ModerationPhoto, row) for row in self._tx.execute(found.order_by(_photos.id).limit(limit))]


class ErasureRepository:
    """The table `moderation_erasures`: receipts."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def begin(self, erasure: Erasure) -> Erasure:
        """Store a new receipt, or return the one of the same customer that was begun and not finished."""
        begun = select(moderation_erasures).where(
            _erasures.customer_digest == erasure.customer_digest, _erasures.finished_at.is_(None)
        )
        row = self._tx.execute(begun.order_by(_erasures.id).limit(1)).one_or_none()
        if row is not None:
            return from_row(Erasure, row)
        self._tx.execute(insert(moderation_erasures), to_row(erasure))
        return erasure

    def add_files(self, erasure_id: str, files: int) -> None:
        """Count files that were deleted."""
        self._change(erasure_id, files=_erasures.files + files)

    def add(self, erasure_id: str, *, photos: int, hashes: int, events: int = 0, label_sets: int = 0) -> None:
        """Count what was removed in this transaction."""
        self._change(
            erasure_id,
            photos=_erasures.photos + photos,
            hashes=_erasures.hashes + hashes,
            events=_erasures.events + events,
            label_sets=_erasures.label_sets + label_sets,
        )

    def finish(self, erasure_id: str, *, now: datetime) -> Erasure:
        """Nothing of the customer is left."""
        self._change(erasure_id, finished_at=now)
        return from_row(Erasure, self._tx.execute(select(moderation_erasures).where(_erasures.id == erasure_id)).one())

    def of(self, customer_digest: str, *, limit: int = 20) -> list[Erasure]:
        """The receipts of a customer, newest first."""
        found = select(moderation_erasures).where(_erasures.customer_digest == customer_digest)
        return [from_row(Erasure, row) for row in self._tx.execute(found.order_by(_erasures.id.desc()).limit(limit))]

    def _change(self, erasure_id: str, **values: Any) -> None:
        self._tx.execute(update(moderation_erasures).where(_erasures.id == erasure_id).values(**values))


class RetentionRepository:
    """What is older than it may become."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def expired(self, channel: str, state: PhotoState, *, before: datetime, limit: int) -> list[tuple[str, str]]:
        """Photos with files that got this state before then, each with its folder. Not those with an open appeal."""
        appealed = exists().where(_appeals.photo_id == _photos.id, _appeals.decided_at.is_(None))
        found = select(_photos.id, _photos.image_key).where(
            _photos.channel == channel,
            _photos.state == state.value,
            _photos.decided_at < before,
            _photos.image_key.is_not(None),
            ~appealed,
        )
        return [(row.id, row.image_key) for row in self._tx.execute(found.order_by(_photos.decided_at).limit(limit))]

    def count(
        self, channel: str, state: PhotoState, *, before: datetime, most: int
    ) -> tuple[int, int, datetime | None]:
        """How many photos `expired` would give, up to `most`; how many are as old and have an open appeal; and when the
        oldest of the younger ones got its state.
        """
        here = (_photos.channel == channel, _photos.state == state.value, _photos.image_key.is_not(None))
        appealed = exists().where(_appeals.photo_id == _photos.id, _appeals.decided_at.is_(None))
        old = select(_photos.id).where(*here, _photos.decided_at < before).limit(most)
        due, waiting = (
            int(self._tx.scalar(select(func.count()).select_from(old.where(which).subquery())) or 0)
            for which in (~appealed, appealed)
        )
        next_one = select(func.min(_photos.decided_at)).where(*here, _photos.decided_at >= before)
        return due, waiting, self._tx.scalar(next_one)

    def files_deleted(self, photo_ids: Collection[str], state: PhotoState, *, now: datetime) -> None:
        """Note that the files of these photos are gone. A held one without files waits for nobody any more."""
        gone: dict[str, Any] = {"image_key": None, "files_deleted_at": now, "revision": _photos.revision + 1}
        if state is PhotoState.HELD:
            gone |= {"queue": None, "claimed_by": None, "claimed_until": None}
        self._tx.execute(update(moderation_photos).where(_photos.id.in_(photo_ids)).values(gone))

    def existing(self, photo_ids: Collection[str]) -> set[str]:
        """Those of these photos that have a row with files."""
        found = select(_photos.id).where(_photos.id.in_(photo_ids), _photos.image_key.is_not(None))
        return set(self._tx.scalars(found))

    def remove_intakes(self, *, before: datetime, limit: int) -> int:
        """Remove requests older than that: their idempotency keys count no more. How many there were."""
        intakes = moderation_intakes.c
        old = select(intakes.id).where(intakes.created_at < before).limit(limit)
        return self._tx.execute(delete(moderation_intakes).where(intakes.id.in_(old))).rowcount
