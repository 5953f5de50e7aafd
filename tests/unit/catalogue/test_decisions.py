"""Decisions on products on both databases: accepted, corrected, undone, by two people at once, and in bulk."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import DecisionKind, ProductState
from shoplens.catalogue.errors import CategoryNotFound, DecisionNotLast, ProductChanged
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from tests.unit.catalogue.products import ANNA, BERT, CHANNEL, add, decision_service, product_service, suggested


@pytest.fixture
def products(database: Database, tmp_path: Path) -> ProductService:
    """A catalogue of three products with suggestions, and one without."""
    service = product_service(database, tmp_path)
    for reference, category, score in (("A-1", "apple", 0.95), ("A-2", "pear", 0.9), ("A-3", "shirt", 0.4)):
        suggested(database, add(service, reference, reference), category, score)
    add(service, "A-4", "Unknown")
    return service


@pytest.fixture
def decisions(database: Database) -> DecisionService:
    """Decisions on them."""
    return decision_service(database)


def category_of(products: ProductService, reference: str) -> tuple[ProductState, str | None]:
    """What is stored now."""
    product, _ = products.get(CHANNEL, reference)
    return product.state, product.category


def test_a_suggestion_is_accepted_and_another_category_corrects_it(
    products: ProductService, decisions: DecisionService
) -> None:
    """And each decision keeps what the model had said."""
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    decisions.decide(CHANNEL, "A-2", by=ANNA, category="apple")
    assert (ProductState.ACCEPTED, "apple") == category_of(products, "A-1")
    assert (ProductState.CORRECTED, "apple") == category_of(products, "A-2")
    (made,) = decisions.history(CHANNEL, "A-2")
    assert ("anna", DecisionKind.CORRECTED, "apple", "pear", 0.9, "tiny@1", False) == (
        made.by_name, made.kind, made.category, made.suggested, made.score, made.model, made.bulk,
    )  # fmt: skip


def test_what_the_tree_does_not_have_and_what_nobody_suggested_is_refused(
    products: ProductService, decisions: DecisionService
) -> None:
    """The product stays as it was."""
    with pytest.raises(CategoryNotFound):
        decisions.decide(CHANNEL, "A-1", by=ANNA, category="nothing")
    with pytest.raises(RequestInvalid, match="no suggestion"):
        decisions.decide(CHANNEL, "A-4", by=ANNA)
    assert ProductState.NEW is products.get(CHANNEL, "A-4")[0].state


def test_the_second_of_two_people_at_once_is_told_who_was_first(
    products: ProductService, decisions: DecisionService
) -> None:
    """Nothing is overwritten unseen."""
    seen = products.get(CHANNEL, "A-1")[0].revision
    decisions.decide(CHANNEL, "A-1", by=ANNA, revision=seen)
    with pytest.raises(ProductChanged, match="anna set the category of A-1 to apple"):
        decisions.decide(CHANNEL, "A-1", by=BERT, category="pear", revision=seen)
    assert (ProductState.ACCEPTED, "apple") == category_of(products, "A-1")


def test_the_last_word_counts_and_the_first_is_kept(products: ProductService, decisions: DecisionService) -> None:
    """Who looked again may overrule."""
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    decisions.decide(CHANNEL, "A-1", by=BERT, category="shirt")
    assert (ProductState.CORRECTED, "shirt") == category_of(products, "A-1")
    assert [("anna", "apple"), ("bert", "shirt")] == [
        (each.by_name, each.category) for each in decisions.history(CHANNEL, "A-1")
    ]


def test_undoing_brings_back_what_was_before_step_by_step(products: ProductService, decisions: DecisionService) -> None:
    """And the history says so."""
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    decisions.decide(CHANNEL, "A-1", by=ANNA, category="shirt")
    assert 1 == decisions.undo_last(CHANNEL, by=ANNA)
    assert (ProductState.ACCEPTED, "apple") == category_of(products, "A-1")
    assert 1 == decisions.undo_last(CHANNEL, by=ANNA)
    assert (ProductState.SUGGESTED, None) == category_of(products, "A-1")
    with pytest.raises(DecisionNotLast):
        decisions.undo_last(CHANNEL, by=ANNA)
    kinds = [each.kind for each in decisions.history(CHANNEL, "A-1")]
    assert ["accepted", "corrected", "undone", "undone"] == kinds


def test_nobody_undoes_what_another_person_decided(products: ProductService, decisions: DecisionService) -> None:
    """Neither directly nor as their own last decision."""
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    with pytest.raises(DecisionNotLast, match="anna decided last"):
        decisions.undo(CHANNEL, "A-1", by=BERT)
    decisions.decide(CHANNEL, "A-1", by=BERT, category="pear")
    with pytest.raises(DecisionNotLast, match="bert decided last"):
        decisions.undo_last(CHANNEL, by=ANNA)
    assert (ProductState.CORRECTED, "pear") == category_of(products, "A-1")


def test_bulk_acceptance_takes_what_is_sure_enough_and_is_undone_as_one(
    products: ProductService, decisions: DecisionService
) -> None:
    """But for a product on which somebody decided since."""
    decisions.decide(CHANNEL, "A-2", by=BERT, category="apple")
    wanted = ProductFilter(channel=CHANNEL, min_score=0.4)
    assert 2 == decisions.count_bulk(wanted)
    done = decisions.accept_bulk(wanted, by=ANNA)
    assert 2 == done.accepted
    assert (ProductState.ACCEPTED, "shirt") == category_of(products, "A-3")
    assert all(each.bulk for each in decisions.history(CHANNEL, "A-3"))
    assert 1 == len(decisions.recent(CHANNEL, by=ANNA))
    decisions.decide(CHANNEL, "A-1", by=BERT, category="pear")
    assert 1 == decisions.undo_last(CHANNEL, by=ANNA)
    assert (ProductState.SUGGESTED, None) == category_of(products, "A-3")
    assert (ProductState.CORRECTED, "pear") == category_of(products, "A-1")
    with pytest.raises(DecisionNotLast):
        decisions.undo_last(CHANNEL, by=ANNA)


def test_bulk_acceptance_needs_a_least_score(decisions: DecisionService) -> None:
    """Without one everything would be accepted by mistake."""
    with pytest.raises(RequestInvalid, match="least score"):
        decisions.accept_bulk(ProductFilter(channel=CHANNEL), by=ANNA)


def test_many_are_accepted_in_several_transactions(
    products: ProductService, decisions: DecisionService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all of them are undone."""
    monkeypatch.setattr("shoplens.catalogue.decisions._COMMITTED_AT_ONCE", 2)
    for number in range(3):
        suggested(database, add(products, f"B-{number}", "Pear"), "pear", 0.99)
    done = decisions.accept_bulk(ProductFilter(channel=CHANNEL, min_score=0.8), by=ANNA)
    assert 5 == done.accepted
    assert 5 == decisions.undo_last(CHANNEL, by=ANNA)
    assert 0 == products.count(ProductFilter(channel=CHANNEL, state=ProductState.ACCEPTED))


def test_what_the_model_was_sure_of_needs_no_person_after_its_acceptance_is_undone(
    products: ProductService, decisions: DecisionService
) -> None:
    """Undoing a bulk acceptance does not fill the queue; what needed a person needs one again."""
    bulk = decisions.accept_bulk(ProductFilter(channel=CHANNEL, min_score=0.1), by=ANNA)
    assert bulk.id is not None
    decisions.undo_bulk(bulk.id, by=ANNA)
    assert [False, False, True] == [products.get(CHANNEL, each)[0].needs_review for each in ("A-1", "A-2", "A-3")]


def test_a_decision_that_is_sent_again_after_a_lost_answer_is_one(
    products: ProductService, decisions: DecisionService
) -> None:
    """Of the same person; another person with the same opinion is told who was first."""
    seen = products.get(CHANNEL, "A-1")[0].revision
    first = decisions.decide(CHANNEL, "A-1", by=ANNA, category="pear", revision=seen)
    assert first == decisions.decide(CHANNEL, "A-1", by=ANNA, category="pear", revision=seen)
    assert 1 == len(decisions.history(CHANNEL, "A-1"))
    for by, category in ((BERT, "pear"), (ANNA, "apple")):
        with pytest.raises(ProductChanged, match="anna set the category"):
            decisions.decide(CHANNEL, "A-1", by=by, category=category, revision=seen)
