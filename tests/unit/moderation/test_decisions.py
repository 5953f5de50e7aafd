"""A state changes in one place: with its history, its event and the memory of the hash."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import DecisionKind, ModerationPhoto, PhotoState, QueueReason
from shoplens.moderation.errors import PhotoChanged, PhotoNotFound
from shoplens.moderation.repository import DecisionRepository, PhotoFilter, PhotoRepository
from shoplens.webhooks.tables import webhook_events
from tests.unit.moderation.photos import ANNA, BEN, listened, moment, photo_id, photo_of, stored


def decided(database: Database, to_state: PhotoState, kind: DecisionKind, **more: Any) -> ModerationPhoto:
    """Decide photo 1 as it is now."""
    with database.transaction() as tx:
        read = PhotoRepository(tx).get(photo_id(1), lock=True)
        return record_decision(tx, read, NewDecision(to_state=to_state, kind=kind, **more))


def test_a_decision_changes_the_row_and_adds_to_its_history(database: Database) -> None:
    """The claim ends, the photo leaves the queue, and both decisions can be read."""
    stored(database, photo_of(1, claimed_by=ANNA.id, claimed_until=moment(60)))
    changed = decided(
        database, PhotoState.REFUSED, DecisionKind.PERSON, by=ANNA, now=moment(5), reason="nudity", comment="a breast"
    )
    with database.reading() as tx:
        assert changed == PhotoRepository(tx).get(photo_id(1))
        history = DecisionRepository(tx).of(photo_id(1))
    assert (PhotoState.REFUSED, ANNA.id, moment(5), "nudity") == (
        changed.state,
        changed.decided_by,
        changed.decided_at,
        changed.reason,
    )
    assert (None, None, None, 1) == (changed.queue, changed.claimed_by, changed.claimed_until, changed.revision)
    assert [(None, PhotoState.HELD), (PhotoState.HELD, PhotoState.REFUSED)] == [
        (each.from_state, each.to_state) for each in history
    ]
    assert [(SYSTEM.name, None), (ANNA.name, "a breast")] == [(each.by_name, each.comment) for each in history]


def test_of_two_decisions_on_one_revision_only_the_first_counts(database: Database) -> None:
    """The second one is refused and leaves nothing."""
    stored(database, photo_of(1))
    with database.reading() as tx:
        seen = PhotoRepository(tx).get(photo_id(1))
    accept = NewDecision(to_state=PhotoState.PUBLISHED, kind=DecisionKind.PERSON, by=ANNA, now=moment(5))
    refuse = NewDecision(to_state=PhotoState.REFUSED, kind=DecisionKind.PERSON, by=BEN, now=moment(6))
    with database.transaction() as tx:
        record_decision(tx, seen, accept)
    with pytest.raises(PhotoChanged), database.transaction() as tx:
        record_decision(tx, seen, refuse)
    with database.reading() as tx:
        assert PhotoState.PUBLISHED is PhotoRepository(tx).get(photo_id(1)).state
        assert 2 == len(DecisionRepository(tx).of(photo_id(1)))


def test_a_change_of_state_is_an_event_with_the_addresses_to_purge(database: Database) -> None:
    """A decision that leaves the state as it was is none. The event does not say which person decided."""
    listened(database, "all")
    stored(database, photo_of(1, state=PhotoState.PUBLISHED))
    reported = QueueReason.REPORTED
    decided(database, PhotoState.PUBLISHED, DecisionKind.REPORT, by=SYSTEM, now=moment(2), queue=reported)
    decided(database, PhotoState.REFUSED, DecisionKind.PERSON, by=ANNA, now=moment(3))
    with database.reading() as tx:
        events = tx.execute(select(webhook_events).order_by(webhook_events.c.id)).all()
    assert ["photo.published", "photo.refused"] == [each.type for each in events]
    data = events[-1].data
    assert ("published", "person", "c-1") == (data["previous_state"], data["decided_by"], data["customer"])
    assert {f"/media/{photo_id(1)}", f"/media/{photo_id(1)}?w=640"} <= set(data["media"])
    assert ANNA.name not in str(data)


def test_the_queue_is_read_by_rank_and_then_by_age_without_claimed_photos(database: Database) -> None:
    """The cursor goes on where the page ended; a claim that ran out counts no more."""
    stored(
        database,
        photo_of(1),
        photo_of(2, queue_rank=-10),
        photo_of(3, claimed_by=BEN.id, claimed_until=moment(100)),
        photo_of(4, claimed_by=BEN.id, claimed_until=moment(10)),
        photo_of(5, state=PhotoState.PUBLISHED),
    )
    with database.transaction() as tx:
        photos = PhotoRepository(tx)
        free = photos.queue_page("reviews", limit=10, free_for=ANNA.id, now=moment(50), lock=True)
        first = photos.queue_page("reviews", limit=2)
        rest = photos.queue_page("reviews", limit=9, after=(first[-1].queue_rank, first[-1].id))
        assert 4 == photos.count_waiting("reviews")
    assert [photo_id(2), photo_id(1), photo_id(4)] == [each.id for each in free]
    assert [photo_id(n) for n in (2, 1, 3, 4)] == [each.id for each in first + rest]


def test_photos_are_found_by_what_the_shop_calls_things(database: Database) -> None:
    """Newest first, with a cursor; an unknown id is an error."""
    stored(database, *(photo_of(n, state=PhotoState.PUBLISHED if n % 2 else PhotoState.HELD) for n in range(1, 7)))
    with database.reading() as tx:
        photos = PhotoRepository(tx)
        published = photos.page(PhotoFilter(product="p-1", state=PhotoState.PUBLISHED), limit=2)
        older = photos.page(PhotoFilter(product="p-1", state=PhotoState.PUBLISHED), limit=2, before=published[-1].id)
        assert [] == photos.page(PhotoFilter(customer="c-2"), limit=2)
        assert [photo_id(n) for n in range(4, 7)] == [
            each.id for each in photos.by_customer("c-1", limit=9, after=photo_id(3))
        ]
        with pytest.raises(PhotoNotFound):
            photos.get(photo_id(99))
    assert [photo_id(n) for n in (5, 3, 1)] == [each.id for each in published + older]
