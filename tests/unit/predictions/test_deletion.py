"""Records that are deleted are gone: rows, photos, copies, and what was learned from them."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import find_references, owned_predictions
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.labels.errors import NothingLabelled
from shoplens.labels.service import LabelService, feedback_labels
from shoplens.predictions.deletion import DeletionService
from shoplens.predictions.entities import FeedbackValue, PredictionRecord, RecordFilter
from shoplens.predictions.feedback import NewFeedback, give
from shoplens.predictions.image_store import copy_keys
from shoplens.predictions.removal import Removal
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.predictions.search import RecordSearch
from shoplens.storage import Store, open_store
from tests.samples import make_item, make_record, moment


def now() -> datetime:
    """Any time."""
    return moment(5_000)


class Shop:
    """Records with photos in a folder, and what deletes them."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self.labels = LabelService(database, store, sources=(feedback_labels(database),), clock=now)
        self.audit = AuditLog(database, clock=now)

    def deletion(self, **more: Any) -> DeletionService:
        """As the server has it."""
        removal = Removal(self.database, self.store, owned=owned_predictions, labels=self.labels, audit=self.audit)
        return DeletionService(removal, search=RecordSearch(references=find_references), **more)

    def add(self, *records: PredictionRecord) -> None:
        """With all of their files."""
        with self.database.transaction() as tx:
            PredictionRepository(tx).add_many(records)
        for record in records:
            for key in copy_keys(record):
                self.store.put(key, b"photo")

    def left(self) -> list[PredictionRecord]:
        """The records that are still there, newest first."""
        with self.database.reading() as tx:
            return PredictionRepository(tx).page(RecordFilter(), limit=1_000)

    def files(self, record: PredictionRecord) -> int:
        """How many files of a record are still there."""
        return sum(map(self.store.exists, copy_keys(record)))


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    """An empty one."""
    (tmp_path / "store").mkdir()
    return Shop(database, open_store(str(tmp_path / "store"), setting="storage_url"))


def chosen(*records: PredictionRecord) -> RecordFilter:
    """These alone."""
    return RecordFilter(ids=tuple(sorted((record.id for record in records), reverse=True)))


def test_a_selection_is_deleted_with_its_photos_and_feedback(shop: Shop) -> None:
    """The others stay as they are, and the audit log has an entry."""
    first, second, third = (make_record(number) for number in range(3))
    shop.add(first, second, third)
    with shop.database.transaction() as tx:
        give(tx, NewFeedback(prediction_id=second.id, verdict=FeedbackValue.RIGHT), now=now())
    found = shop.deletion().look(chosen(first, second))
    assert (2, 0, False, second.id) == (found.records, found.owned, found.more, found.newest)

    done = shop.deletion().delete(chosen(first, second), newest=found.newest, by=SYSTEM)

    assert (2, 6, 0, False) == (done.records, done.files, done.owned, done.left)
    assert [third] == shop.left()
    assert [0, 0, 3] == [shop.files(each) for each in (first, second, third)]
    with shop.database.reading() as tx:
        assert {} == FeedbackRepository(tx).for_predictions([second.id])
    (entry,) = shop.audit.page(AuditFilter(action="records.deleted"), limit=5)
    assert (2, first.id, second.id) == (entry.details["records"], entry.details["oldest"], entry.details["newest"])


def test_a_filter_deletes_what_matched_when_it_was_confirmed(shop: Shop) -> None:
    """A record that came later stays."""
    shop.add(*(make_record(number, label="dress" if number % 2 else "hat") for number in range(6)))
    found = shop.deletion().look(RecordFilter(label="dress"))
    later = make_record(9, label="dress")
    shop.add(later)

    done = shop.deletion().delete(RecordFilter(label="dress"), newest=found.newest, by=SYSTEM)

    assert (3, 3) == (found.records, done.records)
    assert [later.id] == [record.id for record in shop.left() if record.labels[0].label == "dress"]


def test_a_photo_stays_while_another_record_has_it(shop: Shop) -> None:
    """And goes with the last one."""
    image = make_record(1).image
    first, second = make_record(1), make_record(2, image=image, image_key=make_record(1).image_key)
    shop.add(first, second)
    shop.deletion().delete(chosen(first), newest=first.id, by=SYSTEM)
    assert 3 == shop.files(second)
    shop.deletion().delete(chosen(second), newest=second.id, by=SYSTEM)
    assert ([], 0) == (shop.left(), shop.files(second))


def test_records_of_items_of_a_run_stay(shop: Shop) -> None:
    """Their photos belong to the items."""
    own, owned = make_record(1), make_record(2, channel="returns")
    shop.add(own, owned)
    with shop.database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(1, prediction_id=owned.id)])
    found = shop.deletion().look(RecordFilter())
    done = shop.deletion().delete(RecordFilter(), newest=found.newest, by=SYSTEM)
    assert (1, 1, 1, 1) == (found.records, found.owned, done.records, done.owned)
    assert ([owned], 3) == (shop.left(), shop.files(owned))


def test_label_sets_lose_the_samples_of_deleted_records(shop: Shop) -> None:
    """So no later training learns from them."""
    records = [make_record(number) for number in range(2)]
    shop.add(*records)
    with shop.database.transaction() as tx:
        for record in records:
            give(tx, NewFeedback(prediction_id=record.id, verdict=FeedbackValue.RIGHT), now=now())
    built = shop.labels.build("look", by=SYSTEM)
    shop.deletion().delete(chosen(records[0]), newest=records[0].id, by=SYSTEM)
    assert [records[1].id] == [each.sample_id for each in shop.labels.labels(shop.labels.get("look", built.version))]
    shop.deletion().delete(chosen(records[1]), newest=records[1].id, by=SYSTEM)
    with pytest.raises(NothingLabelled):
        shop.labels.build("look", by=SYSTEM)


def test_a_deletion_that_takes_long_says_that_some_are_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling it again goes on."""
    monkeypatch.setattr("shoplens.predictions.deletion.MOST_SELECTED", 2)
    records = [make_record(number) for number in range(5)]
    shop.add(*records)
    done = shop.deletion(longest_s=-1.0).delete(RecordFilter(), newest=records[-1].id, by=SYSTEM)
    assert (0, True, 5) == (done.records, done.left, len(shop.left()))
    done = shop.deletion().delete(RecordFilter(), newest=records[-1].id, by=SYSTEM)
    assert (5, False, []) == (done.records, done.left, shop.left())


def test_a_deletion_that_was_interrupted_is_repeated(shop: Shop) -> None:
    """Its files are gone already, and its rows go now."""
    record = make_record(1)
    shop.add(record)
    for key in copy_keys(record):
        shop.store.delete(key)
    assert 1 == shop.deletion().delete(chosen(record), newest=record.id, by=SYSTEM).records


def test_too_many_records_are_not_named_one_by_one(shop: Shop) -> None:
    """A filter is for those."""
    many = RecordFilter(ids=tuple(make_record(number).id for number in range(501)))
    with pytest.raises(RequestInvalid, match="at most 500"):
        shop.deletion().look(many)


def test_what_is_no_hash_of_a_photo_matches_nothing(shop: Shop) -> None:
    """Photos with equal perceptual hashes are other photos unless their contents are equal."""
    first = make_record(1)
    other = make_record(2)
    assert first.image.phash == other.image.phash
    assert hashlib.sha256(b"1").hexdigest() == first.image.sha256
    shop.add(first, other)
    shop.deletion().delete(chosen(first), newest=first.id, by=SYSTEM)
    assert (0, 3) == (shop.files(first), shop.files(other))
