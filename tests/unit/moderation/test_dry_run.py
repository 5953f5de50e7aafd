"""A dry run: another policy on the stored signals of the newest photos, beside the one in use and beside people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database
from shoplens.moderation.entities import POLICY, ModerationPhoto, PhotoState, Signal
from shoplens.moderation.errors import PolicyInvalid
from shoplens.moderation.policy.dry_run import BINS, EXAMPLES, DryRunService
from shoplens.moderation.policy.entities import Band, ModerationPolicy
from shoplens.moderation.policy.service import PolicyService
from shoplens.moderation.repository import PhotoRepository
from tests.unit.moderation.photos import ANNA, moment, photo_of, stored

IN_USE = ModerationPolicy(bands=(Band(signal="nsfw", review_at=0.2, reject_at=0.8),))
HELD, PUBLISHED, REFUSED = PhotoState.HELD, PhotoState.PUBLISHED, PhotoState.REFUSED


@pytest.fixture
def policies(database: Database) -> PolicyService:
    """Policies of one channel."""
    return PolicyService(
        database,
        defaults={"reviews": IN_USE},
        signals={"reviews": ("nsfw", "blur")},
        clock=lambda: moment(0),
        audit=AuditLog(database, clock=lambda: moment(0)),
    )


@pytest.fixture
def dry_run(database: Database, policies: PolicyService) -> DryRunService:
    """What is tested."""
    return DryRunService(database, policies)


def scored(number: int, nsfw: float, *, state: PhotoState = HELD, by: str = POLICY) -> ModerationPhoto:
    """A photo with one signal."""
    signals = (Signal(name="nsfw", score=nsfw, version="opennsfw@1"),)
    return replace(photo_of(number), signals=signals, state=state, decided_by=by)


def many(database: Database) -> None:
    """More photos than one page of a dry run has; without their decisions, which it does not read."""
    with database.transaction() as tx:
        PhotoRepository(tx).add_many([scored(number, 0.25) for number in range(1_100)])


def test_a_dry_run_counts_what_would_move_and_changes_nothing(database: Database, dry_run: DryRunService) -> None:
    """Against the policy in use, not against what people made of the photos."""
    stored(database, *(scored(number, score) for number, score in enumerate([0.1, 0.25, 0.5, 0.7, 0.9])))
    result = dry_run("reviews", "[signals.nsfw]\nreview_at = 0.3\nreject_at = 0.6")
    assert (5, True) == (result.examined, result.complete)
    assert {HELD: 3, PUBLISHED: 1, REFUSED: 1} == result.before
    assert {HELD: 1, PUBLISHED: 2, REFUSED: 2} == result.after
    assert [(HELD, PUBLISHED, 1), (HELD, REFUSED, 1)] == [
        (each.before, each.after, each.count) for each in result.moves
    ]
    moved = result.moves[0].examples[0]
    assert "The score of nsfw is 0.25; photos are held from 0.2." == moved.before.rule
    assert result == dry_run("reviews", "[signals.nsfw]\nreview_at = 0.3\nreject_at = 0.6")


def test_the_policy_in_use_moves_nothing(database: Database, dry_run: DryRunService) -> None:
    """Without a source the result shows how the scores are spread."""
    stored(database, scored(1, 0.0), scored(2, 0.999), scored(3, 1.0), scored(4, 0.05))
    result = dry_run("reviews", None)
    assert ((), result.before) == (result.moves, result.after)
    nsfw, blur = sorted(result.histograms, key=lambda each: each.signal, reverse=True)
    assert ((1, 1, *[0] * (BINS - 3), 2), 0) == (nsfw.counts, nsfw.missing)
    assert (0, 4) == (sum(blur.counts), blur.missing)


def test_people_who_decided_say_where_a_policy_is_wrong(database: Database, dry_run: DryRunService) -> None:
    """Held photos, and those that the system itself hid, were decided by nobody."""
    stored(
        database,
        scored(1, 0.25, state=PUBLISHED, by=ANNA.id),
        scored(2, 0.25, state=REFUSED, by=ANNA.id),
        scored(3, 0.7, state=PUBLISHED, by=ANNA.id),
        scored(4, 0.7, state=HELD, by=ANNA.id),
        scored(5, 0.9, state=REFUSED, by=POLICY),
        scored(6, 0.9, state=PUBLISHED, by=SYSTEM.id),
        scored(7, 0.9, state=REFUSED, by=ANNA.id),
    )
    result = dry_run("reviews", "[signals.nsfw]\nreview_at = 0.3\nreject_at = 0.6")
    assert 4 == result.decided_by_people
    before, after = result.agreement_before, result.agreement_after
    assert (0, 0, 3, 1) == (before.shown_wrongly, before.refused_wrongly, before.held, before.right)
    assert (1, 1, 0, 2) == (after.shown_wrongly, after.refused_wrongly, after.held, after.right)
    shown = next(each for each in result.moves if each.after is PUBLISHED)
    assert [REFUSED, PUBLISHED] == [each.decided for each in shown.examples]


def test_only_the_newest_photos_of_the_channel_are_examined(database: Database, dry_run: DryRunService) -> None:
    """As many as were asked for, also over several pages; other channels do not count."""
    many(database)
    stored(database, replace(scored(2_000, 0.25), channel="other"))
    result = dry_run("reviews", "[signals.nsfw]\nreview_at = 0.3", photos=1_050)
    assert (1_050, 1_050) == (result.examined, result.moves[0].count)
    newest = [each.photo.id for each in result.moves[0].examples]
    assert EXAMPLES == len(newest)
    assert sorted(newest, reverse=True) == newest
    assert photo_of(1_099).id == newest[0]
    assert 1_100 == dry_run("reviews", None, photos=5_000).examined


def test_a_dry_run_stops_when_its_time_is_up(database: Database, policies: PolicyService) -> None:
    """And says that it did."""
    many(database)
    ticks = iter(range(0, 1_000, 4))
    result = DryRunService(database, policies, monotonic=lambda: next(ticks))("reviews", None, photos=1_100)
    assert (1_000, False) == (result.examined, result.complete)


def test_a_policy_that_makes_no_sense_is_not_tried(dry_run: DryRunService) -> None:
    """With the same sentence as when it is saved."""
    with pytest.raises(PolicyInvalid, match="overlap"):
        dry_run("reviews", "[signals.nsfw]\nreview_at = 0.9\nreject_at = 0.1")


def test_without_photos_there_is_nothing_to_move(dry_run: DryRunService) -> None:
    """A new system can be looked at too."""
    result = dry_run("reviews", None)
    assert (0, True, (), 0) == (result.examined, result.complete, result.moves, result.decided_by_people)


def test_a_policy_that_leaves_out_signals_names_them(dry_run: DryRunService) -> None:
    """Those of the policy in use, which held or refused photos until now."""
    kept = "[signals.nsfw]\nreview_at = 0.3"
    assert ((), (), ("nsfw",)) == tuple(dry_run("reviews", source).dropped for source in (None, kept, ""))
