"""What pages say of suggestions, and how a typed category is understood."""

from __future__ import annotations

import pytest

from shoplens import messages
from shoplens.catalogue import presenting
from shoplens.catalogue.entities import Category
from shoplens.catalogue.errors import CategoryNotFound
from shoplens.catalogue.pages import typed_category
from shoplens.catalogue.tree.categories import Tree
from shoplens.errors import RequestInvalid
from tests.unit.catalogue.products import TREE


def test_the_sure_part_of_a_path_is_that_of_the_answer() -> None:
    """Of other branches nothing is sure."""
    shown = presenting.options([("apple", 0.5), ("pear", 0.4), ("shirt", 0.1)], TREE.at(("Food", "Fruit")), TREE)
    assert [("Food", "Fruit", "Apple"), ("Food", "Fruit", "Pear"), ("Apparel", "Shirt")] == [
        each.path for each in shown
    ]
    assert [2, 2, 0] == [each.sure for each in shown]


def test_names_come_in_the_language_of_the_channel() -> None:
    """What the tree lost is shown by its id."""
    assert ("Food", "Fruit", "Apfel") == presenting.category_path("apple", TREE, "de")
    assert ("gone",) == presenting.category_path("gone", TREE)


@pytest.mark.parametrize(
    ("suggested", "answer", "words"),
    [
        (["apple"], "apple", "Sure:"),
        (["apple"], "food", "Sure as far as Food. Best guesses below it:"),
        (["shirt", "apple"], "food", "Sure as far as Food. Best guesses:"),
        (["apple"], None, "Not sure of any category. Best guesses:"),
        ([], None, "The model has no suggestion."),
    ],
)
def test_the_heading_says_how_sure_the_model_is(suggested: list[str], answer: str | None, words: str) -> None:
    """Down to which category."""
    assert words == presenting.sureness(suggested, answer, TREE)
    assert words.replace("Sure:", "Probably:") == presenting.sureness(suggested, answer, TREE, needs_review=True)


@pytest.mark.parametrize(
    "typed", ["apple", "Food > Fruit > Apple", "food>fruit>apple", " APPLE ", "Food › Fruit › Apple"]
)
def test_a_category_is_typed_as_id_path_or_name(typed: str) -> None:
    """In any case of letters, as long as one has that name."""
    assert "apple" == typed_category(typed, TREE)


def test_a_name_that_several_have_or_none_is_refused_with_what_is_near() -> None:
    """Nothing is chosen silently."""
    twice = Tree([Category(id=f"shoes-{at}", path=(at, "Shoes"), names={}) for at in ("Men", "Women")])
    with pytest.raises(RequestInvalid, match="2 categories are called"):
        typed_category("Shoes", twice)
    with pytest.raises(CategoryNotFound, match="Near it: Food > Fruit > Pear"):
        typed_category("Pe", TREE)
    with pytest.raises(RequestInvalid, match="Choose a category"):
        typed_category(" ", TREE)


def test_categories_have_the_names_of_the_pages_language() -> None:
    """Where the tree has them; English pages keep to the language of the channel."""
    tree = Tree([Category(id="shoes", path=("Clothing", "Shoes"), names={"de": "Schuhe", "fr": "Chaussures"})])
    assert "Chaussures" == presenting.category_path("shoes", tree, "fr")[-1]
    token = messages.language.set("de")
    try:
        assert "Schuhe" == presenting.category_path("shoes", tree, "fr")[-1]
    finally:
        messages.language.reset(token)
