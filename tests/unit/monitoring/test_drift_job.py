"""The job that compares days, over a database and a store: what it stores, what it leaves, and what is gone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.bundles.bundle import Bundle, write_bundle
from shoplens.db import Database
from shoplens.errors import ModelNotFound, RequestInvalid
from shoplens.images.picture import ImageFacts, Limits
from shoplens.images.sandbox import shared_decoder
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.monitoring.drift.charts import measures_of
from shoplens.monitoring.drift.gauges import DriftGauges
from shoplens.monitoring.drift.job import DriftJob, reference
from shoplens.monitoring.drift.looking import PhotoLooker
from shoplens.monitoring.drift.pages import SampleAddresses
from shoplens.monitoring.drift.profile import Measure
from shoplens.monitoring.drift.repository import DriftRepository
from shoplens.monitoring.drift.sampling import PredictionSamples, chosen
from shoplens.monitoring.drift.service import DriftService
from shoplens.platform.parts import build_channels
from shoplens.predictions.entities import Channel, Feedback, FeedbackValue
from shoplens.predictions.image_store import ImageStore
from shoplens.predictions.policy import Decision, Outcome, Policy
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.serving.classifier import Classifier
from shoplens.serving.engine import LabelScore
from shoplens.settings import Settings
from shoplens.storage import image_key
from shoplens.storage.local import LocalStore
from shoplens.telemetry.metrics import Metrics
from tests.conftest import colourful, jpeg_of
from tests.samples import id_at, make_record
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

LAST = date(2026, 5, 10)
NOW = datetime(2026, 5, 11, 0, 30, tzinfo=UTC)
PHOTOS = 30
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@cache
def photo(number: int, *, dark: bool) -> tuple[bytes, str]:
    """One of a few photos with its hash."""
    pixels = colourful(number, width=64, height=48)
    data = jpeg_of((pixels * 0.3).astype(np.uint8) if dark else pixels)
    return data, hashlib.sha256(data).hexdigest()


def classify(database: Database, store: LocalStore, day: date, *, dark: bool = False, count: int = PHOTOS) -> list[str]:
    """Records of a day with kept photos; their ids."""
    random = np.random.default_rng(day.toordinal())
    records = []
    for number in range(count):
        data, sha256 = photo(int(random.integers(12)), dark=dark)
        key = image_key(sha256, "jpg")
        store.put(key, data)
        at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC) + timedelta(seconds=number)
        labels = (LabelScore(str(random.choice(["hat", "shoes"])), float(random.uniform(0.5, 1))), LabelScore("x", 0.1))
        facts = ImageFacts(format="jpeg", width=64, height=48, byte_count=len(data), sha256=sha256, phash="0" * 16)
        records.append(
            replace(
                make_record(), id=id_at(at), created_at=at, channel="returns", image=facts, image_key=key, labels=labels
            )
        )
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
    return [record.id for record in records]


def a_job(database: Database, store: LocalStore, classifier: Classifier | None = None) -> DriftJob:
    """Over the channel of returns, half an hour after midnight."""
    images = ImageStore(store, limits=Limits(), sandbox=shared_decoder())
    looker = PhotoLooker(classifier, limits=Limits(), sandbox=shared_decoder())
    source = PredictionSamples(database, images)
    return DriftJob(database, sources={"returns": source}, lookers=lambda _channel, _model: looker, clock=lambda: NOW)


def fill(database: Database, store: LocalStore) -> dict[date, list[str]]:
    """Eight days, the fifth without any photo, and a dark one."""
    days = [LAST - timedelta(days=ago) for ago in range(8, 0, -1)]
    ids = {day: classify(database, store, day) for day in days if day != days[4]}
    return ids | {LAST: classify(database, store, LAST, dark=True)}


def test_a_dark_day_alarms_and_gaps_are_no_zeros(database: Database, tmp_path: Path) -> None:
    """Days before it are as usual; the day without photos is stored as such and compared with nothing."""
    store = LocalStore(tmp_path / "store")
    ids = fill(database, store)
    days = {each.day: each for each in a_job(database, store).run()}
    dark = days[LAST]
    assert {Measure.BRIGHTNESS, Measure.CONTRAST} <= {finding.measure for finding in dark.alarms}
    assert Measure.CLASSES not in {finding.measure for finding in dark.alarms}
    assert not [each for day, each in days.items() if day != LAST and each.alarms]
    empty = days[LAST - timedelta(days=4)]
    assert (0, 0, ()) == (empty.profile.rows, empty.profile.photos, empty.findings)
    assert len(ids[LAST]) == dark.profile.photos
    assert dark.finding(Measure.SIZE) is not None
    report = DriftService(
        database, channels={"returns": Channel(name="returns", model="m", title="R", question="?")},
        find_bundle=lambda _: pytest.fail("no model is read of a name without tests"), clock=lambda: NOW,
    )  # fmt: skip
    with database.reading() as tx:
        stored = DriftRepository(tx).days("returns", LAST, LAST + timedelta(days=1))
        assert {"returns"} == set(DriftRepository(tx).last_alarms(["returns", "look"], LAST - timedelta(days=3)))
    assert [dark.alarms] == [each.alarms for each in stored]
    assert report.channel(None).name == "returns"


@on_sqlite
def test_an_interrupted_job_goes_on_and_a_done_one_has_nothing_to_do(database: Database, tmp_path: Path) -> None:
    """Each day is committed by itself; computed again it is the same."""
    store = LocalStore(tmp_path / "store")
    fill(database, store)
    first = next(a_job(database, store).run())
    rest = list(a_job(database, store).run())
    assert first.day not in {each.day for each in rest}
    assert rest[-1].day == LAST
    assert [] == list(a_job(database, store).run())
    (again,) = a_job(database, store).run([LAST], again=True)
    assert again.findings == rest[-1].findings
    with pytest.raises(RequestInvalid, match="2026-05-11 is not over"):
        list(a_job(database, store).run([NOW.date()]))


def a_service(database: Database, now: datetime = NOW) -> DriftService:
    """Over the channel of returns, whose model is not installed."""
    channel = Channel(name="returns", model="m", title="R", question="?")

    def gone(model: str) -> Bundle:
        raise ModelNotFound(model)

    return DriftService(database, channels={"returns": channel}, find_bundle=gone, clock=lambda: now)


def test_what_a_person_calls_normal_alarms_no_more_until_it_is_taken_back(database: Database, tmp_path: Path) -> None:
    """The next day is compared with the days since the change; the audit log has who, when and why."""
    store = LocalStore(tmp_path / "store")
    fill(database, store)
    list(a_job(database, store).run())
    service = a_service(database)
    assert Measure.BRIGHTNESS in service.of("returns").alarms
    with pytest.raises(RequestInvalid, match="Say why"):
        service.accept_change("returns", LAST, reason="  ", by=SYSTEM)
    with pytest.raises(RequestInvalid, match="Name a day from"):
        service.accept_change("returns", LAST + timedelta(days=2), reason="soon", by=SYSTEM)
    service = a_service(database, NOW + timedelta(minutes=5))
    service.accept_change("returns", LAST, reason="A darker\nstudio", by=SYSTEM)
    report = service.of("returns")
    assert report.shown is not None
    assert report.normal is not None
    assert ({}, True, "A darker studio") == (report.alarms, report.expected(report.shown), report.normal.reason)
    with database.reading() as tx:
        assert {"returns": (LAST, ())} == DriftRepository(tx).last_alarms(["returns"], LAST)
        since = DriftRepository(tx).days("returns", LAST - timedelta(days=9), LAST + timedelta(days=1))
    tomorrow = replace(since[-1], day=LAST + timedelta(days=1), computed_at=NOW + timedelta(days=1))
    assert [since[-1].profile] == reference(tomorrow, since, Measure.BRIGHTNESS, report.normal)
    assert since[-1].profile not in reference(tomorrow, since, Measure.BRIGHTNESS)
    marks = [view.chart.marks for view in measures_of(report) if view.chart is not None]
    assert {"Normal since 2026-05-10: A darker studio"} == {name for each in marks for _, name in each}
    assert service.withdraw_change("returns", by=SYSTEM) is not None
    assert service.withdraw_change("returns", by=SYSTEM) is None
    assert Measure.BRIGHTNESS in service.of("returns").alarms
    actions = [each.action for each in AuditLog(database, clock=lambda: NOW).page(AuditFilter(), limit=5)]
    assert ["drift.accept_withdrawn", "drift.accepted"] == actions


@on_sqlite
def test_one_server_at_a_time_computes_what_is_due(database: Database, tmp_path: Path) -> None:
    """The second one that asks within the hour does nothing."""
    store = LocalStore(tmp_path / "store")
    classify(database, store, LAST)
    computed = a_job(database, store).run_if_due()
    assert computed is not None
    assert LAST in {each.day for each in computed}
    assert a_job(database, store).run_if_due() is None


@on_sqlite
def test_photos_that_are_gone_are_left_out(database: Database, tmp_path: Path) -> None:
    """The counts of the day are of all samples; what lies in the store no more is not looked at."""
    store = LocalStore(tmp_path / "store")
    classify(database, store, LAST)
    for key in list(store.list("")):
        store.delete(key)
    (day,) = a_job(database, store).run([LAST])
    assert (PHOTOS, 0) == (day.profile.rows, day.profile.photos)
    assert {Measure.CLASSES, Measure.FORMAT} == set(day.profile.names)


@on_sqlite
def test_a_model_without_embeddings_gives_its_scores(database: Database, tmp_path: Path) -> None:
    """Photos are compared by them, and the strangest ones are named."""
    store = LocalStore(tmp_path / "store")
    ids = fill(database, store)
    bundle = write_bundle(
        tmp_path / "fruit" / "1.2.0", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model()
    )
    days = {each.day: each for each in a_job(database, store, Classifier(bundle)).run()}
    assert "scores" == days[LAST].space
    assert Measure.EMBEDDING_MMD in days[LAST].profile.vectors
    assert 10 == len(days[LAST].strangest)
    assert {sample for sample, _ in days[LAST].strangest} <= set(ids[LAST])
    assert () == days[LAST - timedelta(days=8)].strangest


@on_sqlite
def test_at_most_so_many_photos_are_chosen_and_always_the_same(database: Database, tmp_path: Path) -> None:
    """The choice follows from the ids."""
    store = LocalStore(tmp_path / "store")
    ids = classify(database, store, LAST)
    samples = PredictionSamples(database, ImageStore(store, limits=Limits(), sandbox=shared_decoder()))
    since = datetime(LAST.year, LAST.month, LAST.day, tzinfo=UTC)
    rows = list(samples.rows("returns", since, since + timedelta(days=1)))
    assert sorted(ids) == sorted(row.id for row in rows)
    assert chosen(rows, 5) == chosen(reversed(rows), 5)
    assert 5 == len(set(chosen(rows, 5)))


def test_answers_become_an_estimate_and_gauges(database: Database) -> None:
    """Random checks weigh by their chance, doubtful samples stand for themselves, the last word counts."""
    policy = Policy(accept_at=0.8, audit_share=0.1)
    channel = Channel(name="returns", model="m", title="R", question="?", policy=policy)
    records = []
    for number in range(400):
        at = NOW - timedelta(hours=2) + timedelta(seconds=number)
        checked, doubtful = 0 <= number < 30, number >= 340
        outcome = Outcome.REVIEW if checked or doubtful else Outcome.ACCEPT
        decision = Decision(outcome=outcome, policy_version=policy.version, check_share=0.1 if checked else None)
        labels = (LabelScore("hat", 0.6 if doubtful else 0.9), LabelScore("shoes", 0.1))
        records.append(
            replace(make_record(), id=id_at(at), created_at=at, channel="returns", decision=decision, labels=labels)
        )
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
        answers = FeedbackRepository(tx)
        for number, record in enumerate([*records[:30], *records[340:]]):
            right = number % 2 == 0 if number >= 30 else number != 3
            verdict = FeedbackValue.RIGHT if right else FeedbackValue.WRONG
            answers.add(remark(record.id, NOW - timedelta(hours=1) + timedelta(seconds=number), verdict))
        answers.add(remark(records[3].id, NOW, FeedbackValue.RIGHT))  # on second thoughts
        answers.add(remark(records[100].id, NOW, FeedbackValue.WRONG))  # nobody asked: people look where they suspect
    service = AccuracyService(
        database, channels={"returns": channel}, jobs={}, policy_of=lambda _: channel.policy, clock=lambda: NOW
    )
    report = service.of("returns")
    assert report.production is not None
    assert (340, 30, 60, 0) == (
        report.production.checked.samples, report.production.checks, report.production.reviewed.samples,
        report.production.unchecked,
    )  # fmt: skip
    assert report.automatic is not None
    assert report.reviewed is not None
    assert report.overall is not None
    assert (1.0, 30) == (report.automatic.value, report.automatic.answers)
    assert 0.5 == report.reviewed.value
    assert (340 + 30) / 400 == pytest.approx(report.overall.value)
    assert 60 / 90 == pytest.approx(report.naive)
    metrics = Metrics()
    DriftGauges(database, service, metrics, clock=lambda: NOW)()
    said = metrics.exposition().decode()
    assert 'shoplens_accuracy{bound="value",channel="returns"} 1.0' in said
    assert 'shoplens_drift_alarm{channel="returns",measure="classes"} 0.0' in said


def remark(record_id: str, at: datetime, verdict: FeedbackValue) -> Feedback:
    """What a person said of a record."""
    return Feedback(id=id_at(at), created_at=at, prediction_id=record_id, verdict=verdict)


def test_photos_of_shoppers_are_linked_where_only_moderators_see_them(make_settings: Callable[..., Settings]) -> None:
    """Those of other channels are records."""
    addresses = SampleAddresses(build_channels(make_settings()))
    assert "/console/moderation/photos/a" == addresses.page("reviews", "a")
    assert "/moderation/photos/a/image?size=thumbnail" == addresses.thumbnail("reviews", "a")
    assert "/console/records/a" == addresses.page("returns", "a")
    assert "/predictions/a/image?size=thumbnail" == addresses.thumbnail("returns", "a")
    assert "/console/moderation/photos/a" == addresses.page("closed", "a")
