"""Records and photos of single classifications go when their days are over, and nothing else does."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import owned_predictions
from shoplens.db import Database
from shoplens.errors import StorageUnavailable
from shoplens.labels.service import LabelService, feedback_labels
from shoplens.predictions.entities import FeedbackValue, PredictionRecord, RecordFilter
from shoplens.predictions.feedback import NewFeedback, give
from shoplens.predictions.image_store import copy_keys
from shoplens.predictions.policy import Outcome
from shoplens.predictions.removal import Removal, Removed
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.predictions.retention import Due, Expires, KeepDays, RecordRetention, RetentionJob
from shoplens.storage import Store, open_store
from tests.samples import NOON, make_item, make_record, moment

DAY_S = 86_400


class Shop:
    """Records with photos in a folder; `now` is the time of day."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self.now = NOON
        self.labels = LabelService(database, store, sources=(feedback_labels(database),), clock=self.clock)
        self.audit = AuditLog(database, clock=self.clock)
        self.removal = Removal(database, store, owned=owned_predictions, labels=self.labels, audit=self.audit)

    def clock(self) -> datetime:
        """For everything."""
        return self.now

    def job(self, *, photos: int | None = None, records: int | None = None, batch: int = 2) -> RetentionJob:
        """With these days in the channel look."""
        keep = {"look": KeepDays(photos=photos, records=records)}
        return RetentionJob(
            self.database, [RecordRetention(self.removal, channels=keep, batch=batch)], clock=self.clock
        )

    def add(self, *records: PredictionRecord) -> None:
        """With all of their files."""
        with self.database.transaction() as tx:
            PredictionRepository(tx).add_many(records)
        for record in records:
            for key in copy_keys(record):
                self.store.put(key, b"photo")

    def say(self, record: PredictionRecord, at: datetime) -> None:
        """Somebody says that it is right."""
        with self.database.transaction() as tx:
            give(tx, NewFeedback(prediction_id=record.id, verdict=FeedbackValue.RIGHT), now=at)

    def left(self) -> list[PredictionRecord]:
        """The records that are still there, oldest first."""
        with self.database.reading() as tx:
            return PredictionRepository(tx).page(RecordFilter(), limit=1_000)[::-1]

    def photos(self) -> list[bool]:
        """Whether each of the records has its photo with its copies; the oldest first."""
        found = []
        for record in self.left():
            files = [self.store.exists(key) for key in copy_keys(record)]
            assert all(files) or record.image_key is None
            found.append(record.image_key is not None)
        return found


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    """An empty one."""
    (tmp_path / "store").mkdir()
    return Shop(database, open_store(str(tmp_path / "store"), setting="storage_url"))


def on_days(*days: int) -> list[PredictionRecord]:
    """A record of each of these days."""
    return [make_record(day * DAY_S) for day in days]


def test_photos_go_when_their_days_are_over_and_records_stay(shop: Shop) -> None:
    """Each says when its photo went; younger ones and other channels are as they were."""
    records = [*on_days(0, 1, 2, 9), make_record(5, channel="other")]
    shop.add(*records)
    shop.now = NOON + timedelta(days=10)

    done = shop.job(photos=5).run()

    assert {("look", Expires.PHOTOS): Removed(photos=3, files=9)} == done
    by_id = {record.id: record for record in shop.left()}
    assert [None, None, None, records[3].image_key, records[4].image_key] == [
        by_id[record.id].image_key for record in records
    ]
    assert [shop.now] * 3 == [by_id[record.id].photo_deleted_at for record in records[:3]]
    assert [False] * 9 + [True] * 6 == [shop.store.exists(key) for record in records for key in copy_keys(record)]
    entries = shop.audit.page(AuditFilter(action="retention.deleted"), limit=5)
    assert [1, 2] == [entry.details["photos"] for entry in entries]
    assert {("look", Expires.PHOTOS): Removed()} == shop.job(photos=5).run()


def test_without_days_everything_is_kept(shop: Shop) -> None:
    """That is the default."""
    shop.add(*on_days(0, 1))
    shop.now = NOON + timedelta(days=5_000)
    assert {} == shop.job().run()
    assert [True, True] == shop.photos()
    assert [Due(channel="look", what=what, days=None) for what in (Expires.PHOTOS, Expires.RECORDS)] == shop.job().due()


def test_what_waits_for_a_person_stays_and_its_days_begin_with_their_answer(shop: Shop) -> None:
    """A label is of use for as long as a photo that needed no person."""
    waiting, said = (make_record(number, outcome=Outcome.REVIEW) for number in range(2))
    shop.add(waiting, said)
    shop.say(said, NOON + timedelta(days=8))
    shop.now = NOON + timedelta(days=10)
    job = shop.job(photos=5)
    job.run()
    assert [True, True] == shop.photos()
    (due, _) = job.due()
    assert (0, 1, NOON + timedelta(days=13)) == (due.due, due.waiting, due.next_at)

    shop.now = NOON + timedelta(days=14)
    assert (1, 1) == (job.due()[0].due, job.due()[0].waiting)
    job.run()

    assert [True, False] == shop.photos()
    shop.say(waiting, shop.now)
    shop.now += timedelta(days=6)
    job.run()
    assert [False, False] == shop.photos()


def test_a_photo_stays_while_another_record_shows_it(shop: Shop) -> None:
    """In whichever channel; its files go with the last one."""
    old, young = make_record(0), make_record(8 * DAY_S, image=make_record(0).image, image_key=make_record(0).image_key)
    shop.add(old, young)
    shop.now = NOON + timedelta(days=10)
    shop.job(photos=5).run()
    assert [False, True] == shop.photos()
    shop.now = NOON + timedelta(days=14)
    assert {("look", Expires.PHOTOS): Removed(photos=1, files=3)} == shop.job(photos=5).run()
    assert 0 == sum(map(shop.store.exists, copy_keys(young)))


def test_an_original_goes_while_another_record_has_the_thumbnail_alone(shop: Shop) -> None:
    """That one still shows it."""
    image = make_record(0).image
    thumbnail = f"images/{image.sha256[:2]}/{image.sha256[2:4]}/{image.sha256}.thumbnail.jpg"
    original, small = make_record(0), make_record(9 * DAY_S, image=image, image_key=thumbnail)
    shop.add(original, small)
    shop.now = NOON + timedelta(days=10)
    shop.job(photos=5).run()
    assert [False, True] == [shop.store.exists(str(each.image_key)) for each in (original, small)]


def test_records_go_with_their_photos_and_what_people_said(shop: Shop) -> None:
    """No label set has them any more, so no training does."""
    old, said, young = on_days(0, 1, 9)
    shop.add(old, said, young)
    for record in (said, young):
        shop.say(record, record.created_at)
    shop.labels.build("look", by=SYSTEM)
    shop.now = NOON + timedelta(days=10)

    done = shop.job(photos=3, records=5).run()

    assert Removed(records=2, photos=2, files=6) == done["look", Expires.RECORDS]
    assert [young] == shop.left()
    assert [young.id] == [label.sample_id for label in shop.labels.labels(shop.labels.get("look"))]
    with shop.database.reading() as tx:
        assert {} == FeedbackRepository(tx).for_predictions([said.id])


def test_records_of_runs_are_no_single_classifications(shop: Shop) -> None:
    """Their run needs them for its numbers."""
    own, owned = on_days(0, 1)
    shop.add(own, owned)
    with shop.database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(1, prediction_id=owned.id)])
    shop.now = NOON + timedelta(days=10)
    shop.job(photos=1, records=5).run()
    assert ([owned], [True]) == (shop.left(), shop.photos())


def test_a_turn_that_was_interrupted_goes_on_where_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its photos are counted once, and no file is left."""
    records = on_days(*range(5))
    shop.add(*records)
    shop.now = NOON + timedelta(days=30)
    delete, deleted = shop.store.delete, 0

    def dying(key: str) -> None:
        nonlocal deleted
        deleted += 1
        if deleted == 8:
            raise StorageUnavailable("gone")
        delete(key)

    monkeypatch.setattr(shop.store, "delete", dying)
    with pytest.raises(StorageUnavailable):
        shop.job(photos=5).run()
    assert 4 == sum(record.photo_deleted_at is not None for record in shop.left())
    assert 3 == sum(record.image_key is not None for record in shop.left())
    assert Removed(photos=3, files=9) == shop.job(photos=5).run()["look", Expires.PHOTOS]

    assert [False] * 5 == shop.photos()
    assert [] == list(shop.store.list("images"))
    entries = shop.audit.page(AuditFilter(action="retention.deleted"), limit=9)
    assert 5 == sum(entry.details["photos"] for entry in entries)


def test_one_process_at_a_time_has_the_turn_and_the_next_is_an_hour_later(shop: Shop) -> None:
    """Processes may look as often as they like."""
    shop.add(*on_days(0))
    shop.now = NOON + timedelta(days=10)
    first, second = shop.job(photos=5), shop.job(photos=5)
    assert [True, False] == [first.run_if_due(), second.run_if_due()]
    shop.now += timedelta(hours=1)
    assert [True, False] == [second.run_if_due(), first.run_if_due()]
    assert [False] == shop.photos()


def test_what_is_due_is_counted_without_deleting_it(shop: Shop) -> None:
    """With the time at which the oldest of the others goes."""
    shop.add(*on_days(0, 1, 6, 7), make_record(5, channel="other"))
    shop.now = NOON + timedelta(days=10)
    photos, records = shop.job(photos=5, records=30).due()
    assert (5, 2, 0, moment(6 * DAY_S) + timedelta(days=5), False) == (
        photos.days, photos.due, photos.waiting, photos.next_at, photos.more,
    )  # fmt: skip
    assert (30, 0, moment(0) + timedelta(days=30)) == (records.days, records.due, records.next_at)
    assert [True] * 5 == shop.photos()
