"""Rows are compared with the files of the store: what is missing on either side is counted, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.accounts.entities import SYSTEM
from shoplens.batch.repository import ItemRepository
from shoplens.db import Database
from shoplens.labels.service import LabelService
from shoplens.moderation.consequences.label_source import DecisionLabels
from shoplens.moderation.entities import PhotoState
from shoplens.platform.audit import audit_store, in_words
from shoplens.predictions.entities import Keep
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store, image_key, open_store
from tests.samples import make_item, make_record
from tests.unit.moderation.photos import START, photo_of, stored


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A directory."""
    return open_store(str(tmp_path / "blobs"))


@pytest.fixture
def kept(database: Database, store: Store) -> list[str]:
    """The keys of six photos with their rows: records, items, a thumbnail and what the store writes itself."""
    records = []
    for number in range(3):
        record = make_record(number)
        key = image_key(record.image.sha256, "jpg")
        store.put(key, b"photo")
        records.append(replace(record, keep=Keep.ORIGINAL, image_key=key))
    store.put(image_key(records[0].image.sha256, "thumbnail.jpg"), b"small")
    store.check()
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
        items = [make_item(number) for number in range(3)]
        ItemRepository(tx).add_many(items)
    for item in items:
        store.put(item.key or "", b"photo")
    return [record.image_key or "" for record in records] + [item.key or "" for item in items]


def test_a_store_in_order_has_nothing_missing(database: Database, store: Store, kept: list[str]) -> None:
    """A thumbnail belongs to the photo that it was made of."""
    audit = audit_store(database, store)
    assert (6, (), (), True) == (audit.rows, audit.rows_without_file, audit.files_without_row, audit.is_complete)
    text, is_fault = in_words(audit)
    assert not is_fault
    assert "6 rows and 8 files were compared: every row has its photo, every file its row" == text


def test_both_kinds_of_gap_are_counted_with_what_to_do(database: Database, store: Store, kept: list[str]) -> None:
    """With the first of them as examples."""
    store.delete(kept[0])
    store.delete(kept[4])
    store.put("returns/incoming/stranger.jpg", b"photo")
    audit = audit_store(database, store)
    assert ({kept[0], kept[4]}, ("returns/incoming/stranger.jpg",)) == (
        set(audit.rows_without_file),
        audit.files_without_row,
    )
    text, is_fault = in_words(audit)
    assert is_fault
    assert "2 photos of rows are not in the store" in text
    assert "copy them from the folder photos of a backup" in text
    assert "1 file of the store is named by no row (returns/incoming/stranger.jpg)" in text


def test_a_large_store_is_looked_at_in_part_and_that_is_said(database: Database, store: Store, kept: list[str]) -> None:
    """Of files without rows nothing is said then: their rows may be among those not looked at."""
    store.delete(kept[5])
    audit = audit_store(database, store, limit=4)
    assert (4, 4, False, None) == (audit.rows, audit.files, audit.is_complete, audit.files_without_row)
    assert (kept[5],) == audit.rows_without_file
    text, _ = in_words(audit)
    assert "1 photo of rows is not in the store" in text
    assert "the newest 4 rows and 4 files were compared; there are more" in text


def test_a_photo_that_is_being_moved_is_at_one_of_two_places(database: Database, store: Store) -> None:
    """Its row names both."""
    item = make_item(9, target_key="returns/processed/shirt/9.jpg")
    with database.transaction() as tx:
        ItemRepository(tx).add_many([item])
    store.put("returns/processed/shirt/9.jpg", b"photo")
    audit = audit_store(database, store)
    assert ((), ()) == (audit.rows_without_file, audit.files_without_row)


def test_photos_of_moderation_have_a_folder_each(database: Database, store: Store) -> None:
    """With the copies that were made for pages; a folder without a row is left of a process that died."""
    photos = [photo_of(number) for number in range(3)]
    stored(database, *photos[:2], replace(photos[2], image_key=None))
    store.put(f"{photos[0].image_key}/original.jpg", b"photo")
    store.put(f"{photos[0].image_key}/w320.webp", b"copy")
    store.put(f"{photos[2].image_key}/original.jpg", b"left")
    audit = audit_store(database, store)
    assert (f"{photos[1].image_key}/original.jpg",) == audit.rows_without_file
    assert (f"{photos[2].image_key}/original.jpg",) == audit.files_without_row


def test_a_label_set_is_known(database: Database, store: Store, kept: list[str]) -> None:
    """Its file is named by its row."""
    stored(database, photo_of(1, state=PhotoState.PUBLISHED, decided_by="person-anna", image_key=None))
    decisions = DecisionLabels(database, reasons=lambda _: (), accepted=lambda _: "safe")
    LabelService(database, store, sources=(decisions,), clock=lambda: START).build("reviews", by=SYSTEM)
    assert () == audit_store(database, store).files_without_row
