"""Saved views of records."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime

import pytest

from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.predictions.views import MOST_VIEWS, SavedViews
from tests.samples import moment


def person(name: str, kind: PrincipalKind = PrincipalKind.PERSON) -> Principal:
    """Somebody who reads records."""
    return Principal(kind=kind, id=name, name=name.title(), permissions=frozenset({Permission.RECORDS_READ}))


ANNA, BEN, LOCAL = person("anna"), person("ben"), person("browser", PrincipalKind.LOCAL)


def clock() -> Callable[[], datetime]:
    """A second later each time."""
    seconds = itertools.count()
    return lambda: moment(next(seconds))


@pytest.fixture
def views(database: Database) -> SavedViews:
    """None yet."""
    return SavedViews(database, clock=clock())


def names(views: SavedViews, who: Principal) -> list[tuple[str, str]]:
    """What somebody sees."""
    return [(view.name, view.query) for view in views.of(who)]


def test_a_view_is_for_one_person_or_for_all(views: SavedViews) -> None:
    """One's own stand first."""
    views.save("Doubtful", "decision=review", by=ANNA, shared=False)
    views.save("Hats", "label=hat", by=ANNA, shared=True)
    assert [("Doubtful", "decision=review"), ("Hats", "label=hat")] == names(views, ANNA)
    assert [("Hats", "label=hat")] == names(views, BEN)


def test_saving_again_under_a_name_replaces_the_filter(views: SavedViews) -> None:
    """Of the same owner only."""
    for who, query in ((ANNA, "label=hat"), (BEN, "label=cap"), (ANNA, "label=scarf")):
        views.save("Winter", query, by=who, shared=False)
    assert ([("Winter", "label=scarf")], [("Winter", "label=cap")]) == (names(views, ANNA), names(views, BEN))


def test_nobody_removes_the_view_of_another_person(views: SavedViews) -> None:
    """A shared one may be removed by everybody who sees it."""
    views.save("Own", "label=hat", by=ANNA, shared=False)
    views.save("Shared", "label=cap", by=ANNA, shared=True)
    for view in views.of(ANNA):
        views.remove(view.id, by=BEN)
    assert [("Own", "label=hat")] == names(views, ANNA)


def test_without_accounts_all_views_are_shared(views: SavedViews) -> None:
    """And people who sign in later see them."""
    views.save("Hats", "label=hat", by=LOCAL, shared=False)
    assert [("Hats", "label=hat")] == names(views, LOCAL) == names(views, BEN)


@pytest.mark.parametrize(("name", "query"), [(" \x00 ", "label=hat"), ("x" * 61, "label=hat"), ("All", "")])
def test_a_view_needs_a_name_and_a_filter(views: SavedViews, name: str, query: str) -> None:
    """Nothing is saved otherwise."""
    with pytest.raises(RequestInvalid):
        views.save(name, query, by=ANNA, shared=False)
    assert [] == views.of(ANNA)


def test_views_are_bounded(views: SavedViews) -> None:
    """For each person; replacing one is possible then, too."""
    for number in range(MOST_VIEWS):
        views.save(f"View {number:02}", "label=hat", by=ANNA, shared=False)
    with pytest.raises(RequestInvalid, match="already"):
        views.save("One more", "label=hat", by=ANNA, shared=False)
    views.save("View 07", "label=cap", by=ANNA, shared=False)
    views.save("Hers", "label=hat", by=BEN, shared=False)
    assert ("View 07", "label=cap") in names(views, ANNA)
    assert MOST_VIEWS == len(views.of(ANNA))
