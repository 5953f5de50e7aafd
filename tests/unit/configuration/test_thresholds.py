"""Thresholds that people edit, on both databases: what applies, who saved it, conflicts, going back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.configuration.entities import Change, ThresholdChannel
from shoplens.configuration.errors import ThresholdsChanged, ThresholdsInvalid, ThresholdVersionNotFound
from shoplens.configuration.service import FRESH_S, ThresholdService
from shoplens.db import Database, open_database
from shoplens.errors import ChannelNotFound, DatabaseUnavailable
from shoplens.predictions.entities import Channel
from shoplens.predictions.policy import LabelRule, Policy
from shoplens.setting_sources import DEFAULT, Source, SourceKind

BASE = Policy(accept_at=0.8, rules=(LabelRule(label="hat", review_at=0.5, reject_at=0.9),), audit_share=0.01)
CHANNEL = Channel(name="returns", model="clothing", title="Returns", question="?", policy=BASE)
BY_FILE = Source(kind=SourceKind.FILE, where="/etc/shoplens.toml")
ANNA = Principal(kind=PrincipalKind.PERSON, id="p1", name="anna", permissions=frozenset(Permission))


class Ticks:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def now() -> datetime:
    """The clock of the services."""
    return datetime.now(UTC)


def service(
    database: Database, fixed: Mapping[str, Source] | None = None, ticks: Ticks | None = None, policy: Policy = BASE
) -> ThresholdService:
    """A service as each process has its own; `fixed` are thresholds that the operator wrote."""
    sources = fixed or {}
    channel = replace(CHANNEL, policy=policy)
    return ThresholdService(
        database,
        channels={
            "returns": ThresholdChannel(channel=channel, source_of=lambda name: sources.get(name, DEFAULT)),
        },
        policies={"returns": policy, "reviews": Policy(accept_at=0.3)},
        audit=AuditLog(database, clock=now),
        clock=now,
        monotonic=ticks or Ticks(),
    )


@pytest.fixture
def thresholds(database: Database) -> ThresholdService:
    """Those of one process."""
    return service(database)


@pytest.fixture
def other_database(database_url: str) -> Iterator[Database]:
    """The same database as another process sees it."""
    opened = open_database(database_url)
    yield opened
    opened.close()


def test_without_a_save_the_settings_apply(thresholds: ThresholdService) -> None:
    """Also for a channel whose thresholds cannot be edited."""
    assert BASE == thresholds.current("returns")
    assert 0.3 == thresholds.current("reviews").accept_at
    assert (0, {}, []) == (thresholds.applied("returns").version, dict(thresholds.applied("returns").edited),
                           thresholds.history("returns"))  # fmt: skip
    with pytest.raises(ChannelNotFound):
        thresholds.applied("reviews")


def test_a_save_applies_and_says_who_changed_what(thresholds: ThresholdService, database: Database) -> None:
    """Only what differs from the settings is kept, and the audit log has it."""
    values = {"accept_at": 0.9, "labels.hat.review_at": 0.5, "labels.hat.reject_at": None, "labels.a.b.review_at": 0.2}
    saved = thresholds.save("returns", values, based_on=0, note=" Too many\n wrong ", by=ANNA)
    assert {"accept_at": 0.9, "labels.hat.reject_at": None, "labels.a.b.review_at": 0.2} == dict(saved.edited)
    policy = thresholds.current("returns")
    assert (0.9, 0.01) == (policy.accept_at, policy.audit_share)
    assert (LabelRule(label="hat", review_at=0.5), LabelRule(label="a.b", review_at=0.2)) == policy.rules
    (entry,) = thresholds.history("returns")
    assert (1, "anna", "Too many wrong") == (entry.version.version, entry.version.created_by, entry.version.note)
    assert Change(name="accept_at", before=0.8, after=0.9) == entry.changes[0]
    (noted,) = AuditLog(database, clock=now).page(AuditFilter(target="returns"), limit=10)
    assert ("thresholds.saved", "p1", [0.8, 0.9]) == (
        noted.action, noted.actor_id, noted.details["changes"]["accept_at"]
    )  # fmt: skip


def test_the_same_thresholds_again_add_no_version(thresholds: ThresholdService) -> None:
    """A second click on the button changes nothing."""
    for _ in range(2):
        assert 1 == thresholds.save("returns", {"accept_at": 0.9}, based_on=thresholds.applied("returns").version,
                                    by=ANNA).version  # fmt: skip


def test_another_process_uses_a_save_within_a_second(thresholds: ThresholdService, other_database: Database) -> None:
    """It does not ask the database for each sample."""
    ticks = Ticks()
    other = service(other_database, ticks=ticks)
    assert 0.8 == other.current("returns").accept_at
    thresholds.save("returns", {"accept_at": 0.9}, based_on=0, by=ANNA)
    assert 0.8 == other.current("returns").accept_at
    ticks.now += FRESH_S
    assert other.known("returns") is None
    assert 0.9 == other.current("returns").accept_at


def test_the_second_of_two_admins_sees_that_it_changed_meanwhile(
    thresholds: ThresholdService, other_database: Database
) -> None:
    """And the first save stays."""
    service(other_database).save("returns", {"accept_at": 0.9}, based_on=0, by=ANNA)
    with pytest.raises(ThresholdsChanged, match="changed meanwhile: their newest version is 1"):
        thresholds.save("returns", {"accept_at": 0.7}, based_on=0, by=ANNA)
    assert 0.9 == thresholds.current("returns").accept_at


def test_a_save_can_be_taken_back(thresholds: ThresholdService) -> None:
    """To an earlier save, or to the settings; the history has it all."""
    thresholds.save("returns", {"accept_at": 0.9}, based_on=0, by=ANNA)
    thresholds.save("returns", {"accept_at": 0.95}, based_on=1, by=ANNA)
    assert 0.9 == thresholds.take_back("returns", 1, based_on=2, by=ANNA).policy.accept_at
    assert BASE == thresholds.take_back("returns", 0, based_on=3, by=ANNA).policy
    assert [4, 3, 2, 1] == [each.version.version for each in thresholds.history("returns")]
    with pytest.raises(ThresholdVersionNotFound):
        thresholds.take_back("returns", 9, based_on=4, by=ANNA)


def test_what_the_operator_wrote_wins_and_cannot_be_edited(thresholds: ThresholdService, database: Database) -> None:
    """A value that was saved before waits until the operator removes theirs."""
    thresholds.save("returns", {"accept_at": 0.9, "labels.hat.review_at": 0.6}, based_on=0, by=ANNA)
    fixed = service(database, {"accept_at": BY_FILE}, policy=replace(BASE, accept_at=0.7))
    applied = fixed.applied("returns")
    assert (0.7, ("accept_at",)) == (applied.policy.accept_at, applied.overruled)
    assert 0.6 == applied.policy.rules[0].review_at
    with pytest.raises(ThresholdsInvalid, match=r"set by the file: /etc/shoplens.toml"):
        fixed.save("returns", {"accept_at": 0.95}, based_on=1, by=ANNA)
    fixed.save("returns", {"accept_at": 0.7, "labels.hat.review_at": 0.65}, based_on=1, by=ANNA)
    assert 0.65 == fixed.current("returns").rules[0].review_at


def test_thresholds_that_contradict_the_settings_of_now_are_ignored_and_said(
    thresholds: ThresholdService, database: Database
) -> None:
    """A server must start also after the file was changed."""
    thresholds.save("returns", {"labels.hat.review_at": 0.85}, based_on=0, by=ANNA)
    stricter = replace(BASE, rules=(LabelRule(label="hat", review_at=0.5, reject_at=0.7),))
    applied = service(database, {"labels.hat.reject_at": BY_FILE}, policy=stricter).applied("returns")
    assert stricter == applied.policy
    assert "must not be above reject_at (0.7)" in str(applied.fault)


@pytest.mark.parametrize(
    "values",
    [{"accept_at": 1.5}, {"accept_at": float("nan")}, {"labels.hat.review_at": 0.95}, {"keep": 0.5}, {"labels.hat": 1}],
)
def test_thresholds_that_make_no_sense_are_refused(thresholds: ThresholdService, values: dict[str, float]) -> None:
    """And nothing is saved."""
    with pytest.raises(ThresholdsInvalid):
        thresholds.save("returns", values, based_on=0, by=ANNA)
    assert [] == thresholds.history("returns")


def test_while_the_database_is_away_the_last_thresholds_apply(
    thresholds: ThresholdService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that was classified does not fail for them."""
    ticks = Ticks()
    mine = service(database, ticks=ticks)
    mine.save("returns", {"accept_at": 0.9}, based_on=0, by=ANNA)
    ticks.now += 2 * FRESH_S

    def away() -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(database, "reading", away)
    assert 0.9 == mine.current("returns").accept_at
    with pytest.raises(DatabaseUnavailable):
        thresholds.current("returns")
