"""Decisions on products on both databases: accepted, corrected, undone, and by two people at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import CategoryDecisionKind, ProductState
from shoplens.catalogue.errors import CategoryNotFound, DecisionNotLast, ProductChanged, SuggestionOutdated
from shoplens.catalogue.products import ProductService
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
    assert ("anna", CategoryDecisionKind.CORRECTED, "apple", "pear", 0.9, "tiny@1", False) == (
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


def test_a_suggestion_that_the_live_tree_does_not_have_is_not_accepted(
    products: ProductService, decisions: DecisionService, database: Database
) -> None:
    """It was made for an earlier tree. The sentence says what to do, and another category is still a correction."""
    suggested(database, products.get(CHANNEL, "A-4")[0], "fruit-of-an-earlier-tree", 0.9)
    with pytest.raises(SuggestionOutdated, match=r"A-4 is fruit-of-an-earlier-tree.*`again`"):
        decisions.decide(CHANNEL, "A-4", by=ANNA)
    assert ProductState.SUGGESTED is products.get(CHANNEL, "A-4")[0].state
    decisions.decide(CHANNEL, "A-4", by=ANNA, category="apple")
    assert (ProductState.CORRECTED, "apple") == category_of(products, "A-4")


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
    decisions.undo(CHANNEL, "A-1", by=ANNA)
    assert (ProductState.ACCEPTED, "apple") == category_of(products, "A-1")
    decisions.undo(CHANNEL, "A-1", by=ANNA)
    assert (ProductState.SUGGESTED, None) == category_of(products, "A-1")
    with pytest.raises(DecisionNotLast):
        decisions.undo(CHANNEL, "A-1", by=ANNA)
    kinds = [each.kind for each in decisions.history(CHANNEL, "A-1")]
    assert ["accepted", "corrected", "undone", "undone"] == kinds


def test_nobody_undoes_what_another_person_decided(products: ProductService, decisions: DecisionService) -> None:
    """Neither directly nor as their own last decision."""
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    with pytest.raises(DecisionNotLast, match="anna decided last"):
        decisions.undo(CHANNEL, "A-1", by=BERT)
    decisions.decide(CHANNEL, "A-1", by=BERT, category="pear")
    with pytest.raises(DecisionNotLast, match="bert decided last"):
        decisions.undo(CHANNEL, "A-1", by=ANNA)
    assert (ProductState.CORRECTED, "pear") == category_of(products, "A-1")


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
