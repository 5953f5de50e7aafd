"""Decided categories as labels, on both databases."""

from __future__ import annotations

from pathlib import Path

from shoplens.catalogue.label_source import CategoryLabels
from shoplens.catalogue.products import NewProduct
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from tests.unit.catalogue.products import (
    ANNA,
    CHANNEL,
    TREE,
    add,
    bulk_service,
    decision_service,
    jpeg_of,
    product_service,
    suggested,
)


def test_what_was_decided_last_is_a_label_with_its_texts_and_first_photo(database: Database, tmp_path: Path) -> None:
    """Suggestions alone are none, nor is what was undone or what the tree lacks."""
    products, decisions = product_service(database, tmp_path), decision_service(database)
    photo = products.photo("front", jpeg_of(40, 30))
    new = [
        NewProduct(reference="given", designation="Red apple", category="apple"),
        NewProduct(reference="lost", designation="Old", category="gone"),
        NewProduct(reference="corrected", designation="Pear", description="Sweet", photos=(photo,)),
    ]
    products.save_many(CHANNEL, new, by="import")
    decisions.decide(CHANNEL, "corrected", by=ANNA, category="shirt")
    decisions.decide(CHANNEL, "corrected", by=ANNA, category="pear")
    suggested(database, add(products, "suggested", "Shirt"), "shirt", 0.9)
    suggested(database, add(products, "undone", "Shirt"), "shirt", 0.9)
    decisions.decide(CHANNEL, "undone", by=ANNA)
    decisions.undo(CHANNEL, "undone", by=ANNA)
    found = list(CategoryLabels(database, tree_of=lambda name: TREE if name == CHANNEL else None)(CHANNEL))
    assert [
        ("Food > Fruit > Apple", "Red apple", "", "import", None),
        ("Food > Fruit > Pear", "Pear", "Sweet", "anna", photo.facts.sha256),
    ] == [(each.label, each.designation, each.description, each.given_by, each.image_sha256 or None) for each in found]
    assert [] == list(CategoryLabels(database, tree_of=lambda _: None)("reviews"))


def test_what_was_accepted_in_bulk_is_no_label(database: Database, tmp_path: Path) -> None:
    """Nobody looked at it, so a model would learn from itself. A person's later word on it counts."""
    products, decisions = product_service(database, tmp_path), decision_service(database)
    for reference in ("looked-at", "not-looked-at"):
        suggested(database, add(products, reference, "Shirt"), "shirt", 0.95)
    with bulk_service(database) as bulk:
        bulk.run(ProductFilter(channel=CHANNEL, min_score=0.9), by=ANNA)
    labels = CategoryLabels(database, tree_of=lambda _: TREE)
    assert [] == list(labels(CHANNEL))
    decisions.decide(CHANNEL, "looked-at", by=ANNA, category="pear")
    assert ["Food > Fruit > Pear"] == [each.label for each in labels(CHANNEL)]
