"""What people said of items without a prediction, as labels, on both databases."""

from __future__ import annotations

import pytest

from shoplens.batch import label_source
from shoplens.batch.entities import BatchItem
from shoplens.batch.label_source import SOURCE, answered_items
from shoplens.batch.review import ReviewService
from tests.unit.batch.results_shop import Shop, needing_review, quarantined

BAD = quarantined("image_corrupt", "It is cut off.")


def test_what_people_said_of_items_without_a_prediction_is_a_label(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With photo and time, in the order of ids over pages; what has a prediction comes from feedback instead."""
    monkeypatch.setattr(label_source, "_PAGE", 2)
    review = ReviewService(shop.database, shop.store, labels={"returns": ("coat", "hat")}, clock=shop.tick)
    items: list[BatchItem] = []
    for number, fate in enumerate([BAD, BAD, BAD, needing_review("coat", 0.4)]):
        items.append(shop.arrive(f"{number}.jpg", fate=fate))
    unanswered = shop.arrive("unanswered.jpg", fate=BAD)
    shop.run()
    for item, label in zip(items, ("hat", "coat", "hat", "hat"), strict=True):
        review.label(item.id, label)
    labels = list(answered_items(shop.database)("returns"))
    given = [(each.sample_id, each.label) for each in labels]
    assert sorted(zip([item.id for item in items[:3]], ("hat", "coat", "hat"), strict=True)) == given
    assert unanswered.id not in {each.sample_id for each in labels}
    first = labels[0]
    stored = shop.item(next(item for item in items if item.id == first.sample_id))
    assert (SOURCE, "returns", stored.sha256, stored.key) == (
        first.source, first.channel, first.image_sha256, first.image_key,
    )  # fmt: skip
    assert stored.corrected_at == first.given_at
    assert shop.store.exists(first.image_key or "")
    assert [] == list(answered_items(shop.database)("look"))
