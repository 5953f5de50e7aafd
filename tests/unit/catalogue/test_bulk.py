"""Bulk acceptances on both databases: what is accepted, in several transactions, taken back as one, and cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shoplens.catalogue.bulk.service import BulkService
from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import BulkJob, ProductState
from shoplens.catalogue.errors import BulkRunning, DecisionNotLast
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from tests.unit.catalogue.products import (
    ANNA,
    BERT,
    CHANNEL,
    Clock,
    add,
    bulk_service,
    decision_service,
    product_service,
    suggested,
)

ALL = ProductFilter(channel=CHANNEL, min_score=0.4)


@pytest.fixture
def clock() -> Clock:
    """The clock of all services."""
    return Clock()


@pytest.fixture
def products(database: Database, tmp_path: Path, clock: Clock) -> ProductService:
    """A catalogue of three products with suggestions, and one without."""
    service = product_service(database, tmp_path, clock)
    for reference, category, score in (("A-1", "apple", 0.95), ("A-2", "pear", 0.9), ("A-3", "shirt", 0.4)):
        suggested(database, add(service, reference, reference), category, score)
    add(service, "A-4", "Unknown")
    return service


@pytest.fixture
def decisions(database: Database) -> DecisionService:
    """Single decisions on them."""
    return decision_service(database)


@pytest.fixture
def bulk(database: Database, clock: Clock) -> Iterator[BulkService]:
    """Bulk acceptances of them."""
    with bulk_service(database, clock) as service:
        yield service


def states(products: ProductService) -> dict[str, tuple[ProductState, str | None]]:
    """What is stored now, by reference."""
    found = products.page(ProductFilter(channel=CHANNEL)).products
    return {each.reference: (each.state, each.category) for each in found}


def test_what_is_sure_enough_is_accepted_and_taken_back_as_one(
    products: ProductService, decisions: DecisionService, bulk: BulkService
) -> None:
    """But for a product on which somebody decided before or since."""
    decisions.decide(CHANNEL, "A-2", by=BERT, category="apple")
    assert 2 == bulk.count(ALL)
    done = bulk.run(ALL, by=ANNA)
    assert (2, 2, None) == (done.planned, done.done, done.active)
    assert (ProductState.ACCEPTED, "shirt") == states(products)["A-3"]
    assert all(each.bulk for each in decisions.history(CHANNEL, "A-3"))
    decisions.decide(CHANNEL, "A-1", by=BERT, category="pear")
    with pytest.raises(DecisionNotLast, match="anna accepted"):
        bulk.undo(done.id, by=BERT)
    undone = bulk.wait(bulk.undo(done.id, by=ANNA), 20)
    assert (done.id, 1, None) == (undone.undoes, undone.done, undone.error)
    assert {
        "A-1": (ProductState.CORRECTED, "pear"), "A-2": (ProductState.CORRECTED, "apple"),
        "A-3": (ProductState.SUGGESTED, None), "A-4": (ProductState.NEW, None),
    } == states(products)  # fmt: skip
    with pytest.raises(DecisionNotLast, match="Nothing of this"):
        bulk.undo(done.id, by=ANNA)


def test_a_least_score_is_needed(bulk: BulkService) -> None:
    """Without one everything would be accepted by mistake."""
    with pytest.raises(RequestInvalid, match="least score"):
        bulk.start(ProductFilter(channel=CHANNEL), by=ANNA)


def test_only_products_of_the_filter_are_accepted(products: ProductService, bulk: BulkService) -> None:
    """By category, words and model; what the live tree lacks is left out."""
    below_fruit = ProductFilter(channel=CHANNEL, min_score=0.1, categories=frozenset({"apple", "pear"}), text="a-2")
    assert 1 == bulk.wait(bulk.start(below_fruit, by=ANNA), 20).done
    assert 0 == bulk.run(ProductFilter(channel=CHANNEL, min_score=0.1, model="other@1"), by=ANNA).done
    assert ["A-2"] == [name for name, (state, _) in states(products).items() if state is ProductState.ACCEPTED]


def test_a_suggestion_for_a_category_that_is_gone_waits_for_a_person(
    products: ProductService, bulk: BulkService, database: Database
) -> None:
    """It would put the product where nobody finds it."""
    suggested(database, add(products, "A-5", "Old"), "gone", 0.99)
    assert (4, 3) == ((done := bulk.run(ALL, by=ANNA)).planned, done.done)
    assert (ProductState.SUGGESTED, None) == states(products)["A-5"]


def test_many_are_done_in_several_transactions_and_one_at_a_time_of_a_channel(
    products: ProductService, bulk: BulkService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gets a suggestion meanwhile is left out, and cancelling leaves out the rest."""
    monkeypatch.setattr("shoplens.catalogue.bulk.service._AT_ONCE", 2)
    for number in range(4):
        suggested(database, add(products, f"B-{number}", "Pear"), "pear", 0.99)
    seen: list[int] = []

    def look(job: BulkJob) -> None:
        seen.append(job.done)
        if len(seen) == 1:
            suggested(database, add(products, "late", "Pear"), "pear", 0.99)
            with pytest.raises(BulkRunning):
                bulk.start(ALL, by=BERT)

    done = bulk.run(ALL, by=ANNA, on_progress=look)
    assert ([2, 4, 6, 7], 7, 7) == (sorted(set(seen)), done.done, done.planned)
    assert (ProductState.SUGGESTED, None) == states(products)["late"]

    def cancel(job: BulkJob) -> None:
        if job.done == 2:
            bulk.cancel(job.id, by=BERT)

    undone = bulk.take_back(done.id, by=ANNA, on_progress=cancel)
    assert ("bert", 2) == (bulk.get(undone.id).cancelled_by, bulk.get(undone.id).done)
    assert 5 == bulk.standing(done.id)
    assert 5 == bulk.take_back(done.id, by=ANNA).done


def test_what_the_model_was_sure_of_needs_no_person_after_its_acceptance_is_undone(
    products: ProductService, bulk: BulkService
) -> None:
    """Undoing does not fill the queue; what needed a person needs one again."""
    bulk.take_back(bulk.run(ALL, by=ANNA).id, by=ANNA)
    assert [False, False, True] == [products.get(CHANNEL, each)[0].needs_review for each in ("A-1", "A-2", "A-3")]
