"""Several people review at once: each looks at another item, and what one skips comes again at the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from shoplens.batch.browse import BrowseService
from shoplens.batch.entities import BatchItem, ItemFilter, ItemState
from shoplens.batch.looks import LOOK_S, LookService
from shoplens.batch.review import ReviewService
from shoplens.errors import ItemNotFound, ItemNotReady
from tests.unit.batch.results_shop import Fate, Shop, needing_review

ME, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def looks(shop: Shop) -> LookService:
    """Over the shop, with its clock."""
    return LookService(shop.database, clock=shop.clock)


def needing(shop: Shop, count: int) -> list[BatchItem]:
    """So many items that need review."""
    items = [shop.arrive(f"{number}.jpg", fate=needing_review("dress", 0.4)) for number in range(count)]
    shop.run()
    return [shop.item(item) for item in items]


def ids(items: list[BatchItem]) -> list[str]:
    """Their ids."""
    return [item.id for item in items]


def test_two_people_look_at_different_items(shop: Shop, looks: LookService) -> None:
    """The second gets the next one, and learns which are held."""
    wanted = ids(needing(shop, 3))
    assert wanted[0] == looks.look(wanted, browser=ME).item_id
    theirs = looks.look(wanted, browser=OTHER)
    assert (wanted[1], (wanted[0],)) == (theirs.item_id, theirs.held)
    assert wanted[0] == looks.look(wanted, browser=ME).item_id
    assert (None, (wanted[1],)) == ((mine := looks.look([wanted[1]], browser=ME)).item_id, mine.held)


def test_people_who_ask_at_once_get_different_items(shop: Shop, looks: LookService) -> None:
    """Also through several connections."""
    wanted = ids(needing(shop, 6))
    with ThreadPoolExecutor(6) as people:
        found = list(people.map(lambda number: looks.look(wanted, browser=f"{number:032x}").item_id, range(6)))
    assert sorted(wanted) == sorted(item_id or "" for item_id in found)


def test_a_look_ends_by_itself_and_with_the_next_one(shop: Shop, looks: LookService) -> None:
    """And when the person looks away."""
    wanted = ids(needing(shop, 2))
    looks.look(wanted[:1], browser=ME)
    looks.look(wanted[1:], browser=ME)
    assert wanted[0] == looks.look(wanted[:1], browser=OTHER).item_id
    looks.look([], browser=OTHER)
    assert wanted[0] == looks.look(wanted, browser=ME).item_id
    shop.tick(LOOK_S + 1)
    assert wanted[0] == looks.look(wanted, browser=OTHER).item_id


def test_items_that_need_no_review_are_shown_as_they_are(shop: Shop, looks: LookService) -> None:
    """What somebody answered meanwhile; unknown ids are left out."""
    items = needing(shop, 2)
    review = ReviewService(shop.database, shop.store, labels={"returns": ("hat",)}, clock=shop.tick)
    after = review.label(items[0].id, "hat")
    found = looks.look([items[0].id, "nix", items[1].id], browser=ME)
    assert (items[1].id, (after,)) == (found.item_id, found.settled)


def test_what_a_person_skips_is_at_the_end_of_their_queue(shop: Shop, looks: LookService) -> None:
    """Others see it as before; an answer and its withdrawal end that."""
    items = needing(shop, 3)
    browse = BrowseService(shop.database, shop.images, clock=shop.clock)
    run_id = items[0].run_id or ""
    looks.skip(items[2].id, browser=ME)

    def queue(browser: str, *, skipped: bool = False) -> list[str]:
        wanted = ItemFilter(run_id=run_id, state=ItemState.NEEDS_REVIEW, browser=browser, skipped=skipped)
        return ids(browse.items(wanted).items)

    assert (ids(items)[1::-1], [items[2].id], ids(items)[::-1]) == (queue(ME), queue(ME, skipped=True), queue(OTHER))
    assert (1, 0) == (browse.count_skipped(run_id, ME), browse.count_skipped(run_id, OTHER))
    assert items[0] == browse.next_to_review(items[1], browser=ME)
    for item in items[:1]:
        looks.skip(item.id, browser=ME)
    skipped_now = browse.next_to_review(items[1], browser=ME)
    assert skipped_now is not None
    assert skipped_now.id in {items[0].id, items[2].id}
    review = ReviewService(shop.database, shop.store, labels={"returns": ("hat",)}, clock=shop.tick)
    review.confirm(items[2].id)
    review.reopen(items[2].id)
    assert items[2].id in queue(ME)


def test_the_next_item_is_one_that_nobody_looks_at(shop: Shop, looks: LookService) -> None:
    """Unless others look at all that is left."""
    items = needing(shop, 3)
    browse = BrowseService(shop.database, shop.images, clock=shop.clock)
    looks.look([items[1].id], browser=OTHER)
    assert items[0] == browse.next_to_review(items[2], browser=ME)
    looks.skip(items[0].id, browser=ME)
    assert items[1] == browse.next_to_review(items[2], browser=ME)


def test_only_what_needs_review_is_skipped(shop: Shop, looks: LookService) -> None:
    """Everything else is not in the queue."""
    done = shop.arrive("a.jpg", fate=Fate())
    shop.run()
    with pytest.raises(ItemNotReady):
        looks.skip(done.id, browser=ME)
    with pytest.raises(ItemNotFound):
        looks.skip("nix", browser=ME)
