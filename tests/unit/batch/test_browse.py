"""Runs and items as the pages show them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoplens.batch.browse import BrowseService, rate_per_s
from shoplens.batch.entities import ItemFilter, ItemState, RunState
from shoplens.batch.review import ReviewService
from shoplens.errors import ImageNotKept, ItemNotFound, RunNotFound
from shoplens.predictions.image_store import ImageSize
from shoplens.predictions.repository import PredictionRepository
from tests.conftest import colourful, jpeg_of
from tests.relabel import relabel
from tests.samples import NOON, moment
from tests.unit.batch.results_shop import Fate, Shop, needing_review, quarantined


@pytest.fixture
def browse(shop: Shop) -> BrowseService:
    """Over the shop, with its clock."""
    return BrowseService(shop.database, shop.images, clock=shop.clock)


@pytest.fixture
def review(shop: Shop) -> ReviewService:
    """For a model of two labels."""
    return ReviewService(shop.database, shop.store, labels={"returns": ("dress", "hat")}, clock=shop.tick)


def test_a_run_counts_its_items_and_what_arrived_for_nobody(shop: Shop, browse: BrowseService) -> None:
    """Duplicates and files refused on arrival belong to no run, and are counted with the next one."""
    first = shop.arrive("a.jpg")
    shop.arrive("b.jpg", fate=needing_review("hat", 0.4))
    shop.repeat(first, "again.jpg")
    shop.refuse("c.jpg")
    run = shop.run()
    shop.repeat(first, "once-more.jpg")
    second = shop.run()
    counts = {run.id: browse.run(run.id).counts, second.id: browse.run(second.id).counts}
    assert {
        ItemState.DONE: 2,
        ItemState.NEEDS_REVIEW: 1,
        ItemState.QUARANTINED: 1,
        ItemState.DUPLICATE: 1,
    } == counts[run.id].by_state
    assert {ItemState.DUPLICATE: 1} == counts[second.id].by_state
    assert [second.id, run.id] == [each.run.id for each in browse.runs("returns")]
    assert [run.id] == [each.run.id for each in browse.runs("returns", before=second.id)]
    assert second.id == (browse.latest("returns") or run).id


def test_the_least_sure_come_first_and_an_answer_shifts_no_page(
    shop: Shop, browse: BrowseService, review: ReviewService
) -> None:
    """Of equal scores the newest; the next page begins after the last that was shown, whatever was answered."""
    scores = (0.5, 0.2, 0.4, 0.2, 0.3)
    for number, score in enumerate(scores):
        shop.arrive(f"{number}.jpg", fate=needing_review("hat", score))
    shop.arrive("sure.jpg")
    run = shop.run()
    wanted = ItemFilter(run_id=run.id)
    first, cursor = browse.least_sure(wanted, limit=2)
    review.confirm(first[0].id)
    second, after = browse.least_sure(wanted, limit=2, surer_than=cursor)
    last, end = browse.least_sure(wanted, limit=2, surer_than=after)
    assert ["3.jpg", "1.jpg", "4.jpg", "2.jpg", "0.jpg"] == [each.source_name for each in (*first, *second, *last)]
    assert end is None
    assert [] == browse.least_sure(replace(wanted, label="dress"), limit=2)[0]


def test_what_needs_a_person_is_counted_over_all_runs(shop: Shop, browse: BrowseService, review: ReviewService) -> None:
    """With the newest run that has such photos."""
    assert (0, None) == browse.to_review("returns")
    for names in (("a", "b"), ("c",)):
        for name in names:
            shop.arrive(f"{name}.jpg", fate=needing_review("hat", 0.4))
        run = shop.run()
    assert (3, run.id) == browse.to_review("returns")
    (newest,) = browse.items(ItemFilter(run_id=run.id)).items
    review.confirm(newest.id)
    count, before = browse.to_review("returns")
    assert (2, True) == (count, before != run.id)


def test_labels_are_counted_by_state(shop: Shop, browse: BrowseService) -> None:
    """The predictions of the run for each category."""
    shop.arrive("a.jpg")
    shop.arrive("b.jpg")
    shop.arrive("c.jpg", fate=needing_review("hat", 0.4))
    run = shop.run()
    assert {(ItemState.DONE, "dress"): 2, (ItemState.NEEDS_REVIEW, "hat"): 1} == browse.run(run.id).labels


def test_progress_is_computed_from_the_times_in_the_database(shop: Shop, browse: BrowseService) -> None:
    """Items per second since the start, what is left at that rate, and how long ago the last item was finished."""
    for number in range(6):
        shop.arrive(f"{number}.jpg")
    run = shop.run(limit=4, end=False)
    shop.now = (run.started_at or NOON).replace()
    shop.tick(40)
    active = browse.active("returns")
    assert active is not None
    assert (2, 0.1, 20.0) == (active.left, active.rate_per_s, active.seconds_left)
    last = (run.last_item_at or NOON) - (run.started_at or NOON)
    assert 40 - last.total_seconds() == active.last_item_ago_s


def test_an_ended_run_has_the_rate_of_its_own_time(shop: Shop, browse: BrowseService) -> None:
    """However long ago that was; nothing is left to wait for."""
    for number in range(6):
        shop.arrive(f"{number}.jpg")
    shop.run()
    shop.tick(86_400)
    view = browse.runs("returns")[0]
    ended = browse.run(view.run.id)
    took = (ended.run.last_item_at or NOON) - (ended.run.started_at or NOON)
    assert (6 / took.total_seconds(), None, 0) == (ended.rate_per_s, ended.seconds_left, ended.left)
    assert browse.active("returns") is None


def test_nothing_is_said_of_a_rate_before_the_first_item(shop: Shop) -> None:
    """Nor where the clocks of two machines disagree."""
    run = replace(shop.request(), started_at=moment(10), state=RunState.RUNNING)
    assert rate_per_s(run, 0, moment(20)) is None
    assert rate_per_s(run, 5, moment(5)) is None
    assert rate_per_s(replace(run, started_at=None), 5, moment(20)) is None
    assert 0.5 == rate_per_s(run, 5, moment(20))


def test_an_unknown_run_is_an_error(browse: BrowseService) -> None:
    """By an error of its own."""
    with pytest.raises(RunNotFound, match="nix"):
        browse.run("nix")


def test_items_are_paged_in_both_directions(shop: Shop, browse: BrowseService) -> None:
    """Newest first; each page names the next one where there is one."""
    arrived = [shop.arrive(f"{number}.jpg") for number in range(5)]
    names = [item.source_name for item in reversed(arrived)]
    first = browse.items(ItemFilter(), limit=2)
    second = browse.items(ItemFilter(), limit=2, before=first.older)
    third = browse.items(ItemFilter(), limit=2, before=second.older)
    assert [names[:2], names[2:4], names[4:]] == [[i.source_name for i in p.items] for p in (first, second, third)]
    assert [(True, False), (True, True), (False, True)] == [
        (p.older is not None, p.newer is not None) for p in (first, second, third)
    ]
    back = browse.items(ItemFilter(), limit=2, after=third.newer)
    assert second.items == back.items
    assert first.items == browse.items(ItemFilter(), limit=2, after=back.newer).items
    assert browse.items(ItemFilter(), limit=2, after=back.newer).newer is None


def test_an_unknown_item_is_an_error(browse: BrowseService) -> None:
    """By an error of its own."""
    with pytest.raises(ItemNotFound, match="nix"):
        browse.item("nix")


def test_the_photo_is_found_where_the_item_is_going(shop: Shop, browse: BrowseService) -> None:
    """Before, during and after its move, whichever place the blob has reached."""
    data = jpeg_of(colourful(77))
    item = shop.arrive("a.jpg", data=data)
    seen = [browse.photo(item.id, ImageSize.ORIGINAL).data]
    shop.run()
    settled = shop.item(item)
    seen.append(browse.photo(item.id, ImageSize.ORIGINAL).data)
    with shop.database.transaction() as tx:
        relabel(tx, item.id, label="hat", target_key="returns/processed/hat/x.jpg", now=shop.now)
    seen.append(browse.photo(item.id, ImageSize.ORIGINAL).data)
    shop.store.move(settled.key or "", "returns/processed/hat/x.jpg")
    seen.append(browse.photo(item.id, ImageSize.ORIGINAL).data)
    assert [data] * 4 == seen


def test_thumbnails_are_made_once_and_kept_with_those_of_the_records(shop: Shop, browse: BrowseService) -> None:
    """So the pages of records and of returns share them."""
    item = shop.arrive("a.jpg")
    small = browse.photo(item.id, ImageSize.THUMBNAIL)
    kept = f"images/{item.sha256[:2]}/{item.sha256[2:4]}/{item.sha256}.thumbnail.jpg"
    assert (small.data, "image/jpeg") == (shop.store.get(kept), small.media_type)
    shop.store.delete(item.key or "")
    assert small == browse.photo(item.id, ImageSize.THUMBNAIL)


def test_a_duplicate_shows_the_photo_that_it_repeats(shop: Shop, browse: BrowseService) -> None:
    """It has none of its own, and the original names its repetitions."""
    item = shop.arrive("a.jpg")
    again = shop.repeat(item, "b.jpg")
    assert browse.photo(item.id, ImageSize.ORIGINAL) == browse.photo(again.id, ImageSize.ORIGINAL)
    assert [again] == browse.duplicates(item)


def test_a_quarantined_item_shows_what_was_saved_of_it(shop: Shop, browse: BrowseService) -> None:
    """Its thumbnail in every size, and the file itself as it came, also once a person has named it."""
    small = jpeg_of(colourful(5, width=40, height=30))
    shop.store.put("returns/thumbnails/x.jpg", small)
    bad = quarantined("image_corrupt", "It is cut off.", thumbnail_key="returns/thumbnails/x.jpg")
    item = shop.arrive("a.jpg", data=b"\xff\xd8\xff broken", fate=bad)
    shop.run()
    seen = [{size: browse.photo(item.id, size).data for size in ImageSize}]
    ReviewService(shop.database, shop.store, labels={"returns": ("hat",)}, clock=shop.tick).label(item.id, "hat")
    seen.append({size: browse.photo(item.id, size).data for size in ImageSize})
    assert [{ImageSize.ORIGINAL: b"\xff\xd8\xff broken", ImageSize.VIEW: small, ImageSize.THUMBNAIL: small}] * 2 == seen


def test_a_photo_that_cannot_be_shown_is_an_error(shop: Shop, browse: BrowseService) -> None:
    """A quarantined item without a thumbnail, a file that is no photo, and a photo that was deleted."""
    aside = shop.arrive("a.jpg", fate=quarantined("image_corrupt", "It is cut off."))
    shop.run()
    hostile = shop.arrive("b.jpg", data=b"<html>")
    gone = shop.arrive("c.jpg")
    shop.store.delete(gone.key or "")
    for item, size in ((aside, ImageSize.VIEW), (hostile, ImageSize.THUMBNAIL), (gone, ImageSize.ORIGINAL)):
        with pytest.raises(ImageNotKept, match=item.id):
            browse.photo(item.id, size)


def test_a_record_leads_back_to_its_item(shop: Shop, browse: BrowseService) -> None:
    """Also where the same photo came by another channel; records of other channels have no item."""
    item = shop.arrive("a.jpg", fate=Fate(label="hat"))
    shop.run()
    with shop.database.reading() as tx:
        record = PredictionRepository(tx).get(shop.item(item).prediction_id or "")
    other = replace(record, id="0" * 26, channel="look")
    with shop.database.transaction() as tx:
        PredictionRepository(tx).add_many([other])
    assert {record.id: item.id} == {name: each.id for name, each in browse.of_records([record.id, other.id]).items()}


def test_the_items_of_a_run_are_those_that_it_counts(shop: Shop, browse: BrowseService) -> None:
    """Duplicates and files refused on arrival are shown with the run that came next, in pages both ways."""
    first = shop.arrive("a.jpg")
    again = shop.repeat(first, "again.jpg")
    refused = shop.refuse("b.jpg")
    run = shop.run()
    shop.repeat(first, "once-more.jpg")
    shop.run()
    every = ItemFilter(run_id=run.id)
    newest = browse.items(every, limit=2)
    rest = browse.items(every, limit=2, before=newest.older)
    assert 4 == len(newest.items) + len(rest.items)
    assert {first.id, again.id, refused.id} < {item.id for item in [*newest.items, *rest.items]}
    assert newest.items == browse.items(every, limit=2, after=rest.newer).items
    quarantined_here = browse.items(ItemFilter(run_id=run.id, state=ItemState.QUARANTINED))
    assert [refused.id] == [item.id for item in quarantined_here.items]


def test_progress_goes_from_nothing_to_one(shop: Shop, browse: BrowseService) -> None:
    """Derived from what was planned and what is left; a run that ended is complete."""
    for number in range(4):
        shop.arrive(f"{number}.jpg")
    run = shop.run(limit=3, end=False)
    active = browse.run(run.id)
    assert (3, 0.75) == (active.settled, active.progress)
    assert 1.0 == replace(active, run=replace(active.run, state=RunState.FINISHED)).progress
    assert 0.0 == replace(active, run=replace(active.run, planned=0)).progress


def test_the_items_of_a_run_that_is_not_there_are_not_an_empty_page(browse: BrowseService) -> None:
    """A mistyped id is an error."""
    with pytest.raises(RunNotFound):
        browse.items(ItemFilter(run_id="0" * 26))
