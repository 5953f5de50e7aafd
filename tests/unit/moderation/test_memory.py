"""The memory of decided photos: what is kept, what is found, and that all processes agree."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from sqlalchemy import func, select

from shoplens.db import Database
from shoplens.images.fingerprint import CROPS, fingerprint, mirrored
from shoplens.images.pixels import Pixels
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import DecisionKind, HashVerdict, PhotoState, Signal
from shoplens.moderation.intake.memory import HashMemory, forget
from shoplens.moderation.policy.entities import NEAR_REFUSED
from shoplens.moderation.repository import PhotoRepository
from shoplens.moderation.tables import moderation_hashes
from tests.conftest import colourful
from tests.unit.moderation.photos import ANNA, moment, photo_id, photo_of, stored


def picture(number: int) -> Pixels:
    """The picture of the photo with this number."""
    return colourful(number, width=200, height=150)


def print_of(number: int) -> bytes:
    """Its fingerprint."""
    return fingerprint(picture(number))


def decide(database: Database, number: int, state: PhotoState, *, now: datetime | None = None) -> None:
    """A person decides this photo."""
    with database.transaction() as tx:
        read = PhotoRepository(tx).get(photo_id(number), lock=True)
        new = NewDecision(to_state=state, kind=DecisionKind.PERSON, by=ANNA, now=now or moment(100))
        record_decision(tx, read, new)


def held(database: Database, *numbers: int) -> None:
    """Photos that wait for a person."""
    stored(database, *(photo_of(number, fingerprint=print_of(number)) for number in numbers))


def test_a_photo_that_was_refused_is_found_again_with_its_distance(database: Database) -> None:
    """Also mirrored, and cropped by 5 % at one corner."""
    held(database, 1, 2)
    decide(database, 1, PhotoState.REFUSED)
    memory = HashMemory(database)
    cropped = fingerprint(np.ascontiguousarray(picture(1)[:143, :190]))
    for seen, mirror, most in ((print_of(1), False, 0), (mirrored(print_of(1)), True, 0), (cropped, False, 2)):
        found = memory.nearest("reviews", seen, within=4)[HashVerdict.REFUSED]
        assert (photo_id(1), mirror) == (found.photo_id, found.mirrored)
        assert found.distance <= most
    assert {} == memory.nearest("reviews", print_of(2), within=4)
    assert {} == memory.nearest("other", print_of(1), within=4)


def test_what_a_person_accepts_is_remembered_and_what_a_policy_publishes_is_not(database: Database) -> None:
    """A policy that errs must not teach itself."""
    held(database, 1)
    stored(database, photo_of(2, state=PhotoState.PUBLISHED, fingerprint=print_of(2)))
    decide(database, 1, PhotoState.PUBLISHED)
    memory = HashMemory(database)
    assert [HashVerdict.ACCEPTED] == list(memory.nearest("reviews", print_of(1), within=2))
    assert {} == memory.nearest("reviews", print_of(2), within=2)
    assert 1 == len(memory)


def test_what_a_policy_refuses_is_remembered_unless_the_memory_itself_refused_it(database: Database) -> None:
    """Else a copy of a copy of a copy would be refused, each a little further from the first."""
    near = (Signal(name=NEAR_REFUSED, score=0.95, version="memory@1"),)
    stored(
        database,
        photo_of(1, state=PhotoState.REFUSED, fingerprint=print_of(1)),
        photo_of(2, state=PhotoState.REFUSED, fingerprint=print_of(2), signals=near),
    )
    memory = HashMemory(database)
    assert [HashVerdict.REFUSED] == list(memory.nearest("reviews", print_of(1), within=2))
    assert {} == memory.nearest("reviews", print_of(2), within=2)
    assert len(CROPS) == len(memory)


def test_another_decision_replaces_what_was_remembered(database: Database) -> None:
    """Refused, then published on appeal; then held again, for instance by an undo."""
    held(database, 1)
    memory = HashMemory(database)
    for state, expected in (
        (PhotoState.REFUSED, [HashVerdict.REFUSED]),
        (PhotoState.PUBLISHED, [HashVerdict.ACCEPTED]),
        (PhotoState.HELD, []),
    ):
        decide(database, 1, state)
        assert expected == list(memory.nearest("reviews", print_of(1), within=2))
    with database.reading() as tx:
        assert 0 == tx.scalar(select(func.count()).select_from(moderation_hashes))


def test_processes_that_loaded_their_hashes_before_see_what_others_add_and_remove(database: Database) -> None:
    """Each lookup reads what is new, and nothing is found that is not in the database."""
    one, other = HashMemory(database), HashMemory(database)
    held(database, 1, 2)
    assert {} == one.nearest("reviews", print_of(1), within=2)
    decide(database, 1, PhotoState.REFUSED)
    decide(database, 2, PhotoState.REFUSED, now=moment(5_000))
    for memory in (one, other):
        assert [HashVerdict.REFUSED] == list(memory.nearest("reviews", print_of(1), within=2))
        assert [HashVerdict.REFUSED] == list(memory.nearest("reviews", print_of(2), within=2))
        assert 2 * len(CROPS) == len(memory)
    with database.transaction() as tx:
        assert len(CROPS) == forget(tx, photo_id(1))
    assert {} == one.nearest("reviews", print_of(1), within=2)
    assert {} == other.nearest("reviews", print_of(1), within=2)


def test_a_number_that_becomes_visible_late_is_read_too(database: Database) -> None:
    """PostgreSQL numbers rows when they are inserted, but shows them when their transaction ends."""
    held(database, 1, 2)
    memory = HashMemory(database, clock=lambda: moment(120))
    decide(database, 1, PhotoState.REFUSED)
    decide(database, 2, PhotoState.REFUSED, now=moment(110))
    with database.transaction() as tx:  # as if the transaction of the first number were still open
        first = tx.execute(select(moderation_hashes).order_by(moderation_hashes.c.seq)).first()
        assert first is not None
        forget(tx, photo_id(1))
    assert {} == memory.nearest("reviews", print_of(1), within=2)
    with database.transaction() as tx:
        tx.execute(moderation_hashes.insert(), dict(first._mapping))
    assert [HashVerdict.REFUSED] == list(memory.nearest("reviews", print_of(1), within=2))


def test_a_photo_without_a_fingerprint_is_decided_all_the_same(database: Database) -> None:
    """It cannot be found again."""
    stored(database, photo_of(1, fingerprint=None))
    decide(database, 1, PhotoState.REFUSED)
    with database.reading() as tx:
        assert 0 == tx.scalar(select(func.count()).select_from(moderation_hashes))
