"""Random checks of moderation and catalogue: drawn when a decision is made, answered by people, weighed by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoplens.accounts.entities import SYSTEM
from shoplens.catalogue.entities import CategoryScore, Product, ProductState
from shoplens.catalogue.products import SuggestedProduct, write_suggestions
from shoplens.catalogue.repository import ProductFilter, ProductRepository
from shoplens.catalogue.suggest.service import Suggestion
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.decisions import add_decided, first_decision
from shoplens.moderation.entities import Intake, ModerationPhoto, PhotoState, QueueReason
from shoplens.moderation.intake.assessment import Assessment
from shoplens.moderation.intake.service import decided_photo
from shoplens.moderation.policy.entities import ModerationPolicy, PolicyDecision
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.monitoring.accuracy.estimates import Answered, Stratum, accuracy
from shoplens.monitoring.accuracy.service import PERIODS, AccuracyReport, AccuracyService
from shoplens.monitoring.series.entities import Job
from shoplens.predictions.entities import Channel
from shoplens.predictions.policy import Policy
from shoplens.predictions.repository import PredictionRepository
from tests.samples import make_record
from tests.unit.catalogue.products import ANNA as CATALOGUER
from tests.unit.catalogue.products import CHANNEL, START, Clock, add, bulk_service, decision_service, product_service
from tests.unit.moderation.photos import ANNA, moment, photo_of

ACCEPT = Choice(state=PhotoState.PUBLISHED)
REFUSE = Choice(state=PhotoState.REFUSED, reason="nudity")


def report_of(database: Database, job: Job, now: datetime, *, name: str = CHANNEL) -> AccuracyReport:
    """The report of a channel for this job."""
    channel = Channel(name=name, model="tiny", title=name, question=name, policy=Policy(accept_at=0.8, audit_share=0.5))
    return AccuracyService(
        database, channels={name: channel}, jobs={name: job}, policy_of=lambda _: channel.policy, clock=lambda: now
    ).of(name)


def decided(database: Database, photos: Sequence[ModerationPhoto], *, audit_share: float) -> None:
    """As an intake commits them."""
    with database.transaction() as tx:
        add_decided(tx, photos, by=SYSTEM, audit_share=audit_share)


def test_moderation_is_estimated_from_blind_checks_by_what_the_policy_did(database: Database) -> None:
    """A person refuses 3 of 12 checked photos that were published; held photos and older ones do not count."""
    check = {"queue": QueueReason.CHECK, "queue_rank": 50}
    decided(database, [photo_of(900, state=PhotoState.PUBLISHED)], audit_share=0.0)
    published = [photo_of(n, state=PhotoState.PUBLISHED, **(check if n < 12 else {})) for n in range(60)]
    refused = [photo_of(100 + n, state=PhotoState.REFUSED, **(check if n < 10 else {})) for n in range(20)]
    decided(database, [*published, *refused, photo_of(800)], audit_share=0.25)
    review = PhotoReview(database, rules={}, clock=lambda: moment(2_000))
    for number, photo in enumerate([*published[:12], *refused[:10]]):
        wrong = number < 3
        choice = ACCEPT if (photo.state is PhotoState.PUBLISHED) is not wrong else REFUSE
        review.decide(photo.id, choice, by=ANNA, seen=0)
    report = report_of(database, Job.MODERATION, moment(3_000), name="reviews")
    assert report.production is not None
    assert (22, 80, 1) == (report.production.checks, report.production.checked.samples, report.production.unchecked)
    published_right, refused_right = (report.by_state[state] for state in ("published", "refused"))
    assert published_right is not None
    assert refused_right is not None
    assert (0.75, 60, 12) == (published_right.value, published_right.samples, published_right.answers)
    assert (1.0, 20, 10) == (refused_right.value, refused_right.samples, refused_right.answers)
    assert report.automatic is not None
    assert report.automatic.low < 19 / 22 < report.automatic.high
    assert ((), None) == (report.points, report.accept_at)


def test_the_first_person_answers_a_check_and_what_is_taken_back_does_not(database: Database) -> None:
    """A later decision on an appeal is no second answer."""
    photo = photo_of(1, state=PhotoState.REFUSED, queue=QueueReason.CHECK, queue_rank=50)
    decided(database, [photo], audit_share=0.5)
    review = PhotoReview(database, rules={}, clock=lambda: moment(2_000))
    review.decide(photo.id, ACCEPT, by=ANNA, seen=0)
    found = report_of(database, Job.MODERATION, moment(3_000), name="reviews").production
    assert found is not None
    assert (Answered(score=1.0, right=False, chance=0.5),) == found.checked.answers
    review.undo(photo.id, by=ANNA)
    found = report_of(database, Job.MODERATION, moment(3_000), name="reviews").production
    assert found is not None
    assert () == found.checked.answers


@pytest.mark.parametrize(
    ("state", "share", "queue"),
    [
        (PhotoState.PUBLISHED, 1.0, QueueReason.CHECK),
        (PhotoState.REFUSED, 1.0, QueueReason.CHECK),
        (PhotoState.HELD, 1.0, QueueReason.HELD),
        (PhotoState.PUBLISHED, 0.0, None),
    ],
)
def test_an_intake_draws_among_what_the_policy_decided_alone(
    state: PhotoState, share: float, queue: QueueReason | None
) -> None:
    """The state is that of the policy whatever chance says, and the history keeps the chance."""
    policy = ModerationPolicy()
    channel = ModerationChannel(
        name="reviews", title="", model="m", general_model=None, groups={}, signals=(), reasons=(),
        default_policy=policy, audit_share=share,
    )  # fmt: skip
    known = photo_of(1)
    assessed = Assessment(
        image=known.image,
        prediction=None,
        fingerprint=b"",
        signals=(),
        decision=PolicyDecision(state=state, rule="why"),
        policy_version=policy.version,
    )
    intake = Intake(
        id=known.id, created_at=moment(0), channel="reviews", caller="shop", idempotency_key=None, body_digest=""
    )
    photo = decided_photo(known.id, assessed, intake=intake, position=0, ref=known.ref, channel=channel, now=moment(1))
    assert (state, queue, "why") == (photo.state, photo.queue, photo.rule)
    first = first_decision(photo, by=SYSTEM, audit_share=share)
    drawn = queue is QueueReason.CHECK
    assert (share if drawn else None, True if drawn else None) == (first.check_share, first.check_drawn)


def suggest(database: Database, products: Sequence[Product], score: float, *, audit_share: float) -> list[Product]:
    """What a run writes; the products after it."""
    results = [
        SuggestedProduct(
            product=product,
            photos=(),
            suggestion=Suggestion(
                suggestions=(CategoryScore(category="apple", score=score),),
                answer=None,
                kind="text",
                model="tiny@1",
                tree=1,
                cold_start=False,
                needs_review=score < 0.8,
                audit_share=audit_share,
            ),
        )
        for product in products
    ]
    with database.transaction() as tx:
        write_suggestions(tx, results, now=START + timedelta(hours=1))
        return [ProductRepository(tx).get(CHANNEL, each.reference) for each in products]


@pytest.mark.parametrize(("score", "share", "checked"), [(0.9, 1.0, True), (0.9, 0.0, None), (0.5, 1.0, None)])
def test_a_sure_suggestion_that_chance_chose_waits_for_a_person(
    database: Database, tmp_path: Path, score: float, share: float, checked: bool | None
) -> None:
    """Doubtful ones go to people anyway, so they are no checks. A bulk acceptance leaves a check to its person."""
    service = product_service(database, tmp_path)
    (product,) = suggest(database, [add(service, "A-1", "Apple")], score, audit_share=share)
    assert (checked, share if checked else None) == (product.check_drawn, product.check_share)
    assert (ProductState.SUGGESTED, checked is True or score < 0.8) == (product.state, product.needs_review)
    with bulk_service(database) as bulk:
        done = bulk.run(ProductFilter(channel=CHANNEL, min_score=0.1), by=CATALOGUER).done
    assert (0 if checked else 1) == done


def test_the_catalogue_is_estimated_from_checks_and_from_what_needed_review(database: Database, tmp_path: Path) -> None:
    """Decisions in bulk say nothing; the threshold for a goal is chosen from both."""
    service = product_service(database, tmp_path)
    sure = suggest(database, [add(service, f"S-{n}", "x") for n in range(12)], 0.9, audit_share=1.0)
    doubtful = suggest(database, [add(service, f"D-{n}", "x") for n in range(10)], 0.5, audit_share=1.0)
    unseen = suggest(database, [add(service, "U-1", "x")], 0.95, audit_share=0.0)
    with database.transaction() as tx:  # of twelve more, chance chose none
        for number in range(12):
            other = add_rest(tx, sure[0], number)
            assert not other.check_drawn
    decisions = decision_service(database, Clock(START + timedelta(hours=2)))
    for number, product in enumerate([*sure, *doubtful]):
        decisions.decide(CHANNEL, product.reference, by=CATALOGUER, category="pear" if number in (0, 15) else "apple")
    with bulk_service(database) as bulk:
        assert 13 == bulk.run(ProductFilter(channel=CHANNEL, min_score=0.1), by=CATALOGUER).done
    report = report_of(database, Job.CATALOGUE, START + timedelta(days=2))
    found = report.production
    assert found is not None
    assert (24, 12, 10, len(unseen)) == (
        found.checked.samples, len(found.checked.answers), found.reviewed.samples, found.unchecked,
    )  # fmt: skip
    assert report.automatic is not None
    assert report.overall is not None
    assert 11 / 12 == pytest.approx(report.automatic.value)
    assert (24 * 11 / 12 + 10 * 0.9) / 34 == pytest.approx(report.overall.value)
    assert "tiny@1" == report.model
    assert report.points


def add_rest(tx: Any, product: Product, number: int) -> Product:
    """A sure product that chance did not choose."""
    other = replace(
        product, id=f"{product.id[:10]}rest{number:012}", reference=f"R-{number}", check_drawn=False, needs_review=False
    )
    ProductRepository(tx).add(other)
    return other


def test_the_interval_holds_the_truth_where_two_kinds_of_decisions_are_checked() -> None:
    """In at least 93 % of 200 shops whose policy refuses less surely than it publishes, and whose share changed."""
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        right = np.concatenate([random.random(6_000) < 0.97, random.random(600) < 0.85])
        share = np.where(random.random(6_600) < 0.5, 0.01, 0.05)
        strata = []
        for part in (slice(0, 6_000), slice(6_000, 6_600)):
            drawn = random.random(len(right[part])) < share[part]
            answers = zip(right[part][drawn], share[part][drawn], strict=True)
            scores = np.zeros(101)
            scores[100] = len(right[part])
            strata.append(
                Stratum(
                    scores=scores,
                    answers=tuple(Answered(score=1.0, right=bool(ok), chance=float(chance)) for ok, chance in answers),
                    at_random=True,
                )
            )
        scores = np.zeros(101)
        scores[100] = len(right)
        together = Stratum(scores=scores, answers=strata[0].answers + strata[1].answers, at_random=True)
        estimate = accuracy([together])
        assert estimate is not None
        held += estimate.low <= right.mean() <= estimate.high
    assert held >= 0.93 * 200


def test_other_periods_are_refused_before_anything_is_computed(database: Database) -> None:
    """So reports stay few: a channel has one for each period."""
    channel = Channel(name="look", model="tiny", title="", question="")
    service = AccuracyService(
        database, channels={"look": channel}, jobs={}, policy_of=lambda _: channel.policy, clock=lambda: START
    )
    for days in range(1, 366):
        if days in PERIODS:
            assert service.of("look", days=days) is service.of("look", days=days)
        else:
            with pytest.raises(RequestInvalid, match="Use one of: 7, 28, 90, 365"):
                service.of("look", days=days)


def test_a_channel_whose_other_side_is_unused_is_estimated_from_its_predictions(database: Database) -> None:
    """A model of moderation may answer single photos alone."""
    assert Job.MODERATION is report_of(database, Job.MODERATION, moment(0), name="look").job
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(channel="look")])
    assert Job.PREDICTIONS is report_of(database, Job.MODERATION, moment(0), name="look").job
