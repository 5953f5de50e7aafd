"""Photos that came before, and photos that look like them."""

from __future__ import annotations

from dataclasses import replace

from shoplens.db import Database
from shoplens.predictions.entities import NO_PHOTO, PredictionRecord
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.similar import SimilarPhotos
from tests.samples import make_record


def record(number: int, phash: int, *, same_as: int | None = None) -> PredictionRecord:
    """A record of a photo with this hash."""
    made = make_record(number)
    sha256 = made.image.sha256 if same_as is None else make_record(same_as).image.sha256
    return replace(made, image=replace(made.image, phash=f"{phash:016x}", sha256=sha256))


def add(database: Database, *records: PredictionRecord) -> None:
    """Store them."""
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)


def test_the_same_photo_comes_first_then_the_closest(database: Database) -> None:
    """Up to four bits; those further away are other photos."""
    hashes = {1: 0xFF00, 2: 0xFF00, 3: 0xFF0F, 4: 0xFF1F, 5: 0xFF01, 6: 0xFF00, 7: 1 << 63}
    records = {number: record(number, phash, same_as=1 if number == 6 else None) for number, phash in hashes.items()}
    add(database, *records.values())
    similar = SimilarPhotos(database)
    found = [(each.record.id, each.bits, each.same) for each in similar.of(records[1])]
    expected = [(6, 0, True), (2, 0, False), (5, 1, False), (3, 4, False)]
    assert [(records[number].id, bits, same) for number, bits, same in expected] == found
    assert [] == similar.of(records[7])


def test_later_records_are_found_too(database: Database) -> None:
    """Also one whose id is a little older than one that was there already."""
    first, early, late = record(20, 0xABC), record(10, 0xABD), record(30, 0xABC)
    add(database, first)
    similar = SimilarPhotos(database)
    assert [] == similar.of(first)
    add(database, early, late)
    assert {early.id, late.id} == {each.record.id for each in similar.of(first)}


def test_a_text_has_no_similar_photos(database: Database) -> None:
    """Nor is it one."""
    text = replace(make_record(1), image=NO_PHOTO, image_key=None)
    photo = record(2, 0)
    add(database, text, photo)
    assert ([], []) == (SimilarPhotos(database).of(text), SimilarPhotos(database).of(photo))


def test_very_many_copies_of_one_photo_are_cut(database: Database) -> None:
    """The newest are shown."""
    copies = [record(number, 0x77, same_as=1) for number in range(40)]
    add(database, *copies)
    found = SimilarPhotos(database).of(copies[0], limit=5)
    assert [each.id for each in copies[:-6:-1]] == [each.record.id for each in found]


def test_hashes_beyond_the_bound_are_left_out(database: Database) -> None:
    """The same photo is found all the same: the database has an index of it."""
    add(database, *(record(number, number) for number in range(5)), record(9, 0x80, same_as=8))
    bounded = SimilarPhotos(database, most_hashes=2)
    assert [] == [each for each in bounded.of(record(7, 0xFFFF)) if each.same]
    assert [True] == [each.same for each in bounded.of(record(8, 0x80)) if each.bits == 0]
