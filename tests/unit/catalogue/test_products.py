"""Products on both databases: created, replaced, found by their words, paged through and deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.errors import NothingToCategorise, ProductNotFound
from shoplens.catalogue.products import NewProduct, ProductService, SaveOutcome
from shoplens.catalogue.repository import ProductFilter, ProductOrder
from shoplens.db import Database
from shoplens.errors import ImageNotKept, RequestInvalid, SampleError
from shoplens.predictions.image_store import ImageSize
from tests.unit.catalogue.products import (
    ANNA,
    CHANNEL,
    add,
    decision_service,
    jpeg_of,
    product_service,
    suggested,
)


@pytest.fixture
def products(database: Database, tmp_path: Path) -> ProductService:
    """Products of an empty catalogue."""
    return product_service(database, tmp_path / "blobs")


def found(products: ProductService, **wanted: object) -> list[str]:
    """The references of what matches, in order."""
    page = products.page(ProductFilter(channel=CHANNEL, **wanted))  # type: ignore[arg-type]
    return [each.reference for each in page.products]


def stored_files(tmp_path: Path) -> list[str]:
    """The photos in the store."""
    return sorted(each.name for each in (tmp_path / "blobs").rglob("*") if each.is_file())


def test_a_product_is_created_and_then_replaced_under_its_reference(products: ProductService) -> None:
    """Its texts are cleaned, and its id stays."""
    first = products.save(CHANNEL, NewProduct(reference=" A-1 ", designation="<b>Red</b>  shirt\u202e"))
    assert (SaveOutcome.ADDED, "A-1", "Red shirt") == (
        first.outcome, first.product.reference, first.product.designation,
    )  # fmt: skip
    second = products.save(CHANNEL, NewProduct(reference="A-1", designation="Blue shirt"))
    assert (SaveOutcome.CHANGED, first.product.id) == (second.outcome, second.product.id)
    assert "Blue shirt" == products.get(CHANNEL, "A-1")[0].designation
    assert second.product == products.get(CHANNEL, second.product.id)[0]


def test_an_equal_product_stays_as_it_is(products: ProductService) -> None:
    """So an import can be repeated."""
    photo = products.photo("front.jpg", jpeg_of(40, 30))
    new = NewProduct(reference="A-1", designation="Shirt", photos=(photo,))
    first = products.save(CHANNEL, new)
    again = products.save(CHANNEL, new)
    assert (SaveOutcome.UNCHANGED, first.product, first.photos) == (again.outcome, again.product, again.photos)


def test_photos_are_replaced_as_sent_and_kept_where_none_are_named(products: ProductService, tmp_path: Path) -> None:
    """What is replaced leaves no file."""
    red, blue = (products.photo(name, jpeg_of(40, 30, seed)) for name, seed in (("red", 1), ("blue", 2)))
    products.save(CHANNEL, NewProduct(reference="A-1", designation="Shirt", photos=(red, blue)))
    assert 2 == len(stored_files(tmp_path))
    kept = products.save(CHANNEL, NewProduct(reference="A-1", designation="Other shirt"))
    assert ["red", "blue"] == [each.name for each in kept.photos]
    products.save(CHANNEL, NewProduct(reference="A-1", designation="Other shirt", photos=(blue,)))
    _, photos = products.get(CHANNEL, "A-1")
    assert [("blue", 0)] == [(each.name, each.position) for each in photos]
    assert 1 == len(stored_files(tmp_path))
    assert blue.data == products.open_photo(CHANNEL, "A-1", 0, ImageSize.ORIGINAL).data
    with pytest.raises(ImageNotKept, match="has 1 photos"):
        products.open_photo(CHANNEL, "A-1", 1, ImageSize.VIEW)


def test_a_deleted_product_leaves_no_file_and_another_one_keeps_its_own(
    products: ProductService, tmp_path: Path
) -> None:
    """Also where both had the same photo."""
    same = products.photo("same", jpeg_of(40, 30))
    for reference in ("A-1", "A-2"):
        products.save(CHANNEL, NewProduct(reference=reference, photos=(same,)))
    products.open_photo(CHANNEL, "A-1", 0, ImageSize.THUMBNAIL)
    assert 3 == len(stored_files(tmp_path))
    products.delete(CHANNEL, "A-1")
    assert 1 == len(stored_files(tmp_path))
    assert same.data == products.open_photo(CHANNEL, "A-2", 0, ImageSize.ORIGINAL).data
    with pytest.raises(ProductNotFound):
        products.get(CHANNEL, "A-1")


def test_a_product_of_nothing_is_refused_with_what_is_needed(products: ProductService) -> None:
    """Markup and marks alone are nothing."""
    with pytest.raises(NothingToCategorise, match="designation, a description or a photo"):
        products.save(CHANNEL, NewProduct(reference="A-1", designation=" <br/> \u200e"))
    with pytest.raises(RequestInvalid, match="reference"):
        products.save(CHANNEL, NewProduct(reference="a\nb", designation="Shirt"))
    with pytest.raises(SampleError):
        products.photo("page.jpg", b"<html>")


def test_a_product_is_found_by_beginnings_of_its_words_without_case_and_accents(products: ProductService) -> None:
    """In designation, description and reference."""
    add(products, "A-1", "Tee-shirt rouge", "Très élégant, pour l'été")
    add(products, "A-2", "Pantalon bleu")
    for query in ("ROUGE", "tee-sh", "élégant", "A-1 rouge", "été", "elegant shirt"):
        assert ["A-1"] == found(products, text=query), query


def test_words_in_the_middle_are_not_found_and_signs_alone_find_everything(products: ProductService) -> None:
    """A search for nothing is no filter."""
    add(products, "A-1", "Tee-shirt rouge")
    assert [] == found(products, text="ouge")
    assert ["A-1"] == found(products, text=' "*( ')


def test_what_a_user_writes_is_never_syntax(products: ProductService) -> None:
    """Neither SQLite's nor PostgreSQL's."""
    add(products, "A-1", "Tee-shirt rouge")
    assert ["A-1"] == found(products, text="rouge\" '\x00*:|&!()")
    for query in ("NEAR(a b)", "search:blue", "rouge OR blue", "-blue", "' | rouge blue", "blue" * 2_000):
        assert [] == found(products, text=query)


def test_scripts_without_blanks_are_found_by_their_characters(products: ProductService) -> None:
    """As Chinese and Japanese."""
    add(products, "A-1", "女士红色连衣裙")
    add(products, "A-2", "ワンピース 赤")
    assert (["A-1"], ["A-2"]) == (found(products, text="连衣裙"), found(products, text="ピース"))


def test_the_index_follows_every_change(products: ProductService) -> None:
    """Through the triggers of SQLite."""
    add(products, "A-1", "Red shirt")
    add(products, "A-1", "Blue trousers")
    assert ([], ["A-1"]) == (found(products, text="shirt"), found(products, text="trousers"))
    products.delete(CHANNEL, "A-1")
    assert [] == found(products, text="trousers")


def test_filters_find_what_they_say(products: ProductService, database: Database) -> None:
    """One alone, and several together."""
    sure = suggested(database, add(products, "A-1", "Apple"), "apple", 0.9)
    suggested(database, add(products, "A-2", "Pear"), "pear", 0.3)
    add(products, "A-3", "Shirt")
    decision_service(database).decide(CHANNEL, sure.id, by=ANNA, category="shirt")
    assert ["A-2"] == found(products, categories=products.below(CHANNEL, "food"))
    assert ["A-1"] == found(products, categories=frozenset({"shirt"}))
    assert ["A-2"] == found(products, needs_review=True)
    assert ["A-3"] == found(products, state=ProductState.NEW)
    assert ["A-2"] == found(products, min_score=0.3, max_score=0.9)
    assert ["A-1"] == found(products, min_score=0.9)
    assert ["A-1", "A-2"] == found(products, kind="text", model="tiny@1")
    assert [] == found(products, text="apple", state=ProductState.NEW)


@pytest.mark.parametrize(("order", "references"), [
    (ProductOrder.ID, ["A-0", "A-1", "A-2", "A-3", "A-4"]),
    (ProductOrder.SCORE, ["A-4", "A-1", "A-3", "A-2"]),
])  # fmt: skip
def test_pages_follow_each_other_in_their_order(
    products: ProductService, database: Database, order: ProductOrder, references: list[str]
) -> None:
    """Nothing twice, nothing left out, also with equal scores."""
    scores = {"A-1": 0.25, "A-2": 0.9, "A-3": 0.25, "A-4": 1 / 7}
    for number in range(5):
        product = add(products, f"A-{number}", "Apple")
        if product.reference in scores:
            suggested(database, product, "apple", scores[product.reference])
    seen: list[str] = []
    after = None
    while True:
        page = products.page(ProductFilter(channel=CHANNEL), order=order, limit=2, after=after)
        seen += [each.reference for each in page.products]
        after = page.next
        if after is None:
            break
    assert references == seen


def test_a_cursor_of_another_order_is_refused(products: ProductService) -> None:
    """With a sentence."""
    with pytest.raises(RequestInvalid, match="cursor"):
        products.page(ProductFilter(channel=CHANNEL), order=ProductOrder.SCORE, after="nothing")


def test_other_texts_need_another_suggestion_unless_somebody_decided(
    products: ProductService, database: Database
) -> None:
    """A suggestion is for what the model saw."""
    suggested(database, add(products, "A-1", "Apple"), "apple", 0.9)
    decided = suggested(database, add(products, "A-2", "Apple"), "apple", 0.9)
    decision_service(database).decide(CHANNEL, decided.id, by=ANNA)
    for reference in ("A-1", "A-2"):
        add(products, reference, "Green apple")
    first, second = (products.get(CHANNEL, each)[0] for each in ("A-1", "A-2"))
    assert (ProductState.NEW, None, ()) == (first.state, first.score, first.suggestions)
    assert (ProductState.ACCEPTED, "apple") == (second.state, second.category)


def test_the_shops_own_category_counts_until_a_person_says_otherwise(
    products: ProductService, database: Database
) -> None:
    """Importing the same file again takes nothing back."""
    new = NewProduct(reference="A-1", designation="Apple", category="apple")
    given = products.save_many(CHANNEL, [new], by="import")[0].product
    assert (ProductState.ACCEPTED, "apple", "import") == (given.state, given.category, given.decided_by)
    decision_service(database).decide(CHANNEL, given.id, by=ANNA, category="pear")
    same = products.save_many(CHANNEL, [new], by="import")[0]
    assert (SaveOutcome.UNCHANGED, "pear") == (same.outcome, same.product.category)
    moved = NewProduct(reference="A-1", designation="Apple", category="shirt")
    assert "shirt" == products.save_many(CHANNEL, [moved], by="import")[0].product.category
