"""The versions of a channel's policy, on both databases: saved, in use, compared, rolled back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.db import Database, open_database
from shoplens.errors import ChannelNotFound, RequestInvalid
from shoplens.moderation.errors import PolicyChanged, PolicyInvalid, PolicyVersionNotFound
from shoplens.moderation.policy.entities import Band, ModerationPolicy
from shoplens.moderation.policy.service import FRESH_S, MAX_NOTE, PolicyService
from shoplens.moderation.policy.source import Change

DEFAULT = ModerationPolicy(bands=(Band(signal="nsfw", review_at=0.2, reject_at=0.85),))
STRICTER = "[signals.nsfw]\nreview_at = 0.1\nreject_at = 0.85\n"
ANNA = Principal(kind=PrincipalKind.PERSON, id="p1", name="anna", permissions=frozenset(Permission))
BERT = replace(ANNA, id="p2", name="bert")


class Ticks:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def now() -> datetime:
    """The clock of the services."""
    return datetime.now(UTC)


def service(database: Database, ticks: Ticks | None = None) -> PolicyService:
    """A service as each process has its own."""
    return PolicyService(
        database,
        defaults={"reviews": DEFAULT},
        signals={"reviews": ("nsfw", "blur")},
        clock=now,
        audit=AuditLog(database, clock=now),
        monotonic=ticks or Ticks(),
    )


@pytest.fixture
def policies(database: Database) -> PolicyService:
    """The policies of one process."""
    return service(database)


@pytest.fixture
def other_process(database_url: str) -> Iterator[PolicyService]:
    """The policies of another process on the same database."""
    opened = open_database(database_url)
    yield service(opened)
    opened.close()


def test_without_a_version_the_settings_apply_as_version_0(policies: PolicyService) -> None:
    """And it can be read like any other."""
    assert DEFAULT == policies.current("reviews")
    applied = policies.applied("reviews")
    assert (0, "settings", None) == (applied.version, applied.created_by, applied.created_at)
    assert DEFAULT == policies.parse("reviews", applied.source)
    assert applied == policies.version("reviews", 0)


def test_a_saved_policy_applies_and_says_who_changed_what_and_why(policies: PolicyService, database: Database) -> None:
    """In the history and in the audit log."""
    saved = policies.save("reviews", STRICTER, based_on=0, note=" Too many\n slipped through ", by=ANNA)
    assert (1, "anna", "Too many slipped through") == (saved.version, saved.created_by, saved.note)
    assert 0.1 == policies.current("reviews").bands[0].review_at
    newest, oldest = policies.history("reviews")
    assert (Change(place="signals.nsfw.review_at", before="0.2", after="0.1"),) == newest.changes
    assert (0, ()) == (oldest.applied.version, oldest.changes)
    (entry,) = AuditLog(database, clock=now).page(AuditFilter(target="reviews"), limit=10)
    assert ("policy.saved", "p1", {"signals.nsfw.review_at": "0.2 → 0.1"}) == (
        entry.action, entry.actor_id, entry.details["changes"]
    )  # fmt: skip


def test_of_two_who_save_at_once_the_second_is_refused(policies: PolicyService, other_process: PolicyService) -> None:
    """Nobody overwrites what they have not seen; also where both saw the same version and save in the same moment."""
    ready = threading.Barrier(2)
    results: list[object] = []

    def save(mine: PolicyService, by: Principal, at: float) -> None:
        mine.applied("reviews")
        ready.wait(10)
        try:
            results.append(mine.save("reviews", f"[signals.nsfw]\nreview_at = {at}", based_on=0, note="x", by=by))
        except PolicyChanged as error:
            results.append(error)

    threads = [
        threading.Thread(target=save, args=(policies, ANNA, 0.1)),
        threading.Thread(target=save, args=(other_process, BERT, 0.3)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (refused,) = [each for each in results if isinstance(each, PolicyChanged)]
    assert "its newest version is 1" in str(refused)
    assert [1, 0] == [each.applied.version for each in policies.history("reviews")]


def test_another_process_notices_a_new_version_in_time(policies: PolicyService, database_url: str) -> None:
    """Within two seconds; until then it asks the database no more often than it has to."""
    ticks, opened = Ticks(), open_database(database_url)
    other = service(opened, ticks)
    assert DEFAULT == other.current("reviews")
    policies.save("reviews", STRICTER, based_on=0, note="stricter", by=ANNA)
    ticks.now = FRESH_S - 0.01
    assert DEFAULT == other.current("reviews")
    ticks.now = FRESH_S + 0.01
    assert FRESH_S <= 2
    assert policies.current("reviews") == other.current("reviews") != DEFAULT
    opened.close()


def test_rolling_back_adds_a_version_with_the_old_rules(policies: PolicyService) -> None:
    """The history only grows; equal rules have an equal digest, which is what photos keep."""
    first = policies.save("reviews", STRICTER, based_on=0, note="stricter", by=ANNA)
    policies.save("reviews", "", based_on=1, note="everything", by=BERT)
    back = policies.roll_back("reviews", 1, note="that was wrong", by=ANNA)
    assert (3, first.digest, "Back to version 1: that was wrong") == (back.version, back.digest, back.note)
    assert DEFAULT == policies.roll_back("reviews", 0, note="as in the settings", by=ANNA).policy
    with pytest.raises(PolicyVersionNotFound, match="The policy of reviews has no version 9"):
        policies.roll_back("reviews", 9, note="x", by=ANNA)
    with pytest.raises(PolicyChanged, match="newest version is 4"):
        policies.roll_back("reviews", 1, note="x", by=ANNA, based_on=3)


def test_the_same_rules_again_add_no_version(policies: PolicyService) -> None:
    """A comment or another order changes nothing."""
    policies.save("reviews", STRICTER, based_on=0, note="stricter", by=ANNA)
    again = policies.save("reviews", "# the same\n" + STRICTER, based_on=1, note="again", by=BERT)
    assert (1, "anna") == (again.version, again.created_by)


@pytest.mark.parametrize("note", ["", "  \n", "x" * (MAX_NOTE + 1)])
def test_a_change_needs_a_note(policies: PolicyService, note: str) -> None:
    """The history says why."""
    with pytest.raises(RequestInvalid, match="note"):
        policies.save("reviews", STRICTER, based_on=0, note=note, by=ANNA)
    assert DEFAULT == policies.current("reviews")


def test_a_policy_that_makes_no_sense_never_applies(policies: PolicyService) -> None:
    """It is refused before anything is stored."""
    with pytest.raises(PolicyInvalid, match="did you mean 'nsfw'"):
        policies.save("reviews", "[signals.nswf]\nreview_at = 0.1", based_on=0, note="x", by=ANNA)
    assert [0] == [each.applied.version for each in policies.history("reviews")]


def test_a_channel_without_moderation_has_no_policy(policies: PolicyService) -> None:
    """The sentence names those that have one."""
    with pytest.raises(ChannelNotFound, match="There are: reviews"):
        policies.current("look")


def test_a_stored_policy_without_its_signal_is_still_read(database: Database) -> None:
    """A channel that got another model holds its photos instead of showing them undecided."""
    service(database).save("reviews", "[signals.blur]\nreview_at = 0.5", based_on=0, note="x", by=ANNA)
    fewer = PolicyService(
        database,
        defaults={"reviews": DEFAULT},
        signals={"reviews": ("nsfw",)},
        clock=now,
        audit=AuditLog(database, clock=now),
    )
    assert ("blur",) == tuple(band.signal for band in fewer.current("reviews").bands)
    assert ("blur",) == fewer.unknown_signals("reviews", fewer.current("reviews"))


def test_a_long_history_is_cut(policies: PolicyService) -> None:
    """The newest ones are shown, each with what it changed against the one before, which may not be shown."""
    for version in range(3):
        source = f"[signals.nsfw]\nreview_at = 0.{version + 3}"
        policies.save("reviews", source, based_on=version, note=f"n{version}", by=ANNA)
    entries = policies.history("reviews", limit=2)
    assert [3, 2] == [each.applied.version for each in entries]
    assert [("0.4", "0.5")] == [(change.before, change.after) for change in entries[0].changes]
    assert [("0.3", "0.4")] == [(change.before, change.after) for change in entries[1].changes]
