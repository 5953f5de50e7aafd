"""Strikes, and erasing a customer: complete, with a receipt, also when it was interrupted; and retention."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.batch.entities import ItemFilter, ItemState
from shoplens.batch.entities import References as ItemReferences
from shoplens.batch.item_writer import Dedup, ItemWriter, NewFile, in_memory
from shoplens.batch.repository import ItemRepository
from shoplens.db import Database
from shoplens.db.migrate import all_tables
from shoplens.db.tables import from_row
from shoplens.errors import RequestInvalid, StorageUnavailable
from shoplens.labels.service import LabelService
from shoplens.moderation.consequences.appeals import AppealService
from shoplens.moderation.consequences.customers import CustomerService, digest_of
from shoplens.moderation.consequences.retention import Retention, RetentionService
from shoplens.moderation.entities import Intake, PhotoState, References
from shoplens.moderation.files import PhotoFiles, folder_of
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.moderation.queue.service import PhotoQueue, QueueRules
from shoplens.moderation.reasons import DEFAULT_REASONS
from shoplens.moderation.repository import IntakeRepository, PhotoRepository
from shoplens.storage import Store, open_store
from shoplens.webhooks.entities import Event
from shoplens.webhooks.outbox import emit
from shoplens.webhooks.tables import webhook_deliveries, webhook_events
from tests.unit.moderation.photos import ANNA, BEN, listened, moment, photo_id, photo_of, stored

REFUSE = Choice(state=PhotoState.REFUSED, reason="not_the_product")
KEPT = {"alembic_version", "audit_log", "label_removals", "moderation_erasures", "webhook_endpoints"}
"""Tables that keep a row after an erasure, without the reference."""


class Shop:
    """The services over a database and a folder of files, with a clock that is set by hand."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self.files = PhotoFiles(store)
        self.at = moment(1_000)
        self._ticks = itertools.count()
        self.policy = ModerationPolicy(strikes=3, strike_days=30)
        self.labels = LabelService(database, store, sources=(), clock=self.now)

    def now(self) -> datetime:
        """A millisecond later each time."""
        return self.at + timedelta(milliseconds=next(self._ticks))

    def customers(self, **more: Any) -> CustomerService:
        """The service, over other files where they are given."""
        parts: dict[str, Any] = {"files": self.files, "labels": self.labels} | more
        return CustomerService(
            self.database,
            policies=lambda: {"reviews": self.policy},
            audit=AuditLog(self.database, clock=self.now),
            clock=self.now,
            **parts,
        )

    def retention(self, **days: int | None) -> RetentionService:
        """The service."""
        channels = {"reviews": Retention(**days)}
        return RetentionService(self.database, self.store, self.files, channels=channels, clock=self.now)

    def photo(self, number: int, *, customer: str = "c-1", **more: Any) -> str:
        """A photo with an original and a copy in the store."""
        folder = self.files.save(photo_id(number), "jpeg", b"original")
        self.store.put(f"{folder}/w160.jpg", b"copy")
        stored(self.database, photo_of(number, ref=References(customer=customer), image_key=folder, **more))
        return photo_id(number)

    def left(self) -> set[str]:
        """The numbers of files in the store."""
        return set(self.store.list("moderation"))

    def rows(self) -> dict[str, int]:
        """The tables that are not empty, with their number of rows."""
        tables: Iterator[Table] = iter(all_tables().sorted_tables)
        with self.database.reading() as tx:
            counts = {each.name: tx.scalar(select(func.count()).select_from(each)) or 0 for each in tables}
        return {name: count for name, count in counts.items() if count}


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    """An empty one."""
    (tmp_path / "store").mkdir()
    return Shop(database, open_store(str(tmp_path / "store"), setting="storage_url"))


def test_strikes_are_refusals_that_stand_and_expire(shop: Shop) -> None:
    """Of the policy and of people; from the third on new photos are held, until the oldest that counts expires."""
    review = PhotoReview(shop.database, rules={}, clock=shop.now)
    for number in (1, 2, 3):
        shop.photo(number)
    shop.photo(4, state=PhotoState.REFUSED)
    shop.photo(5, state=PhotoState.REFUSED, customer="c-2")
    review.decide(photo_id(1), REFUSE, by=ANNA, seen=None)
    (rule,) = shop.customers().get("c-1").rules
    assert (2, False) == (len(rule.strikes), rule.holds)
    shop.at += timedelta(days=1)
    review.decide(photo_id(2), REFUSE, by=ANNA, seen=None)
    (rule,) = shop.customers().get("c-1").rules
    assert (3, True) == (len(rule.strikes), rule.holds)
    assert rule.until == moment(4) + timedelta(days=30)
    assert "3 of 3 refused photos within 30 days: new photos are held" in rule.sentence
    shop.at = moment(5) + timedelta(days=30)
    (rule,) = shop.customers().get("c-1").rules
    assert (2, False) == (len(rule.strikes), rule.holds)


def test_a_refusal_that_was_undone_or_overturned_is_no_strike(shop: Shop) -> None:
    """Only what stands counts."""
    review = PhotoReview(shop.database, rules={}, clock=shop.now)
    for number in (1, 2):
        shop.photo(number)
        review.decide(photo_id(number), REFUSE, by=ANNA, seen=None)
    review.undo(photo_id(1), by=ANNA)
    appeals(shop).appeal(photo_id(2), "It is the jacket.")
    review.decide(photo_id(2), Choice(state=PhotoState.PUBLISHED), by=BEN, seen=None)
    (rule,) = shop.customers().get("c-1").rules
    assert () == rule.strikes
    assert {PhotoState.HELD: 1, PhotoState.PUBLISHED: 1} == dict(shop.customers().get("c-1").photos)


def test_without_a_rule_strikes_hold_nothing(shop: Shop) -> None:
    """A policy may count none; an unknown reference has none."""
    shop.policy = ModerationPolicy(strikes=None)
    shop.photo(1, state=PhotoState.REFUSED)
    (rule,) = shop.customers().get("c-1").rules
    assert (False, "The policy counts no strikes.") == (rule.holds, rule.sentence)
    assert 0 == shop.customers().get("nobody").total
    with pytest.raises(RequestInvalid, match="printable"):
        shop.customers().get("x\x00")


def busy_customer(shop: Shop) -> None:
    """c-1 with photos in all states, an appeal, a report, a skip, events; and c-2 with one photo."""
    listened(shop.database, "shop")
    review = PhotoReview(shop.database, rules={"reviews": QueueRules(second_opinion_share=1.0)}, clock=shop.now)
    queue = PhotoQueue(shop.database, rules={}, clock=shop.now)
    for number in range(1, 61):
        shop.photo(number)
    for number in range(1, 20):
        review.decide(photo_id(number), REFUSE, by=ANNA, seen=None)
    review.decide(photo_id(20), Choice(state=PhotoState.PUBLISHED), by=ANNA, seen=None)
    appeals(shop).appeal(photo_id(1), "It is the jacket.")
    queue.report(photo_id(20), reason="ugly")
    queue.skip(photo_id(30), by=ANNA)
    intake = Intake(
        id=photo_id(1), created_at=moment(1), channel="reviews", caller="key", idempotency_key="k", body_digest="0" * 64
    )
    with shop.database.transaction() as tx:
        IntakeRepository(tx).add(intake)
        emit(tx, "photo.held", {"id": photo_id(1), "customer": "c-1"}, now=shop.now())
    shop.photo(100, customer="c-2", state=PhotoState.REFUSED)


def test_erasing_a_customer_leaves_no_row_and_no_file_and_gives_a_receipt(shop: Shop) -> None:
    """Those of others stay."""
    busy_customer(shop)
    alone = {name: count for name, count in shop.rows().items() if name in KEPT}
    receipt = shop.customers().erase("c-1", by=ANNA)
    assert (60, 120) == (receipt.photos, receipt.files)
    assert receipt.hashes > 19
    assert receipt.events > 60
    assert receipt.finished_at is not None
    assert {f"{folder_of(photo_id(100))}/{name}.jpg" for name in ("original", "w160")} == shop.left()
    assert {
        "moderation_photos": 1, "moderation_decisions": 1, "moderation_hashes": 1, "webhook_events": 2,
        "webhook_deliveries": 2, "moderation_erasures": 1, "audit_log": 1, "label_removals": 1, **alone,
    } == shop.rows()  # fmt: skip
    assert (digest_of("c-1"), "anna") == (receipt.customer_digest, receipt.by)
    with shop.database.reading() as tx:
        everything = [str(row) for each in all_tables().sorted_tables for row in tx.execute(select(each))]
    assert [] == [row for row in everything if "c-1" in row]
    assert receipt == shop.customers().get("c-1").erasures[0]


def test_other_systems_hear_of_each_erased_photo_that_was_public(shop: Shop) -> None:
    """Also of one that was refused since; the event names the photo, and nothing of its customer."""
    listened(shop.database, "shop")
    review = PhotoReview(shop.database, rules={}, clock=shop.now)
    shop.photo(1)
    shown = {shop.photo(2, state=PhotoState.PUBLISHED), shop.photo(3, state=PhotoState.PUBLISHED)}
    review.decide(photo_id(3), REFUSE, by=ANNA, seen=0)
    shop.customers().erase("c-1", by=ANNA)
    with shop.database.reading() as tx:
        events = [from_row(Event, row) for row in tx.execute(select(webhook_events))]
    assert {("photo.erased", photo_id) for photo_id in shown} == {(each.type, each.data["id"]) for each in events}
    assert {("id", "channel", "media")} == {tuple(each.data) for each in events}
    assert f"/media/{photo_id(2)}" in events[0].data["media"] + events[1].data["media"]


def test_an_erasure_that_is_repeated_finds_nothing(shop: Shop) -> None:
    """And says so with a receipt of its own."""
    shop.photo(1)
    assert 1 == shop.customers().erase("c-1", by=SYSTEM).photos
    again = shop.customers().erase("c-1", by=SYSTEM)
    assert (0, 0, 0, 0) == (again.photos, again.files, again.hashes, again.events)
    assert 2 == len(shop.customers().get("c-1").erasures)


def failing_after(files: PhotoFiles, most: int) -> Callable[[str], int]:
    """`files.delete`, until the store fails after so many folders."""
    calls = itertools.count()

    def delete(folder: str) -> int:
        if next(calls) >= most:
            raise StorageUnavailable("The store is away.")
        return files.delete(folder)

    return delete


@pytest.mark.parametrize("most", [0, 7, 55])
def test_an_erasure_that_was_interrupted_goes_on_with_the_same_receipt(shop: Shop, most: int) -> None:
    """Files go first and rows last, so that nothing is forgotten."""
    busy_customer(shop)
    broken = PhotoFiles(shop.store)
    broken.delete = failing_after(shop.files, most)  # type: ignore[method-assign, assignment]
    with pytest.raises(StorageUnavailable):
        shop.customers(files=broken).erase("c-1", by=SYSTEM)
    (begun,) = shop.customers().get("c-1").erasures
    assert begun.finished_at is None
    done = shop.customers().erase("c-1", by=SYSTEM)
    assert (begun.id, 60) == (done.id, done.photos)
    assert 0 == shop.customers().get("c-1").total
    assert 2 == len(shop.left())


def appeals(shop: Shop) -> AppealService:
    """The service."""
    return AppealService(shop.database, reasons=lambda _: DEFAULT_REASONS, kept_days={}, clock=shop.now)


def test_files_of_refused_photos_go_after_their_days_and_hash_and_statement_stay(shop: Shop) -> None:
    """A photo whose appeal is open is kept until it is decided."""
    shop.photo(1, state=PhotoState.REFUSED)
    shop.photo(2, state=PhotoState.REFUSED)
    shop.photo(3, state=PhotoState.PUBLISHED)
    shop.photo(4)
    appeals(shop).appeal(photo_id(2), "It is the jacket.")
    shop.at = moment(0) + timedelta(days=30)
    assert not shop.retention().run().photos
    due = {each.what: each for each in shop.retention().due()}
    assert (None, None) == (due["held"].days, due["published"].days)
    refused = due["refused"]
    assert (30, 0, True) == (refused.days, refused.due, refused.next_at is not None and refused.next_at >= shop.at)
    shop.at = moment(60) + timedelta(days=30)
    assert ["refused"] == [each.what for each in shop.retention().due() if (each.due, each.waiting) == (1, 1)]
    deleted = shop.retention().run()
    assert (1, 2) == (deleted.photos, deleted.files)
    assert 6 == len(shop.left())
    with shop.database.reading() as tx:
        photo = PhotoRepository(tx).get(photo_id(1))
    assert (None, PhotoState.REFUSED) == (photo.image_key, photo.state)
    assert photo.files_deleted_at is not None
    assert photo_id(1) == appeals(shop).statement(photo_id(1)).photo_id
    assert 2 == shop.rows()["moderation_hashes"]
    assert not shop.retention().run().any


def test_other_states_are_kept_unless_the_settings_say_otherwise(shop: Shop) -> None:
    """A held photo without files waits for nobody."""
    shop.photo(1)
    shop.photo(2, state=PhotoState.PUBLISHED)
    shop.at = moment(0) + timedelta(days=400)
    assert 0 == shop.retention().run().photos
    assert 2 == shop.retention(held_days=365, published_days=365).run().photos
    with shop.database.reading() as tx:
        assert None is PhotoRepository(tx).get(photo_id(1)).queue
    assert set() == shop.left()


def test_old_requests_and_events_go_and_events_that_wait_stay(shop: Shop) -> None:
    """An event is kept until it was sent, even if the receiver is away for a month."""
    listened(shop.database, "shop")
    intake = Intake(
        id=photo_id(1), created_at=moment(1), channel="reviews", caller="key", idempotency_key="k", body_digest="0" * 64
    )
    with shop.database.transaction() as tx:
        IntakeRepository(tx).add(intake)
        for number in (1, 2):
            emit(tx, "photo.held", {"id": photo_id(number)}, now=moment(number))
        first = select(func.min(webhook_deliveries.c.id)).scalar_subquery()
        sent = webhook_deliveries.update().where(webhook_deliveries.c.id == first)
        tx.execute(sent.values(state="delivered"))
    shop.at = moment(60) + timedelta(days=30)
    deleted = shop.retention().run()
    assert (1, 1) == (deleted.requests, deleted.events)
    with shop.database.reading() as tx:
        assert 1 == len(tx.execute(select(webhook_events)).all())
        assert ["pending"] == tx.scalars(select(webhook_deliveries.c.state)).all()


def test_files_of_an_intake_that_died_go_after_a_day(shop: Shop) -> None:
    """When they were seen twice: a row may follow its files. Files with a row stay, and so do others of the store."""
    shop.files.save(photo_id(1), "jpeg", b"never committed")
    shop.files.save(photo_id(3), "jpeg", b"committed a little later")
    shop.photo(2)
    shop.store.put("images/ab/cd/abcd.jpg", b"of another feature")
    task = shop.retention()
    assert 0 == task.run().orphans
    shop.at = moment(60) + timedelta(days=1)
    assert 0 == task.run().orphans
    stored(shop.database, photo_of(3, image_key=folder_of(photo_id(3))))
    shop.at += timedelta(hours=1)
    assert 1 == task.run().orphans
    kept = {f"{folder_of(photo_id(2))}/{name}.jpg" for name in ("original", "w160")}
    assert kept | {f"{folder_of(photo_id(3))}/original.jpg"} == shop.left()
    assert shop.store.exists("images/ab/cd/abcd.jpg")


def test_one_process_at_a_time_deletes_once_an_hour(shop: Shop) -> None:
    """The lease of one that died ends by itself."""
    one, other = shop.retention(), shop.retention()
    assert one.run_if_due() is not None
    assert other.run_if_due() is None
    shop.at += timedelta(hours=1, seconds=1)
    one.run = other.run_if_due  # type: ignore[assignment, method-assign]  # the other one comes meanwhile
    assert one.run_if_due() is None
    shop.at += timedelta(minutes=59)
    assert other.run_if_due() is None
    shop.at += timedelta(minutes=2)
    assert other.run_if_due() is not None


def test_an_imported_backlog_is_erased_too(shop: Shop, tmp_path: Path) -> None:
    """Photos that no run has judged yet go with their files; items of others stay, and the receipt counts them."""
    names = {"a.jpg": "c-1", "b.jpg": "c-1", "again.jpg": "c-1", "c.jpg": "c-2"}
    writer = ItemWriter(shop.database, shop.store, channel="reviews", clock=shop.now, max_image_bytes=1_000)
    for name, customer in names.items():
        data = b"\xff\xd8\xff\xe0" + (b"a.jpg" if name == "again.jpg" else name.encode())
        file = NewFile(
            name=name,
            byte_count=len(data),
            changed_ms=0,
            chunks=in_memory(data),
            references=ItemReferences(customer=customer, order="o-1", review="r-1"),
        )
        writer.commit([writer.prepare(file, Dedup())])
    receipt = shop.customers().erase("c-1", by=ANNA)
    assert (2, 2) == (receipt.photos, receipt.files)
    with shop.database.reading() as tx:
        items = {item.source_name: item for item in ItemRepository(tx).page(ItemFilter(), limit=10)}
    assert {"c.jpg": "c-2"} == {name: item.references.customer for name, item in items.items() if item.key}
    assert {"a.jpg", "b.jpg"} == {name for name, item in items.items() if item.state is ItemState.DISMISSED}
    assert {None, "c-2"} == {item.references.customer for item in items.values()}
    assert 1 == len(list(shop.store.list("reviews")))
