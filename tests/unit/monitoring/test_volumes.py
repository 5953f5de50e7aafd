"""Volumes, what needed a person, and agreement of all jobs: the same numbers as on the pages of the jobs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from shoplens.accounts.entities import SYSTEM
from shoplens.catalogue.numbers.service import NumberService
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from shoplens.moderation.decisions import add_decided
from shoplens.moderation.entities import PhotoState, QueueReason
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.moderation.queue.service import QueueRules
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import DAY_S, DayCounts, Job
from tests.unit.catalogue.products import ANNA as CATALOGUER
from tests.unit.catalogue.products import (
    CHANNEL,
    START,
    Clock,
    add,
    bulk_service,
    decision_service,
    product_service,
    suggested,
)
from tests.unit.moderation.photos import ANNA, BEN, moment, photo_of

ACCEPT = Choice(state=PhotoState.PUBLISHED)
REFUSE = Choice(state=PhotoState.REFUSED, reason="nudity")


def counted(database: Database, at_s: int) -> list[DayCounts]:
    """The counts of the day with this Unix second, as they are stored."""
    day = at_s // DAY_S * DAY_S
    with database.transaction() as tx:
        days = DayRepository(tx)
        days.replace(day, days.count(day), now=moment(0))
        return days.between(day, day + DAY_S)


def test_moderation_counts_what_the_policy_did_and_who_agreed(database: Database) -> None:
    """A held photo has no proposal to agree with; a second opinion is on a person; what is undone does not count."""
    published = [photo_of(number, state=PhotoState.PUBLISHED, queue=QueueReason.CHECK) for number in (1, 2, 3)]
    refused = photo_of(4, state=PhotoState.REFUSED, queue=QueueReason.CHECK)
    held = [photo_of(number) for number in (5, 6)]
    with database.transaction() as tx:
        add_decided(tx, [*published, refused, *held], by=SYSTEM)
    rules = {"reviews": QueueRules(second_opinion_share=1.0)}
    review = PhotoReview(database, rules=rules, clock=lambda: moment(1_000))
    for photo, choice in ((published[0], ACCEPT), (published[1], REFUSE), (refused, REFUSE), (held[0], ACCEPT)):
        review.decide(photo.id, choice, by=ANNA, seen=0)
    review.decide(held[0].id, ACCEPT, by=BEN, seen=1)
    review.decide(published[2].id, REFUSE, by=BEN, seen=0)
    review.undo(published[2].id, by=BEN)
    (found,) = counted(database, int(moment(0).timestamp()))
    assert (
        DayCounts(
            begins_s=found.begins_s,
            channel="reviews",
            job=Job.MODERATION,
            predictions=6,
            accepted=3,
            to_review=2,
            rejected=1,
            confirmed=2,
            corrected=1,
        )
        == found
    )


def test_the_catalogue_counts_as_its_own_page_does(database: Database, tmp_path: Path) -> None:
    """Suggestions that needed a person, also after one decided; decisions one by one, not in bulk, not undone."""
    service = product_service(database, tmp_path)
    for number, score in enumerate((0.95, 0.9, 0.9, 0.5, 0.4)):
        suggested(database, add(service, f"A-{number}", "x"), "apple", score)
    decisions = decision_service(database, Clock(START + timedelta(hours=1)))
    decisions.decide(CHANNEL, "A-0", by=CATALOGUER)
    decisions.decide(CHANNEL, "A-3", by=CATALOGUER, category="pear")
    decisions.decide(CHANNEL, "A-4", by=CATALOGUER)
    decisions.decide(CHANNEL, "A-1", by=CATALOGUER)
    decisions.undo(CHANNEL, "A-1", by=CATALOGUER)
    with bulk_service(database, Clock(START + timedelta(hours=2))) as bulk:
        assert 2 == bulk.run(ProductFilter(channel=CHANNEL, min_score=0.1), by=CATALOGUER).done
    (found,) = counted(database, int(START.timestamp()))
    assert (Job.CATALOGUE, 5, 3, 2) == (found.job, found.predictions, found.accepted, found.to_review)
    (week,) = NumberService(database, clock=Clock(START + timedelta(days=1))).of(CHANNEL).weeks
    assert (week.accepted, week.decided) == (found.confirmed, found.confirmed + found.corrected) == (2, 3)
