"""Photos of finished runs go when their days are over, and what the runs say stays as it was."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.batch.browse import open_photo
from shoplens.batch.entities import ItemFilter, ItemState
from shoplens.batch.export import ExportFormat, ExportItems
from shoplens.batch.report import WriteReport, gather
from shoplens.batch.review import ItemAnswer, ReviewService
from shoplens.batch.run_repository import RunRepository
from shoplens.errors import ImageNotKept, ItemNotReady, StorageUnavailable
from shoplens.predictions.entities import Answer, FeedbackValue, RecordFilter
from shoplens.predictions.feedback import NewFeedback
from shoplens.predictions.image_store import ImageSize
from shoplens.predictions.removal import Removed
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.retention import Expires
from tests.samples import make_record
from tests.unit.batch.results_shop import Shop, needing_review, quarantined, retention_job

RUN_PHOTOS = ("returns", Expires.RUN_PHOTOS)


@pytest.fixture
def report(shop: Shop) -> WriteReport:
    """Over the shop, with its clock."""
    return WriteReport(shop.database, shop.store, shop.images, clock=shop.clock)


@pytest.fixture
def review(shop: Shop) -> ReviewService:
    """Over the shop, with its clock."""
    return ReviewService(shop.database, shop.store, labels={"returns": ("dress", "hat")}, clock=shop.tick)


def photos_of(shop: Shop) -> list[str]:
    """The keys of all photos and copies in the store."""
    return [key for key in shop.store.list("") if key.endswith(".jpg")]


def facts_of(shop: Shop, run_id: str) -> dict[str, Any]:
    """The numbers of the report, and the rows of the export without the place of the file."""
    with shop.database.reading() as tx:
        facts = gather(tx, RunRepository(tx).get(run_id), now=shop.now)
    table = b"".join(ExportItems(shop.database).stream(ItemFilter(run_id=run_id), ExportFormat.JSONL)).decode()
    return {
        "sums": [(row.name, row.number) for row in facts.accounting.rows()],
        "counts": dict(facts.counts.by_state),
        "answers": dict(facts.answers),
        "mix": list(facts.mix),
        "rate": facts.per_minute,
        "table": re.sub(r'"photo":("[^"]*"|null)', "", table),
    }


def test_a_finished_run_says_the_same_after_its_photos_are_gone(
    shop: Shop, report: WriteReport, review: ReviewService
) -> None:
    """Numbers, answers and table are equal; the stored report lacks its pictures and nothing else."""
    items = [shop.arrive(f"{number}.jpg") for number in range(3)]
    corrected = shop.arrive("4.jpg", fate=needing_review("dress", 0.4))
    bad = shop.arrive("5.jpg", data=b"bad", fate=quarantined("image_corrupt", "It is cut off."))
    shop.repeat(items[0], "again.jpg")
    run = shop.run()
    key = report(run.id)
    review.label(corrected.id, "hat")
    html = shop.store.get(key)
    before = facts_of(shop, run.id)
    assert html.count(b"data:image/jpeg") > 0
    shop.now += timedelta(days=31)

    assert 5 == retention_job(shop).run()[RUN_PHOTOS].photos

    assert [] == photos_of(shop)
    assert before == facts_of(shop, run.id)
    stripped = shop.store.get(key)
    pictures = re.compile(
        rb'<img src="data:image/jpeg[^>]*>|<span class="no-picture">Photo removed by retention</span>'
    )
    assert pictures.sub(b"", html) == pictures.sub(b"", stripped)
    assert (0, html.count(b"data:image/jpeg")) == (
        stripped.count(b"data:image/jpeg"), stripped.count(b"removed by retention"),
    )  # fmt: skip
    assert "removed by retention" in report.render(run.id)
    for item in (items[0], bad):
        with pytest.raises(ImageNotKept, match="deleted by retention on 2026-06-04"):
            open_photo(shop.database, shop.images, item.id, ImageSize.VIEW)
    entries = AuditLog(shop.database, clock=shop.clock).page(AuditFilter(action="retention.deleted"), limit=9)
    assert 5 == sum(entry.details["photos"] for entry in entries)


def test_what_waits_for_a_person_and_what_runs_stays(shop: Shop, review: ReviewService) -> None:
    """A photo to review, one that can be tried again, and those of a run that goes on."""
    waiting = shop.arrive("1.jpg", fate=needing_review("dress", 0.4))
    again = shop.arrive("2.jpg", data=b"again", fate=quarantined("image_decoder_failed", "It ran out of time."))
    shop.run()
    running = shop.arrive("3.jpg")
    shop.run(end=False)
    shop.now += timedelta(days=31)
    work = retention_job(shop)
    assert (0, 2) == (work.due()[0].due, work.due()[0].waiting)

    assert {RUN_PHOTOS: Removed()} == work.run()

    for item in (waiting, again, running):
        assert shop.store.exists(str(shop.item(item).key))
    review.confirm(waiting.id)
    assert {RUN_PHOTOS: Removed()} == work.run()
    shop.now += timedelta(days=31)
    assert 1 == work.due()[0].due
    work.run()
    assert [None, "returns"] == [
        (key or None) and key.split("/")[0] for key in (shop.item(waiting).key, shop.item(again).key)
    ]


def test_without_days_the_photos_of_runs_are_kept(shop: Shop) -> None:
    """That is the default."""
    item = shop.arrive("1.jpg")
    shop.run()
    shop.now += timedelta(days=5_000)
    assert {} == retention_job(shop, days=None).run()
    assert shop.store.exists(str(shop.item(item).key))


def test_a_copy_that_another_record_shows_stays(shop: Shop) -> None:
    """The copies of a photo are those of all of its records; the filed original is the run's alone."""
    item = shop.arrive("1.jpg")
    shop.run()
    open_photo(shop.database, shop.images, item.id, ImageSize.THUMBNAIL)
    record_id = str(shop.item(item).prediction_id)
    with shop.database.transaction() as tx:
        image = PredictionRepository(tx).get(record_id).image
        thumbnail = next(key for key in photos_of(shop) if key.endswith(".thumbnail.jpg"))
        PredictionRepository(tx).add_many([make_record(1, image=image, image_key=thumbnail)])
    shop.now += timedelta(days=31)
    assert Removed(photos=1, files=1) == retention_job(shop).run()[RUN_PHOTOS]
    assert [thumbnail] == photos_of(shop)


def test_people_may_still_answer_but_nobody_is_asked_to(shop: Shop, review: ReviewService) -> None:
    """Without its photo an item cannot need review again."""
    item = shop.arrive("1.jpg")
    shop.run()
    review.confirm(item.id)
    shop.now += timedelta(days=31)
    retention_job(shop).run()
    with pytest.raises(ItemNotReady, match="was deleted, so it cannot be reviewed"):
        review.reopen(item.id)
    record_id = str(shop.item(item).prediction_id)
    review.settle(NewFeedback(prediction_id=record_id, verdict=FeedbackValue.WRONG))
    assert ItemState.DONE is shop.item(item).state
    answered = review.answer(item.id, ItemAnswer(answer=Answer.CORRECTED, label="hat"))
    assert ("hat", None, None) == (answered.label, answered.key, answered.target_key)


def test_a_turn_that_was_interrupted_goes_on_where_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its photos are counted once, and nobody sees one whose files are half deleted."""
    items = [shop.arrive(f"{number}.jpg") for number in range(3)]
    shop.run()
    shop.now += timedelta(days=31)

    def away(_: str) -> None:
        raise StorageUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(shop.store, "delete", away)
        with pytest.raises(StorageUnavailable):
            retention_job(shop).run()
    assert 3 == len(photos_of(shop))
    with pytest.raises(ImageNotKept, match="deleted by retention"):
        open_photo(shop.database, shop.images, items[0].id, ImageSize.VIEW)
    assert 3 == retention_job(shop).run()[RUN_PHOTOS].photos
    assert [] == photos_of(shop)
    with shop.database.reading() as tx:
        assert {None} == {each.image_key for each in PredictionRepository(tx).page(RecordFilter(), limit=9)}
