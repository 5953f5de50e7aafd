"""The trees of a channel in the database: versions, mappings, products that are carried over, and two at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.catalogue.entities import Product, ProductState
from shoplens.catalogue.errors import TreeInvalid, TreeNotFound
from shoplens.catalogue.repository import ProductRepository
from shoplens.catalogue.tree.categories import Tree
from shoplens.catalogue.tree.repository import TreeRepository
from shoplens.catalogue.tree.service import TreeService
from shoplens.catalogue.tree.source import read_tree
from shoplens.db import Database, open_database
from shoplens.db.tables import new_id

_START = datetime(2026, 5, 4, 12, tzinfo=UTC)
FIRST = "id,path\napple,Fruit > Apple\npear,Fruit > Pear\n"
SECOND = "id,path\napple,Fruit > Apple\nquince,Fruit > Quince\nplum,Fruit > Plum\n"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Migrated and empty."""
    opened = open_database(database_url)
    yield opened
    opened.close()


def service(database: Database) -> TreeService:
    """As each process has one; its clock goes on by a second with each look."""
    seconds = count()

    def clock() -> datetime:
        return _START + timedelta(seconds=next(seconds))

    audit = AuditLog(database, clock=clock)
    return TreeService("catalogue", database, first=lambda: tree("id,path\nmodel,Model\n"), audit=audit, clock=clock)


def tree(text: str) -> Tree:
    """The tree in this CSV."""
    return read_tree(text.encode())


def decided(database: Database, reference: str, category: str) -> None:
    """A product that somebody put into this category."""
    product = Product(
        id=new_id(_START), channel="catalogue", reference=reference, created_at=_START, changed_at=_START,
        designation=reference, description="", state=ProductState.ACCEPTED, category=category,
    )  # fmt: skip
    with database.transaction() as tx:
        ProductRepository(tx).add(product)


def product_of(database: Database, reference: str) -> tuple[str | None, ProductState, bool]:
    """Its category, its state, and whether a person has to look at it."""
    with database.reading() as tx:
        found = ProductRepository(tx).get("catalogue", reference)
    return found.category, found.state, found.needs_review


def test_before_any_import_the_tree_is_that_of_the_model(database: Database) -> None:
    """As version 0."""
    trees = service(database)
    assert (0, ["model"], []) == (trees.live().version, [each.id for each in trees.live()], trees.versions())


def test_an_import_is_live_for_every_process(database: Database) -> None:
    """With its names, in its order; the earlier versions stay."""
    trees, other = service(database), service(database)
    change = trees.save(tree(FIRST), {}, source="first.csv", note="our own", by=SYSTEM)
    assert (1, 3, True) == (change.version, change.categories, change.saved)
    for each in (trees, other):
        assert (1, tree(FIRST).digest) == (each.live().version, each.live().digest)
    assert ["first.csv"] == [each.source for each in other.versions()]
    assert "model" in other.get(0)
    with pytest.raises(TreeNotFound, match="no tree of version 2"):
        other.get(2)


def test_a_dry_run_says_what_would_change_and_changes_nothing(database: Database) -> None:
    """With the number of products that a person would have to look at again."""
    trees = service(database)
    trees.save(tree(FIRST), {}, source="first.csv", note="", by=SYSTEM)
    decided(database, "P1", "pear")
    change = trees.compare(tree(SECOND), {})
    assert (("quince", "plum"), ("pear",), 0, 1, False) == (
        change.added, change.removed, change.carried, change.uncertain, change.saved
    )  # fmt: skip
    assert 1 == trees.live().version
    assert ("pear", ProductState.ACCEPTED, False) == product_of(database, "P1")


def test_decided_products_go_with_their_categories(database: Database) -> None:
    """Along the mapping; those without a successor need a person again."""
    trees = service(database)
    trees.save(tree(FIRST), {}, source="first.csv", note="", by=SYSTEM)
    decided(database, "A1", "apple")
    decided(database, "P1", "pear")
    trees.save(tree(SECOND), {"pear": "quince"}, source="second.csv", note="", by=SYSTEM)
    assert ("apple", ProductState.ACCEPTED, False) == product_of(database, "A1")
    assert ("quince", ProductState.ACCEPTED, False) == product_of(database, "P1")
    trees.save(tree("id,path\napple,Fruit > Apple\n"), {}, source="third.csv", note="", by=SYSTEM)
    assert (None, ProductState.SUGGESTED, True) == product_of(database, "P1")


def test_categories_of_older_trees_are_found_through_all_mappings(database: Database) -> None:
    """Also the labels of a model that was trained for an older tree, which are paths."""
    trees = service(database)
    trees.save(tree(FIRST), {}, source="first.csv", note="", by=SYSTEM)
    trees.save(tree(SECOND), {"pear": "quince"}, source="second.csv", note="", by=SYSTEM)
    trees.save(tree("id,path\nc,Food > Cydonia\na,Food > Malus\n"), {"quince": "c"}, source="3", note="", by=SYSTEM)
    assert ("c", None) == (trees.carried("pear", 1), trees.carried("apple", 2))
    labels = [("Fruit", "Pear"), ("Food", "Malus"), ("Fruit", "Apple")]
    assert {("Fruit", "Pear"): "c", ("Food", "Malus"): "a"} == trees.of_labels(labels)


def test_older_trees_are_not_read_again_for_labels_that_none_of_them_has(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once per label, nor at the next request; a new live tree is looked at again."""
    trees = service(database)
    for number in range(4):
        trees.save(tree(f"id,path\nc{number},Fruit > Number {number}\n"), {}, source="", note="", by=SYSTEM)
    trees = service(database)
    trees.live()
    read: list[int] = []
    real = TreeRepository.tree

    def noted(self: TreeRepository, channel: str, version: int) -> Tree | None:
        read.append(version)
        return real(self, channel, version)

    monkeypatch.setattr(TreeRepository, "tree", noted)
    monkeypatch.setattr("shoplens.catalogue.tree.service._MOST_KEPT", 2)  # nothing older stays in memory
    labels = [("Fruit", f"Unknown {number}") for number in range(20)]
    for _ in range(3):
        assert {("Fruit", "Number 3"): "c3"} == trees.of_labels([("Fruit", "Number 3"), *labels])
    assert [3, 2, 1] == read


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [({"nothing": "apple"}, "about 'nothing', which the live tree"), ({"pear": "nothing"}, "leads to 'nothing'")],
)
def test_a_mapping_between_unknown_categories_is_refused(
    database: Database, mapping: dict[str, str | None], sentence: str
) -> None:
    """Nothing is saved then."""
    trees = service(database)
    trees.save(tree(FIRST), {}, source="first.csv", note="", by=SYSTEM)
    with pytest.raises(TreeInvalid, match=sentence):
        trees.save(tree(SECOND), mapping, source="second.csv", note="", by=SYSTEM)
    assert 1 == len(trees.versions())


def test_versions_that_somebody_looked_at_do_not_fill_the_memory(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were read last stay, and a number beyond all versions is none."""
    monkeypatch.setattr("shoplens.catalogue.tree.service._MOST_KEPT", 2)
    trees = service(database)
    for number in range(4):
        trees.save(tree(f"id,path\na,A{number}\nb,B\n"), {}, source="t.csv", note="", by=SYSTEM)
    seen = weakref.WeakSet(trees.get(version) for version in (1, 2, 3))
    gc.collect()
    assert len(seen) <= 1
    live = trees.live()
    assert trees.get(live.version) is live
    with pytest.raises(TreeNotFound):
        trees.get(10**30)
