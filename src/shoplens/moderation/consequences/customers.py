"""What follows for a customer: strikes from refusals that stand, and the deletion of everything that is theirs.

A customer is an opaque reference of the shop. Shoplens knows nothing else of the person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.batch.people_repository import ItemPeopleRepository
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RequestInvalid
from shoplens.labels.service import Forgotten, LabelService
from shoplens.messages import marked
from shoplens.moderation.consequences.repository import (
    CustomerRepository,
    ErasureRepository,
    HashRepository,
    Refusal,
)
from shoplens.moderation.decisions import media_paths
from shoplens.moderation.entities import Erasure, ModerationPhoto, PhotoState
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.repository import DecisionRepository, PhotoRepository
from shoplens.webhooks.outbox import emit
from shoplens.webhooks.repository import EventRepository

MAX_REFERENCE: Final = 200
_BATCH: Final = 50
_MOST_STRIKES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A refusal that stands. It counts until `expires_at`."""

    refusal: Refusal
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikeRule:
    """What a channel's policy says of strikes, and whether it holds all new photos of this customer now.

    `limit` strikes within `days` hold them; None: never. `until` is when too few strikes are left.
    """

    channel: str
    limit: int | None
    days: int
    strikes: tuple[Strike, ...]
    until: datetime | None

    @property
    def holds(self) -> bool:
        """Whether new photos wait for a person."""
        return self.until is not None

    @property
    def sentence(self) -> str:
        """The rule and what it means for this customer, for people."""
        if self.limit is None:
            return marked("The policy counts no strikes.")
        has = marked(f"{len(self.strikes)} of {self.limit} refused photos within {self.days} days")
        if self.until is None:
            return marked(f"{has}: new photos are decided like those of everybody else.")
        return marked(f"{has}: new photos are held for a person until {self.until:%Y-%m-%d %H:%M} UTC.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """What is known of a customer. `photos` counts them by state; `erasures` are receipts of earlier deletions."""

    reference: str
    photos: Mapping[PhotoState, int]
    rules: tuple[StrikeRule, ...]
    erasures: tuple[Erasure, ...]

    @property
    def total(self) -> int:
        """All photos."""
        return sum(self.photos.values())


class CustomerService:
    """All methods block. `policies` gives the policy of each channel that applies now."""

    def __init__(
        self,
        database: Database,
        files: PhotoFiles,
        *,
        policies: Callable[[], Mapping[str, ModerationPolicy]],
        labels: LabelService,
        audit: AuditLog,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._files = files
        self._policies = policies
        self._labels = labels
        self._audit = audit
        self._clock = clock

    def get(self, reference: str) -> Customer:
        """Also for a reference that no photo has. Raises RequestInvalid."""
        _require_reference(reference)
        now = self._clock()
        with self._database.reading() as tx:
            rules = tuple(
                self._rule(tx, reference, channel, policy, now) for channel, policy in self._policies().items()
            )
            return Customer(
                reference=reference,
                photos=CustomerRepository(tx).count(reference),
                rules=rules,
                erasures=tuple(ErasureRepository(tx).of(digest_of(reference))),
            )

    def erase(self, reference: str, *, by: Principal) -> Erasure:
        """Delete every photo, file, hash, decision, appeal, report and event of a customer; returns the receipt.

        For each photo that the public has seen there is an event `photo.erased`, so that other systems delete it too.

        Files go first and rows last, in small steps: if it is interrupted, calling it again goes on and completes the
        same receipt. Without any photo the receipt says so. Raises RequestInvalid, DatabaseUnavailable and
        StorageUnavailable.
        """
        _require_reference(reference)
        digest, now = digest_of(reference), self._clock()
        new = Erasure(id=new_id(now), at=now, customer_digest=digest, by=by.name)
        with self._database.transaction() as tx:
            receipt = ErasureRepository(tx).begin(new)
        while self._erase_some(reference, receipt) or self._erase_imported(reference, receipt):
            pass
        with self._database.transaction() as tx:
            events = EventRepository(tx).remove_of_customer(reference)
            ErasureRepository(tx).add(receipt.id, photos=0, hashes=0, events=events)
            done = ErasureRepository(tx).finish(receipt.id, now=self._clock())
            counts = {"photos": done.photos, "hashes": done.hashes, "files": done.files, "events": done.events}
            self._audit.record(tx, by, "customer.erased", target=digest, details={"receipt": done.id, **counts})
        return done

    def _erase_some(self, reference: str, receipt: Erasure) -> bool:
        """Delete some photos; whether there were any."""
        with self._database.reading() as tx:
            photos = PhotoRepository(tx).by_customer(reference, limit=_BATCH)
        if not photos:
            return False
        ids = {photo.id for photo in photos}
        files = sum(self._files.delete(photo.image_key) for photo in photos if photo.image_key is not None)
        with self._database.transaction() as tx:
            ErasureRepository(tx).add_files(receipt.id, files)
        while not self._remove(photos, receipt, self._labels.forget(ids)):
            pass
        return True

    def _remove(self, photos: Sequence[ModerationPhoto], receipt: Erasure, forgotten: Forgotten) -> bool:
        """Remove the rows of photos; False where a label set was added since they were forgotten."""
        ids = {photo.id for photo in photos}
        with self._database.transaction() as tx:
            ErasureRepository(tx).add(receipt.id, photos=0, hashes=0, label_sets=forgotten.changed)
            if not self._labels.removed(tx, forgotten):
                return False
            shown = DecisionRepository(tx).once_published(ids)
            hashes = HashRepository(tx).forget(ids)
            removed = CustomerRepository(tx).remove_photos(ids)
            ErasureRepository(tx).add(receipt.id, photos=removed, hashes=hashes)
            for photo in photos:
                if photo.id in shown:
                    data = {"id": photo.id, "channel": photo.channel, "media": media_paths(photo.id)}
                    emit(tx, "photo.erased", data, now=self._clock())
        return True

    def _erase_imported(self, reference: str, receipt: Erasure) -> bool:
        """Delete some photos of a backlog that no run has judged; whether there were any."""
        with self._database.reading() as tx:
            waiting = ItemPeopleRepository(tx).unprocessed(reference, limit=_BATCH)
        files = self._files.delete_imported(key for keys in waiting.values() for key in keys)
        with self._database.transaction() as tx:
            items = ItemPeopleRepository(tx)
            dismissed = items.dismiss(waiting)
            items.forget_customer(reference)
            ErasureRepository(tx).add_files(receipt.id, files)
            ErasureRepository(tx).add(receipt.id, photos=dismissed, hashes=0)
        return bool(waiting)

    @staticmethod
    def _rule(tx: Connection, reference: str, channel: str, policy: ModerationPolicy, now: datetime) -> StrikeRule:
        lasts = timedelta(days=policy.strike_days)
        found = CustomerRepository(tx).refusals(reference, since=now - lasts, limit=_MOST_STRIKES)
        strikes = tuple(Strike(refusal=each, expires_at=each.at + lasts) for each in found)
        holds = policy.strikes is not None and len(strikes) >= policy.strikes
        # Newest first: while the one at this place counts, there are enough.
        until = strikes[policy.strikes - 1].expires_at if holds and policy.strikes else None
        return StrikeRule(channel=channel, limit=policy.strikes, days=policy.strike_days, strikes=strikes, until=until)


def digest_of(reference: str) -> str:
    """What a receipt keeps of a reference: its SHA-256."""
    return hashlib.sha256(reference.encode()).hexdigest()


def _require_reference(reference: str) -> None:
    if not (0 < len(reference) <= MAX_REFERENCE and reference.isprintable()):
        raise RequestInvalid(f"A customer's reference has 1 to {MAX_REFERENCE} printable characters.")
