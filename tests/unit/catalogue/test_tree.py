"""Trees of categories: paths, sums, the deepest sure answer, search, and files of other taxonomies."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from shoplens.catalogue.entities import Category, CategoryScore
from shoplens.catalogue.errors import CategoryNotFound, TreeInvalid
from shoplens.catalogue.tree.categories import Tree
from shoplens.catalogue.tree.source import read_mapping, read_tree, tree_rows, with_names

OURS = """id,path,name_en,name_de,synonyms
food,Food,Food,Lebensmittel,groceries
fruit,Food > Fruit,Fruit,Obst,
apple,Food > Fruit > Apple,Apple,Apfel,apples|Äpfel
pear,Food > Fruit > Pear,Pear,Birne,
milk,Food > Milk,Milk,Milch,
shoes,Apparel > Shoes,Shoes,Schuhe,sneakers|Turnschuhe
"""
GOOGLE = """# Google_Product_Taxonomy_Version: 2021-09-21
1 - Animals & Pet Supplies
3237 - Animals & Pet Supplies > Live Animals
166 - Apparel & Accessories
"""
SHOPIFY = """# Shopify Product Taxonomy - Categories: 2026-02
gid://shopify/TaxonomyCategory/ap       : Animals & Pet Supplies
gid://shopify/TaxonomyCategory/ap-1     : Animals & Pet Supplies > Live Animals
gid://shopify/TaxonomyCategory/ap-2-1   : Animals & Pet Supplies > Pet Supplies > Bird Supplies
"""


@pytest.fixture(scope="module")
def tree() -> Tree:
    """Six categories, and a root that only paths name."""
    return read_tree(OURS.encode())


def test_a_parent_that_only_paths_name_becomes_a_category(tree: Tree) -> None:
    """`Apparel` has no line of its own."""
    assert ("Apparel", "shoes") == tree.ancestors("shoes")
    assert ("food", "Apparel") == tree.children(None)


def test_scores_are_summed_up_the_tree(tree: Tree) -> None:
    """A parent is as probable as all that is below it together; unknown categories do not count."""
    totals = tree.totals({"apple": 0.4, "pear": 0.3, "milk": 0.2, "gone": 0.1})
    assert pytest.approx({"apple": 0.4, "pear": 0.3, "milk": 0.2, "fruit": 0.7, "food": 0.9}) == totals


@pytest.mark.parametrize(("at_least", "answer"), [(0.3, "apple"), (0.5, "fruit"), (0.8, "food"), (0.95, None)], ids=str)
def test_the_answer_is_the_deepest_category_that_is_sure_enough(tree: Tree, at_least: float, answer: str) -> None:
    """Down to a leaf, or to a parent, or nothing at all."""
    found = tree.answer({"apple": 0.4, "pear": 0.3, "milk": 0.2}, at_least)
    assert answer == (found and found.category)


def test_the_answer_has_the_sum_of_its_scores(tree: Tree) -> None:
    """And never more than 1, whatever rounding does."""
    assert CategoryScore(category="fruit", score=1.0) == tree.answer({"apple": 0.5, "pear": 0.5000001}, 0.6)


@pytest.mark.parametrize(
    ("words", "found"),
    [("apf", ["apple"]), ("APPLE", ["apple"]), ("sneak", ["shoes"]), ("aepfel", []), ("äpf", ["apple"]),
     ("fruit pe", ["pear"]), ("", []), ("birne", ["pear"])],
)  # fmt: skip
def test_categories_are_found_by_names_synonyms_and_paths(tree: Tree, words: str, found: list[str]) -> None:
    """In all languages, by the beginnings of words."""
    assert found == [each.id for each in tree.search(words)]


def test_own_names_come_before_synonyms_and_parents(tree: Tree) -> None:
    """Who types fruit means the category, and then what is below it."""
    assert ["fruit", "apple", "pear"] == [each.id for each in tree.search("fruit")]


def test_ten_thousand_categories_are_searched_in_a_moment() -> None:
    """While somebody types."""
    tree = Tree(Category(id=str(n), path=("Root", f"Branch {n % 100}", f"Leaf {n}"), names={}) for n in range(10_000))
    tree.search("warm")
    started = time.thread_time()
    assert "777" == tree.search("leaf 777")[0].id
    assert time.thread_time() - started < 0.2


def test_paths_are_shown_in_a_language(tree: Tree) -> None:
    """A category without a name in it has that of its path."""
    assert "Lebensmittel > Obst > Apfel" == tree.path_text("apple", "de")
    assert "Food > Fruit > Apple" == tree.path_text("apple", "fr")


def test_an_unknown_category_is_named(tree: Tree) -> None:
    """The error says which."""
    with pytest.raises(CategoryNotFound, match="no category 'appel'"):
        tree["appel"]


def test_the_taxonomies_of_google_and_shopify_are_read() -> None:
    """With their own ids; names are in the language that was said."""
    google, shopify = read_tree(GOOGLE.encode()), read_tree(SHOPIFY.encode())
    assert "Animals & Pet Supplies > Live Animals" == google.path_text("3237")
    assert ("ap", "Animals & Pet Supplies > Pet Supplies", "ap-2-1") == shopify.ancestors("ap-2-1")
    german = read_tree(b"1 - Tiere & Tierbedarf\n3237 - Tiere & Tierbedarf > Lebende Tiere\n", language="de")
    both = with_names(google, german, "de")
    assert "Tiere & Tierbedarf > Lebende Tiere" == both.path_text("3237", "de")


def test_paths_alone_are_ids() -> None:
    """Google publishes its taxonomy without numbers, too."""
    assert "Food > Milk" in read_tree(b"Food\nFood > Milk\n")


def test_a_tree_that_is_written_is_read_again(tree: Tree) -> None:
    """The export is an import."""
    header, rows = tree_rows(tree)
    text = "\n".join(",".join(f'"{value}"' for value in row) for row in [header, *rows])
    assert tree.digest == read_tree(text.encode("utf-16")).digest


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,path\n1,Food\n1,Drink\n", "id '1' appears twice"),
        ("id,path\n1,Food\n2,Food\n", "path 'Food' appears twice"),
        ("id,path\n1,\n", "Line 2: the path is empty"),
        ("", "no categories"),
        ("id,path\n" + "1," + " > ".join("abcdefghijklmnopqrstuvwxyz") + "\n", "1 to 20 names"),
    ],
)
def test_a_tree_that_contradicts_itself_is_refused(text: str, sentence: str) -> None:
    """With the line or the category."""
    with pytest.raises(TreeInvalid, match=sentence):
        read_tree(text.encode())


def test_a_mapping_says_what_became_of_categories() -> None:
    """An empty successor means there is none; two successors contradict each other."""
    assert {"a": "b", "c": None} == read_mapping(b"before;after\na;b\nc;\n")
    with pytest.raises(TreeInvalid, match="Line 3: 'a' has two successors"):
        read_mapping(b"before,after\na,b\na,c\n")


def test_a_file_of_very_many_lines_is_refused_without_being_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a tree and as a mapping; and a category is no place to keep a file in."""
    monkeypatch.setattr("shoplens.catalogue.tree.categories.MAX_CATEGORIES", 100)
    monkeypatch.setattr("shoplens.catalogue.tree.source.MAX_CATEGORIES", 100)
    lines = b"".join(b"%x\n" % number for number in range(300_000))
    tracemalloc.start()
    try:
        with pytest.raises(TreeInvalid, match="at most"):
            read_tree(lines)
        with pytest.raises(TreeInvalid, match="at most"):
            read_mapping(b"before,after\n" + lines.replace(b"\n", b",\n"))
        assert tracemalloc.get_traced_memory()[1] < 8 * len(lines)
    finally:
        tracemalloc.stop()
    for row in (f"1,A,{'x|' * 201}", f"1,A,{'x' * 201}"):
        with pytest.raises(TreeInvalid, match="at most 200"):
            read_tree(f"id,path,synonyms\n{row}\n".encode())


def test_names_have_no_characters_that_nobody_sees() -> None:
    """They would disguise a name, and PostgreSQL refuses NUL."""
    (category,) = read_tree("id,path\na\0b,Sh\u202eirts\u200b\n".encode())
    assert ("ab", ("Shirts",)) == (category.id, category.path)
