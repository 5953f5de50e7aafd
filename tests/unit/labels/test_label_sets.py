"""Label sets: the last word of people, frozen as versions that are the same for the same labels."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database
from shoplens.errors import BlobNotFound, DatabaseUnavailable
from shoplens.labels import manifest
from shoplens.labels.entities import Label, LabelSet
from shoplens.labels.errors import LabelSetNotFound, NothingLabelled
from shoplens.labels.manifest import COLUMNS
from shoplens.labels.service import Forgotten, LabelService, feedback_labels
from shoplens.moderation.consequences.customers import CustomerService
from shoplens.moderation.consequences.label_source import DecisionLabels
from shoplens.moderation.entities import PhotoState, References
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.moderation.reasons import DEFAULT_REASONS
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.feedback import NewFeedback, give, withdraw
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store, open_store
from tests.samples import make_record
from tests.unit.moderation.photos import ANNA, BEN, moment, photo_id, photo_of, stored

ACCEPT = Choice(state=PhotoState.PUBLISHED)


def refuse(reason: str) -> Choice:
    """For one of the shop's reasons."""
    return Choice(state=PhotoState.REFUSED, reason=reason)


class Shop:
    """The services over a database and a folder of files."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self._seconds = itertools.count(1_000.0)
        self.review = PhotoReview(database, rules={}, clock=self.now)
        decisions = DecisionLabels(database, reasons=lambda _: DEFAULT_REASONS, accepted=lambda _: "safe")
        self.sources = (decisions, feedback_labels(database))
        self.labels = LabelService(database, store, sources=self.sources, clock=self.now)

    def now(self) -> datetime:
        """A second later each time."""
        return moment(next(self._seconds))

    def decided(self, number: int, choice: Choice) -> None:
        """A new photo, and what Anna says of it."""
        stored(self.database, photo_of(number))
        self.review.decide(photo_id(number), choice, by=ANNA, seen=None)

    def customers(self, labels: LabelService | None = None) -> CustomerService:
        """What erases them."""
        return CustomerService(
            self.database,
            PhotoFiles(self.store),
            policies=dict,
            labels=labels or self.labels,
            audit=AuditLog(self.database, clock=self.now),
            clock=self.now,
        )

    def rows(self, wanted: LabelSet) -> list[dict[str, str]]:
        """The CSV of a set."""
        return list(csv.DictReader(io.StringIO("".join(self.labels.csv(wanted)))))

    def named(self, wanted: LabelSet) -> dict[str, str]:
        """The labels of a set by the numbers of photos."""
        return {row["sample_id"]: row["label"] for row in self.rows(wanted)}


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    """An empty one."""
    (tmp_path / "store").mkdir()
    return Shop(database, open_store(str(tmp_path / "store"), setting="storage_url"))


def test_decisions_of_people_are_labels(shop: Shop) -> None:
    """Of the reason where it teaches something; what a policy decided and what waits is left out."""
    shop.decided(1, ACCEPT)
    shop.decided(2, refuse("nudity"))
    shop.decided(3, refuse("copyright"))
    stored(shop.database, photo_of(4), photo_of(5, state=PhotoState.REFUSED), photo_of(6, state=PhotoState.PUBLISHED))
    built = shop.labels.build("reviews", by=BEN)
    assert (1, 2, "ben") == (built.version, built.labels, built.created_by)
    assert {photo_id(1): "safe", photo_id(2): "nsfw"} == shop.named(built)
    row = shop.rows(built)[1]
    assert list(COLUMNS) == list(row)
    assert ("moderation", "reviews", ANNA.id, "opennsfw@1", f"{2:064x}") == (
        row["source"],
        row["channel"],
        row["given_by"],
        row["model"],
        row["image_sha256"],
    )
    assert row["image_key"].endswith(f"{photo_id(2)}/original.jpg")


def test_a_later_word_replaces_an_earlier_one_and_what_was_undone_is_left_out(shop: Shop) -> None:
    """Each in a version of its own; earlier versions stay as they were."""
    shop.decided(1, refuse("nudity"))
    shop.decided(2, ACCEPT)
    first = shop.labels.build("reviews", by=SYSTEM)
    shop.review.undo(photo_id(2), by=ANNA)
    shop.review.decide(photo_id(1), ACCEPT, by=BEN, seen=1)
    second = shop.labels.build("reviews", by=SYSTEM)
    assert (1, 2) == (first.version, second.version)
    assert {photo_id(1): "nsfw", photo_id(2): "safe"} == shop.named(first)
    assert {photo_id(1): "safe"} == shop.named(second)
    assert first.digest != second.digest


def test_the_same_labels_are_the_same_set(shop: Shop) -> None:
    """Built again, nothing is added; and built from the same rows elsewhere, the digest is the same."""
    shop.decided(1, ACCEPT)
    first = shop.labels.build("reviews", by=SYSTEM)
    assert first == shop.labels.build("reviews", by=BEN)
    assert [first] == shop.labels.all("reviews") == shop.labels.all()
    shop.decided(2, ACCEPT)
    second = shop.labels.build("reviews", by=SYSTEM)
    shop.review.undo(photo_id(2), by=ANNA)
    third = shop.labels.build("reviews", by=SYSTEM)
    assert first.digest == third.digest != second.digest
    assert 3 == third.version


def test_the_file_of_a_set_is_parquet_with_typed_columns(shop: Shop) -> None:
    """As pandas and DuckDB read it."""
    shop.decided(1, ACCEPT)
    built = shop.labels.build("reviews", by=SYSTEM)
    table = pq.read_table(io.BytesIO(b"".join(shop.labels.parquet(built))))
    assert list(COLUMNS) == table.column_names
    (row,) = table.to_pylist()
    assert (photo_id(1), "safe") == (row["sample_id"], row["label"])
    assert row["given_at"].tzinfo is not None
    assert row["given_at"].isoformat(timespec="microseconds") == shop.rows(built)[0]["given_at"]


def test_feedback_on_predictions_is_labels(shop: Shop) -> None:
    """The last valid word, where it says what the sample is."""
    with shop.database.transaction() as tx:
        records = [make_record(number) for number in range(1, 8)]
        PredictionRepository(tx).add_many(records)
        ids = [record.id for record in records]
        right, wrong = FeedbackValue.RIGHT, FeedbackValue.WRONG
        for at, (index, verdict, label) in enumerate(
            [
                (0, right, None),
                (1, wrong, "hat"),
                (2, wrong, None),
                (3, FeedbackValue.NONE, None),
                (4, right, None),
                (4, wrong, "shoe"),
                (5, right, None),
            ]
        ):
            given = NewFeedback(prediction_id=ids[index], verdict=verdict, label=label)
            give(tx, given, now=moment(at))
        withdraw(tx, ids[5], now=moment(60))
    built = shop.labels.build("look", by=SYSTEM)
    top = records[0].labels[0].label
    assert {ids[0]: top, ids[1]: "hat", ids[4]: "shoe"} == shop.named(built)
    assert {"feedback"} == {row["source"] for row in shop.rows(built)}
    assert {""} == {row["given_by"] for row in shop.rows(built)}


def test_without_labels_there_is_no_set(shop: Shop) -> None:
    """And a version that was never built is not found."""
    with pytest.raises(NothingLabelled):
        shop.labels.build("reviews", by=SYSTEM)
    with pytest.raises(LabelSetNotFound, match="no label set yet"):
        shop.labels.get("reviews")
    shop.decided(1, ACCEPT)
    assert 1 == shop.labels.build("reviews", by=SYSTEM).version == shop.labels.get("reviews").version
    with pytest.raises(LabelSetNotFound, match="no label set 2"):
        shop.labels.get("reviews", 2)


def test_an_erased_customer_is_taken_out_of_every_set(shop: Shop) -> None:
    """The sets are written again and say so; the old files are gone. Sets without the customer stay the same."""
    shop.decided(1, ACCEPT)
    first = shop.labels.build("reviews", by=SYSTEM)
    stored(shop.database, photo_of(2, ref=References(customer="c-2")))
    shop.review.decide(photo_id(2), ACCEPT, by=ANNA, seen=None)
    second = shop.labels.build("reviews", by=SYSTEM)
    assert 1 == shop.customers().erase("c-2", by=SYSTEM).label_sets
    kept, changed = shop.labels.get("reviews", 1), shop.labels.get("reviews", 2)
    assert first == kept
    assert (1, first.digest, True) == (changed.labels, changed.digest, changed.changed_at is not None)
    assert {photo_id(1): "safe"} == shop.named(changed)
    with pytest.raises(BlobNotFound):
        list(shop.labels.parquet(second))
    assert {kept.key, changed.key} == set(shop.store.list("labels"))


def of_two_customers(shop: Shop) -> None:
    """Photo 1 of one customer, photo 2 of c-2; both are labelled."""
    shop.decided(1, ACCEPT)
    stored(shop.database, photo_of(2, ref=References(customer="c-2")))
    shop.review.decide(photo_id(2), ACCEPT, by=ANNA, seen=None)


def test_a_customer_who_is_erased_while_a_set_is_built_is_not_in_it(shop: Shop) -> None:
    """The labels were read before; so they are read once more."""
    of_two_customers(shop)
    erased: list[int] = []

    def erasing(channel: str) -> Iterator[Label]:
        if not erased:
            erased.append(shop.customers().erase("c-2", by=SYSTEM).photos)
        yield from ()

    building = LabelService(shop.database, shop.store, sources=(*shop.sources, erasing), clock=shop.now)
    built = building.build("reviews", by=SYSTEM)
    assert ([1], {photo_id(1): "safe"}) == (erased, shop.named(built))
    assert {built.key} == set(shop.store.list("labels"))


class BuiltMeanwhile(LabelService):
    """Another process builds a set after the sets were searched, and before the photos are removed."""

    def forget(self, sample_ids: Collection[str]) -> Forgotten:
        """As LabelService."""
        done = super().forget(sample_ids)
        if not done.sets:
            self.build("reviews", by=SYSTEM)
        return done


def test_a_set_that_is_added_during_an_erasure_is_searched_too(shop: Shop) -> None:
    """Whichever of both commits first."""
    of_two_customers(shop)
    labels = BuiltMeanwhile(shop.database, shop.store, sources=shop.sources, clock=shop.now)
    receipt = shop.customers(labels).erase("c-2", by=SYSTEM)
    assert (1, 1) == (receipt.photos, receipt.label_sets)
    sets = shop.labels.all("reviews")
    assert sets
    assert all(photo_id(2) not in shop.named(each) for each in sets)


def test_files_that_an_interrupted_erasure_left_are_deleted_by_the_next(shop: Shop) -> None:
    """A file of a version that is being built is not touched."""
    shop.decided(1, ACCEPT)
    built = shop.labels.build("reviews", by=SYSTEM)
    shop.store.put("labels/reviews/000001-0123456789abcdef.parquet", b"left behind")
    shop.store.put("labels/reviews/000002-0123456789abcdef.parquet", b"being built")
    assert 0 == shop.labels.forget({"nothing"}).changed
    assert {built.key, "labels/reviews/000002-0123456789abcdef.parquet"} == set(shop.store.list("labels"))


def test_a_database_that_fails_while_a_set_is_written_is_reported_as_itself() -> None:
    """Not as a fault of the Parquet writer, so that the answer says what to do."""

    def failing() -> Iterator[Label]:
        yield from ()
        raise DatabaseUnavailable("The database does not answer.")

    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        manifest.write(failing(), io.BytesIO())
