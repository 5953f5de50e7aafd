"""Shoppers' photos, their intakes, decisions and hashes in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, func, insert, or_, select, tuple_, update

from shoplens.db.tables import from_row, to_row
from shoplens.moderation.entities import (
    DecisionKind,
    Intake,
    ModerationPhoto,
    PhotoDecision,
    PhotoState,
    QueueReason,
)
from shoplens.moderation.errors import PhotoChanged, PhotoNotFound
from shoplens.moderation.tables import (
    moderation_decisions,
    moderation_intakes,
    moderation_keys,
    moderation_photos,
)

MOST_COUNTED: Final = 10_000
"""Counts go no further, so that they take as long with a million rows."""

_photos: Final = moderation_photos.c
_decisions: Final = moderation_decisions.c


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFilter:
    """Which photos; None leaves a field open."""

    channel: str | None = None
    state: PhotoState | None = None
    customer: str | None = None
    product: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """What it takes to show a photo: the folder of its files, and the facts of the original."""

    folder: str
    format: str
    width: int
    height: int
    sha256: str

    @classmethod
    def of(cls, photo: ModerationPhoto) -> StoredImage | None:
        """That of a photo; None once its files are deleted."""
        image = photo.image
        if photo.image_key is None:
            return None
        return cls(
            folder=photo.image_key, format=image.format, width=image.width, height=image.height, sha256=image.sha256
        )


class PhotoRepository:
    """The table `moderation_photos`. `decisions.py` is what changes a state; use it instead of `update` for that."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    # One photo and changes

    def add_many(self, photos: Sequence[ModerationPhoto]) -> None:
        """Add all of them or, on an error, none."""
        if photos:
            self._tx.execute(insert(moderation_photos), [to_row(each) for each in photos])

    def get(self, photo_id: str, *, lock: bool = False) -> ModerationPhoto:
        """With `lock` it is locked until this transaction ends. Raises PhotoNotFound."""
        found = select(moderation_photos).where(_photos.id == photo_id)
        row = self._tx.execute(found.with_for_update() if lock else found).one_or_none()
        if row is None:
            raise PhotoNotFound(f"There is no photo {photo_id!r}.")
        return from_row(ModerationPhoto, row)

    def many(self, photo_ids: Collection[str], *, lock: bool = False) -> list[ModerationPhoto]:
        """Those of these photos that exist, in the order of their ids; with `lock` they are locked as in `get`."""
        found = select(moderation_photos).where(_photos.id.in_(photo_ids)).order_by(_photos.id)
        return self._read(found.with_for_update() if lock else found)

    def update(self, photo: ModerationPhoto) -> ModerationPhoto:
        """Write a changed photo; returns it with its new revision.

        Raises PhotoChanged unless the row still has the revision that `photo` has, that is, the one it was read with.
        """
        changed = replace(photo, revision=photo.revision + 1)
        row = to_row(changed)
        same = (_photos.id == row.pop("id"), _photos.revision == photo.revision)
        if self._tx.execute(update(moderation_photos).where(*same).values(row)).rowcount != 1:
            raise PhotoChanged(f"The photo {photo.id} was changed or removed meanwhile. Look at it again.")
        return changed

    def image_in(self, states: Collection[PhotoState], photo_id: str) -> StoredImage | None:
        """What it takes to show a photo; None unless it has one of these states and its files are there."""
        columns = (_photos.image_key, _photos.image_format, _photos.image_width, _photos.image_height)
        found = select(*columns, _photos.image_sha256).where(
            _photos.id == photo_id,
            _photos.state.in_([state.value for state in states]),
            _photos.image_key.is_not(None),
        )
        row = self._tx.execute(found).one_or_none()
        return None if row is None else _image_of(row)

    def stored_images(self, limit: int) -> list[StoredImage]:
        """What is stored of the newest photos whose files are not deleted."""
        columns = (_photos.image_key, _photos.image_format, _photos.image_width, _photos.image_height)
        found = select(*columns, _photos.image_sha256).where(_photos.image_key.is_not(None))
        return [_image_of(row) for row in self._tx.execute(found.order_by(_photos.id.desc()).limit(limit))]

    # Pages

    def by_intake(self, intake_id: str) -> list[ModerationPhoto]:
        """The photos of one request, in their order."""
        return self._read(select(moderation_photos).where(_photos.intake_id == intake_id).order_by(_photos.position))

    def page(self, wanted: PhotoFilter, *, limit: int, before: str | None = None) -> list[ModerationPhoto]:
        """At most `limit` photos, newest first, older than the id `before` where it is given."""
        found = select(moderation_photos).order_by(_photos.id.desc()).limit(limit)
        for column, value in (
            (_photos.channel, wanted.channel),
            (_photos.state, None if wanted.state is None else wanted.state.value),
            (_photos.ref_customer, wanted.customer),
            (_photos.ref_product, wanted.product),
        ):
            if value is not None:
                found = found.where(column == value)
        return self._read(found if before is None else found.where(_photos.id < before))

    def by_customer(self, customer: str, *, limit: int, after: str = "") -> list[ModerationPhoto]:
        """At most `limit` photos of a customer, oldest first, from the one after the id `after` on."""
        found = select(moderation_photos).where(_photos.ref_customer == customer, _photos.id > after)
        return self._read(found.order_by(_photos.id).limit(limit))

    def prints_of_customer(self, customer: str, *, limit: int) -> list[tuple[str, bytes]]:
        """The ids and fingerprints of the newest photos of a customer."""
        theirs = select(_photos.id, _photos.fingerprint).where(
            _photos.ref_customer == customer, _photos.fingerprint.is_not(None)
        )
        found = self._tx.execute(theirs.order_by(_photos.decided_at.desc()).limit(limit))
        return [(photo_id, bytes(known)) for photo_id, known in found]

    # The queue of photos that wait for a person

    def queue_page(
        self,
        channel: str,
        *,
        limit: int,
        after: tuple[int, str] | None = None,
        reasons: Collection[QueueReason] = (),
        free_for: str | None = None,
        now: datetime | None = None,
        lock: bool = False,
    ) -> list[ModerationPhoto]:
        """At most `limit` photos that wait, lowest rank first, then oldest.

        `after` is the rank and id of the last photo of the page before. With `free_for` (the id of a principal, with
        `now`) photos that somebody else has claimed are left out; with `lock` the rows are locked, and on PostgreSQL
        those that another transaction has locked are left out.
        """
        found = select(moderation_photos).where(_photos.channel == channel, _photos.queue.is_not(None))
        if after is not None:
            found = found.where(tuple_(_photos.queue_rank, _photos.id) > after)
        if reasons:
            found = found.where(_photos.queue.in_([each.value for each in reasons]))
        if free_for is not None:
            free = (_photos.claimed_by.is_(None), _photos.claimed_by == free_for, _photos.claimed_until <= now)
            found = found.where(or_(*free))
        found = found.order_by(_photos.queue_rank, _photos.id).limit(limit)
        return self._read(found.with_for_update(skip_locked=True) if lock else found)

    def count_waiting(self, channel: str) -> int:
        """How many photos wait for a person, at most `MOST_COUNTED`."""
        return self._count(select(_photos.id).where(_photos.channel == channel, _photos.queue.is_not(None)))

    def count_in_state(self, channel: str, state: PhotoState) -> int:
        """How many photos of a channel have this state, at most `MOST_COUNTED`."""
        return self._count(select(_photos.id).where(_photos.channel == channel, _photos.state == state.value))

    def count_of_customer(self, customer: str, state: PhotoState, *, since: datetime) -> int:
        """How many photos of a customer got this state since then, at most `MOST_COUNTED`."""
        theirs = (_photos.ref_customer == customer, _photos.state == state.value, _photos.decided_at >= since)
        return self._count(select(_photos.id).where(*theirs))

    def _count(self, found: Select[Any]) -> int:
        within = found.limit(MOST_COUNTED).subquery()
        return self._tx.execute(select(func.count()).select_from(within)).scalar_one()

    def _read(self, found: Select[Any]) -> list[ModerationPhoto]:
        return [from_row(ModerationPhoto, row) for row in self._tx.execute(found)]


class IntakeRepository:
    """The table `moderation_intakes`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, intake: Intake) -> None:
        """Raises RecordRefused through the transaction where the caller has used the key before."""
        self._tx.execute(insert(moderation_intakes), to_row(intake))

    def by_key(self, caller: str, key: str) -> Intake | None:
        """The intake that a caller sent with this idempotency key."""
        columns = moderation_intakes.c
        found = select(moderation_intakes).where(columns.caller == caller, columns.idempotency_key == key)
        row = self._tx.execute(found).one_or_none()
        return None if row is None else from_row(Intake, row)


class DecisionRepository:
    """The table `moderation_decisions`: the history of photos."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, decision: PhotoDecision) -> None:
        """Append to the history of its photo."""
        self._tx.execute(insert(moderation_decisions), to_row(decision))

    def of(self, photo_id: str) -> list[PhotoDecision]:
        """The history of a photo, oldest first."""
        return self._read(select(moderation_decisions).where(_decisions.photo_id == photo_id).order_by(_decisions.id))

    def by_person(self, principal_id: str, *, limit: int, before: str | None = None) -> list[PhotoDecision]:
        """What one principal decided, newest first, at most `limit`."""
        found = select(moderation_decisions).where(_decisions.by_id == principal_id)
        found = found if before is None else found.where(_decisions.id < before)
        return self._read(found.order_by(_decisions.id.desc()).limit(limit))

    def once_published(self, photo_ids: Collection[str]) -> set[str]:
        """Those that were published at some time."""
        shown = (_decisions.photo_id.in_(photo_ids), _decisions.to_state == PhotoState.PUBLISHED.value)
        return set(self._tx.scalars(select(_decisions.photo_id).where(*shown)))

    def by_policy(self, channel: str, *, first: str, end: str) -> dict[PhotoState, int]:
        """What the policy did with new photos, by the ids of these decisions: from `first` until before `end`."""
        made = (_decisions.channel == channel, _decisions.kind == DecisionKind.POLICY, _decisions.from_state.is_(None))
        query = select(_decisions.to_state, func.count()).where(*made, _decisions.id >= first, _decisions.id < end)
        return {PhotoState(state): number for state, number in self._tx.execute(query.group_by(_decisions.to_state))}

    def agreement_with_policy(self, channel: str, *, first: str, end: str) -> tuple[int, int]:
        """How many decisions of people, in checks and after reports or appeals, were those of the policy, and how many
        were not. The policy decides nothing on a photo that it holds, and a second opinion is on another person.
        """
        of_policy = moderation_decisions.alias().c
        said = (
            _decisions.channel == channel,
            _decisions.kind.in_([DecisionKind.PERSON.value, DecisionKind.APPEAL.value]),
            _decisions.undone_at.is_(None),
            _decisions.id >= first,
            _decisions.id < end,
            of_policy.kind == DecisionKind.POLICY,
            of_policy.from_state.is_(None),
            of_policy.to_state != PhotoState.HELD,
        )
        same = of_policy.to_state == _decisions.to_state
        both = select(func.count().filter(same), func.count()).select_from(moderation_decisions)
        agreed, every = self._tx.execute(both.join(of_policy.id.table, of_policy.photo_id == _decisions.photo_id)
                                         .where(*said)).one()  # fmt: skip
        return agreed, every - agreed

    def mark_undone(self, decision_id: str, *, now: datetime) -> bool:
        """Note that a decision was taken back; False if it was before."""
        valid = (_decisions.id == decision_id, _decisions.undone_at.is_(None))
        return self._tx.execute(update(moderation_decisions).where(*valid).values(undone_at=now)).rowcount == 1

    def _read(self, found: Select[Any]) -> list[PhotoDecision]:
        return [from_row(PhotoDecision, row) for row in self._tx.execute(found)]


class KeyRepository:
    """The table `moderation_keys`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def get(self, name: str) -> bytes | None:
        """The secret of this name, which all servers of the database share; None if there is none yet."""
        return self._tx.scalar(select(moderation_keys.c.secret).where(moderation_keys.c.name == name))

    def add(self, name: str, secret: bytes, *, now: datetime) -> None:
        """Raises RecordRefused through the transaction where another server has added one of this name."""
        self._tx.execute(insert(moderation_keys), {"name": name, "created_at": now, "secret": secret})


def _image_of(row: Any) -> StoredImage:
    folder, image_format, width, height, sha256 = row
    return StoredImage(folder=folder, format=image_format, width=width, height=height, sha256=sha256)
