"""A correction takes effect at once and completely, and the last one wins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest

from shoplens.batch.browse import open_photo
from shoplens.batch.entities import HOPELESS, BatchItem, ItemFilter, ItemState, RunOwner
from shoplens.batch.files import MovedPhotos, finish_moves
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review import ItemAnswer, ReviewService
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import (
    BlobNotFound,
    ItemChanged,
    ItemNotFound,
    ItemNotReady,
    RequestInvalid,
    RunNotFound,
    StorageUnavailable,
)
from shoplens.predictions.entities import Answer, Feedback, FeedbackValue
from shoplens.predictions.feedback import NewFeedback
from shoplens.predictions.image_store import ImageSize, ImageStore
from shoplens.predictions.records import RecordService
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.telemetry.metrics import Metrics
from tests.relabel import relabel
from tests.unit.batch.batch_house import MoodyStore, away
from tests.unit.batch.results_shop import LIMITS, Fate, Shop, needing_review, quarantined

LABELS = ("coat", "dress", "hat", "shoes")


@pytest.fixture
def review(shop: Shop) -> ReviewService:
    """For a model of four labels."""
    return ReviewService(shop.database, shop.store, labels={"returns": LABELS}, clock=shop.tick)


def remarks_on(database: Database, item: BatchItem) -> list[Feedback]:
    """What was said of an item's prediction, oldest first."""
    with database.reading() as tx:
        prediction_id = ItemRepository(tx).get(item.id).prediction_id or ""
        return FeedbackRepository(tx).for_predictions([prediction_id]).get(prediction_id, [])


def settled(shop: Shop, fate: Fate) -> BatchItem:
    """An item that a run has processed."""
    item = shop.arrive(f"{shop.count}.jpg", fate=fate)
    shop.run()
    return shop.item(item)


def test_a_correction_changes_the_item_the_record_and_the_place(shop: Shop, review: ReviewService) -> None:
    """The item is done with the new label, the remark is there to be learned from, the photo lies by category."""
    item = settled(shop, needing_review("dress", 0.4))
    photo = shop.store.get(item.key or "")
    after = review.label(item.id, " hat ")
    place = f"returns/processed/hat/{item.id}-0.r1.jpg"
    assert (ItemState.DONE, "hat", "dress", place, None) == (
        after.state, after.label, after.predicted, after.key, after.target_key,
    )  # fmt: skip
    assert shop.now == after.corrected_at
    assert (photo, False) == (shop.store.get(place), shop.store.exists(item.key or ""))
    with shop.database.reading() as tx:
        assert place == PredictionRepository(tx).get(item.prediction_id or "").image_key
    assert [(FeedbackValue.WRONG, "hat")] == [(said.verdict, said.label) for said in remarks_on(shop.database, item)]


def test_an_item_of_a_channel_that_moderates_gets_no_answer(shop: Shop) -> None:
    """Its file belongs to a photo of moderation: moved, neither moderators nor an erasure would find it."""
    review = ReviewService(shop.database, shop.store, labels={}, clock=shop.tick, moderated={"returns"})
    item = settled(shop, needing_review("dress", 0.4))
    failed = settled(shop, quarantined("image_unreadable", "It is damaged."))
    refused = "on the page Moderation"
    with pytest.raises(ItemNotReady, match=refused):
        review.confirm(item.id)
    with pytest.raises(ItemNotReady, match=refused):
        review.answer(failed.id, ItemAnswer(answer=Answer.NOT_USABLE))
    with pytest.raises(ItemNotReady, match=refused):
        review.reopen(item.id)
    assert item.key == shop.item(item).key


def test_confirming_says_that_the_guess_was_right(shop: Shop, review: ReviewService) -> None:
    """An item that needs review is done then."""
    item = settled(shop, needing_review("dress", 0.4))
    after = review.confirm(item.id)
    assert (ItemState.DONE, "dress") == (after.state, after.label)
    assert (after.key or "").startswith("returns/processed/dress/")
    assert [(FeedbackValue.RIGHT, "dress")] == [(said.verdict, said.label) for said in remarks_on(shop.database, item)]


def test_the_last_word_counts_and_the_first_guess_undoes(shop: Shop, review: ReviewService) -> None:
    """Every word is remembered in its order; saying the same twice is one word."""
    item = settled(shop, Fate(label="dress"))
    for label in ("hat", "hat", "coat", "dress"):
        after = review.label(item.id, label)
    assert "dress" == after.label
    assert f"returns/processed/dress/{item.id}-0.r3.jpg" == after.key
    said = [(remark.verdict, remark.label) for remark in remarks_on(shop.database, item)]
    assert [(FeedbackValue.WRONG, "hat"), (FeedbackValue.WRONG, "coat"), (FeedbackValue.RIGHT, "dress")] == said


def test_a_quarantined_item_can_be_labelled(shop: Shop, review: ReviewService) -> None:
    """A person may read what no decoder could. There is no prediction that could be right or wrong."""
    item = settled(shop, quarantined("image_corrupt", "It is cut off."))
    after = review.label(item.id, "hat")
    assert (ItemState.DONE, "hat", "image_corrupt") == (after.state, after.label, after.failure_code)
    assert shop.store.exists(after.key or "")
    with shop.database.reading() as tx:
        assert [] == FeedbackRepository(tx).page(limit=1_000)


def test_an_item_without_a_photo_can_be_named_too(shop: Shop, review: ReviewService) -> None:
    """There is nothing to move then."""
    item = shop.arrive("a.jpg", fate=quarantined("image_gone", "It is not there any more."))
    shop.store.delete(item.key or "")
    shop.run()
    after = review.label(item.id, "hat")
    assert (ItemState.DONE, "hat", None) == (after.state, after.label, after.target_key)


def test_only_known_categories_are_taken(shop: Shop, review: ReviewService) -> None:
    """Those of the model, and those that items have from a former one; the refusal names them."""
    item = settled(shop, Fate(label="dungarees"))
    other = settled(shop, Fate(label="dress"))
    assert ("coat", "dress", "dungarees", "hat", "shoes") == review.labels("returns")
    assert "dungarees" == review.label(other.id, "dungarees").label
    for unknown in ("hta", "", "  ", "hat\nshoes", "x" * 1000, "DRESS"):
        with pytest.raises(RequestInvalid, match="coat, dress, dungarees, hat, shoes"):
            review.label(item.id, unknown)
    assert "dungarees" == shop.item(item).label


def test_items_that_no_run_is_through_with_are_refused(shop: Shop, review: ReviewService) -> None:
    """Waiting, worked on, or a duplicate, whose original is named."""
    waiting = shop.arrive("a.jpg")
    again = shop.repeat(waiting, "b.jpg")
    with pytest.raises(ItemNotReady, match="waiting"):
        review.label(waiting.id, "hat")
    with pytest.raises(ItemNotReady, match=waiting.id):
        review.confirm(again.id)
    run = shop.request()
    me = RunOwner(id="o" * 26, host="here", pid=1)
    with shop.database.transaction() as tx:
        RunRepository(tx).take_over(run, me, now=shop.now)
        ItemRepository(tx).lease("returns", owner=me.id, run_id=run.id, bound=run.bound, limit=1)
    with pytest.raises(ItemNotReady, match="processing"):
        review.label(waiting.id, "hat")
    with pytest.raises(ItemNotReady, match="processing"):
        review.retry(waiting.id)
    with pytest.raises(ItemNotFound):
        review.label("nix", "hat")


def test_what_has_no_guess_cannot_be_confirmed(shop: Shop, review: ReviewService) -> None:
    """Somebody has to Choose a label."""
    item = settled(shop, quarantined("image_corrupt", "It is cut off."))
    with pytest.raises(ItemNotReady, match="Choose a label"):
        review.confirm(item.id)


def test_a_move_that_was_outstanding_is_finished_first(shop: Shop, review: ReviewService) -> None:
    """As after a crash between a commit and its moves: nothing is lost, wherever the photo had got."""
    items = [settled(shop, Fate(label="dress")) for _ in range(2)]
    photos = [shop.store.get(item.key or "") for item in items]
    with shop.database.transaction() as tx:
        for item in items:
            relabel(tx, item.id, label="coat", target_key=f"returns/processed/coat/{item.id}.jpg", now=shop.now)
    shop.store.move(items[1].key or "", f"returns/processed/coat/{items[1].id}.jpg")
    after = [review.label(item.id, "hat") for item in items]
    assert photos == [shop.store.get(item.key or "") for item in after]
    assert [f"returns/processed/hat/{item.id}.r1.jpg" for item in items] == [item.key for item in after]
    assert [] == list(shop.store.list("returns/processed/coat"))


def test_concurrent_corrections_end_with_one_answer(shop: Shop, review: ReviewService) -> None:
    """Row, record and photo agree at the end, while another thread finishes moves like a run."""
    items = [settled(shop, Fate(label="dress")) for _ in range(3)]
    photos = {item.id: shop.store.get(item.key or "") for item in items}
    stop = threading.Event()

    def mover() -> None:
        while not stop.is_set():
            finish_moves(shop.database, shop.store, "returns")

    def correct(label: str) -> None:
        for item in items:
            try:
                review.label(item.id, label)
            except ItemNotReady:
                continue

    with ThreadPoolExecutor(5) as people:
        moving = people.submit(mover)
        for each in [people.submit(correct, label) for label in ("hat", "coat", "shoes", "dress") for _ in range(3)]:
            each.result()
        stop.set()
        moving.result()
    finish_moves(shop.database, shop.store, "returns")
    for item in map(shop.item, items):
        assert (ItemState.DONE, None, None) == (item.state, item.target_key, item.failure_code)
        assert photos[item.id] == shop.store.get(item.key or "")
        assert f"returns/processed/{item.label}/" in (item.key or "")
        with shop.database.reading() as tx:
            assert item.key == PredictionRepository(tx).get(item.prediction_id or "").image_key
        assert item.label == remarks_on(shop.database, item)[-1].label
    assert 3 == len(list(shop.store.list("returns/processed")))


def test_a_late_move_changes_nothing(shop: Shop, review: ReviewService) -> None:
    """A list of moves from before two corrections is done again afterwards: the photo stays where the row says."""
    item = settled(shop, Fate(label="dress"))
    photo = shop.store.get(item.key or "")
    places = [item.key or ""] + [review.label(item.id, label).key or "" for label in ("hat", "dress", "hat")]
    for source, target in pairwise(places[:-1]):
        with pytest.raises(BlobNotFound):
            shop.store.move(source, target)
    shop.store.move(places[-2], places[-1])
    assert (photo, places[-1]) == (shop.store.get(places[-1]), shop.item(item).key)
    assert 4 == len(set(places))


def test_another_try_is_a_new_item_and_the_finished_run_keeps_its_own(shop: Shop, review: ReviewService) -> None:
    """With its attempts forgotten and the photo where it is; duplicates and pages find the photo."""
    item = settled(shop, quarantined("image_decoder_failed", "It ran out of time."))
    again = shop.repeat(item, "again.jpg")
    waiting = review.retry(item.id)
    left = shop.item(item)
    assert (ItemState.WAITING, 0, None, None, item.key) == (
        waiting.state, waiting.attempts, waiting.run_id, waiting.failure_code, waiting.key,
    )  # fmt: skip
    assert (ItemState.QUARANTINED, item.run_id, "image_decoder_failed", waiting.id, None) == (
        left.state, left.run_id, left.failure_code, left.retried_as, left.key,
    )  # fmt: skip
    assert waiting.id == shop.item(again).duplicate_of
    shop.fates[waiting.id] = Fate(label="hat")
    run = shop.run()
    done = shop.item(waiting)
    assert (ItemState.DONE, "hat", run.id) == (done.state, done.label, done.run_id)
    photos = [open_photo(shop.database, shop.images, each.id, ImageSize.ORIGINAL).data for each in (item, again, done)]
    assert [shop.store.get(done.key or "")] * 3 == photos
    for other in (item.id, waiting.id):
        with pytest.raises(ItemNotReady):
            review.retry(other)
    with pytest.raises(ItemNotReady, match=waiting.id):
        review.label(item.id, "hat")


def test_what_no_run_accounts_for_yet_waits_itself(shop: Shop, review: ReviewService) -> None:
    """A file that was refused on arrival is received once, whatever is tried again."""
    shop.run()
    refused = shop.refuse(code="image_too_large")
    assert refused.id == review.retry(refused.id).id
    run = shop.run()
    with shop.database.reading() as tx:
        assert 2 == ItemRepository(tx).counts(run).received


@pytest.mark.parametrize("code", sorted(HOPELESS))
def test_a_file_that_is_broken_itself_is_not_tried_again(shop: Shop, review: ReviewService, code: str) -> None:
    """Neither alone nor with all others."""
    item = settled(shop, quarantined(code, "It is cut off."))
    with pytest.raises(ItemNotReady, match="Dismiss the file"):
        review.retry(item.id)
    assert 0 == review.retry_all("returns")
    assert ItemState.QUARANTINED is shop.item(item).state


def test_all_can_be_tried_again_or_those_of_one_run(shop: Shop, review: ReviewService) -> None:
    """With a run, also the files that were refused when they arrived for it."""
    bad = quarantined("image_decoder_failed", "It ran out of time.")
    early = settled(shop, bad)
    shop.refuse(code="image_too_large")
    late = settled(shop, bad)
    run_id = late.run_id or ""
    with pytest.raises(RunNotFound):
        review.retry_all("returns", "nix")
    assert 2 == review.retry_all("returns", run_id)
    assert (None, True) == (shop.item(early).retried_as, shop.item(late).retried_as is not None)
    assert 1 == review.retry_all("returns")
    assert 0 == review.retry_all("returns")


ANSWERS = [
    ItemAnswer(answer=Answer.CONFIRMED),
    ItemAnswer(answer=Answer.CORRECTED, label="hat"),
    ItemAnswer(answer=Answer.NONE_OF_THESE, proposed="scarf"),
    ItemAnswer(answer=Answer.NOT_USABLE),
]


@pytest.mark.parametrize("given", ANSWERS, ids=lambda given: given.answer.value)
@pytest.mark.parametrize("fate", [needing_review("dress", 0.4), Fate(label="dress")], ids=["needs review", "accepted"])
def test_an_answer_is_withdrawn_completely(shop: Shop, review: ReviewService, fate: Fate, given: ItemAnswer) -> None:
    """State, label and place are as the run left them, and no training sees the answer; it can be given again."""
    item = settled(shop, fate)
    photo = shop.store.get(item.key or "")
    review.answer(item.id, given)
    assert 1 == len(remarks_on(shop.database, item))
    after = review.reopen(item.id)
    assert (item.state, "dress", None, None, None) == (
        after.state, after.label, after.answer, after.corrected_at, after.proposed,
    )  # fmt: skip
    assert (item.key or "").rpartition("/")[0] == (after.key or "").rpartition("/")[0]
    assert photo == shop.store.get(after.key or "")
    assert [] == remarks_on(shop.database, item)
    with shop.database.reading() as tx:
        assert [] == FeedbackRepository(tx).page(limit=10)
        assert after.key == PredictionRepository(tx).get(item.prediction_id or "").image_key
    again = review.answer(item.id, given)
    assert (given.answer, 1) == (again.answer, len(remarks_on(shop.database, item)))


def test_a_quarantined_item_that_is_reopened_says_why_again(shop: Shop, review: ReviewService) -> None:
    """After a label, and after it was dismissed."""
    item = settled(shop, quarantined("image_decoder_failed", "It ran out of time."))
    for given in (ItemAnswer(answer=Answer.CORRECTED, label="hat"), ItemAnswer(answer=Answer.NOT_USABLE)):
        review.answer(item.id, given)
        after = review.reopen(item.id)
        assert (ItemState.QUARANTINED, "image_decoder_failed", "It ran out of time.", None, True) == (
            after.state, after.failure_code, after.failure, after.label, after.retriable,
        )  # fmt: skip
        assert (after.key or "").startswith("returns/quarantine/")


def test_a_withdrawal_that_a_crash_cut_short_is_finished_later(shop: Shop, review: ReviewService) -> None:
    """The row is committed first, so the photo follows with the next start, or the next answer."""
    item = settled(shop, needing_review("dress", 0.4))
    photo = shop.store.get(item.key or "")
    review.label(item.id, "hat")
    broken = ReviewService(
        shop.database, MoodyStore(shop.store, away(1, "move")), labels={"returns": LABELS}, clock=shop.tick
    )
    with pytest.raises(StorageUnavailable):
        broken.reopen(item.id)
    half = shop.item(item)
    assert (ItemState.NEEDS_REVIEW, True) == (half.state, half.target_key is not None)
    assert [] == remarks_on(shop.database, item)
    assert 1 == finish_moves(shop.database, shop.store, "returns")
    after = shop.item(item)
    assert (None, photo) == (after.target_key, shop.store.get(after.key or ""))
    assert (after.key or "").startswith("returns/needs_review/dress/")


def test_what_nobody_reviewed_cannot_be_reopened(shop: Shop, review: ReviewService) -> None:
    """There is nothing to withdraw."""
    item = settled(shop, Fate())
    with pytest.raises(ItemNotReady, match="Nobody has reviewed"):
        review.reopen(item.id)


def test_none_of_the_categories_is_never_a_label(shop: Shop, review: ReviewService) -> None:
    """The photo has no category; what is missing is collected."""
    item = settled(shop, needing_review("dress", 0.4))
    after = review.answer(item.id, ItemAnswer(answer=Answer.NONE_OF_THESE, proposed=" scarf "))
    assert (ItemState.DONE, None, "scarf") == (after.state, after.label, after.proposed)
    assert (after.key or "").startswith("returns/processed/none-of-these/")
    (remark,) = remarks_on(shop.database, item)
    assert (FeedbackValue.NONE, None, "scarf") == (remark.verdict, remark.label, remark.proposed)
    with shop.database.reading() as tx:
        assert [] == ItemRepository(tx).labels("returns")
        assert [("scarf", 1)] == ReviewRepository(tx).count_proposed(item.run_id or "", 5)
        assert {Answer.NONE_OF_THESE: 1} == ReviewRepository(tx).count_answers(item.run_id or "")


def test_a_photo_that_is_not_usable_is_dismissed(shop: Shop, review: ReviewService) -> None:
    """It is counted as such, and its run adds up as before."""
    item = settled(shop, needing_review("dress", 0.4))
    after = review.answer(item.id, ItemAnswer(answer=Answer.NOT_USABLE))
    assert (ItemState.DISMISSED, None) == (after.state, after.label)
    assert (after.key or "").startswith("returns/dismissed/")
    with shop.database.reading() as tx:
        counts = ItemRepository(tx).counts(RunRepository(tx).get(item.run_id or ""))
    assert (1, 1) == (counts.received, counts[ItemState.DISMISSED])


def test_a_quarantined_file_is_deleted_for_ever(shop: Shop, review: ReviewService) -> None:
    """The row stays, so that the run adds up; there is nothing to reopen."""
    item = settled(shop, quarantined("image_corrupt", "It is cut off."))
    good = settled(shop, Fate())
    after = review.delete(item.id)
    assert (ItemState.DISMISSED, None, False) == (after.state, after.key, shop.store.exists(item.key or ""))
    with pytest.raises(ItemNotReady, match="deleted"):
        review.reopen(item.id)
    with pytest.raises(ItemNotReady, match="only quarantined"):
        review.delete(good.id)
    assert shop.store.exists(good.key or "")


def test_a_deletion_that_a_crash_cut_short_is_repeated(shop: Shop, review: ReviewService) -> None:
    """The photo goes first, so the item is still there to be deleted."""
    item = settled(shop, quarantined("image_corrupt", "It is cut off."))
    shop.store.delete(item.key or "")
    assert ItemState.DISMISSED is review.delete(item.id).state


def test_the_second_of_two_people_is_told(shop: Shop, review: ReviewService) -> None:
    """Who looked at an earlier state changes nothing, unless both said the same."""
    item = settled(shop, needing_review("dress", 0.4))
    mine = review.label(item.id, "hat", seen=item.revision, by="a" * 32)
    with pytest.raises(ItemChanged, match='Somebody else answered it meanwhile: corrected, "hat"'):
        review.label(item.id, "coat", seen=item.revision, by="b" * 32)
    with pytest.raises(ItemChanged, match="in this browser"):
        review.reopen(item.id, seen=item.revision, by="a" * 32)
    assert mine == review.label(item.id, "hat", seen=item.revision, by="b" * 32)
    assert "coat" == review.label(item.id, "coat", seen=mine.revision, by="b" * 32).label
    assert 2 == len(remarks_on(shop.database, item))


def records_of(shop: Shop, review: ReviewService) -> RecordService:
    """The service behind the pages of records, over the same shop."""
    return RecordService(shop.database, clock=shop.tick, metrics=Metrics(), settle=review.settle)


@pytest.mark.parametrize(
    ("verdict", "label", "state", "answer", "stored"),
    [
        (FeedbackValue.RIGHT, None, ItemState.DONE, Answer.CONFIRMED, "dress"),
        (FeedbackValue.WRONG, "hat", ItemState.DONE, Answer.CORRECTED, "hat"),
        (FeedbackValue.WRONG, "scarf", ItemState.DONE, Answer.NONE_OF_THESE, None),
        (FeedbackValue.NONE, None, ItemState.DONE, Answer.NONE_OF_THESE, None),
        (FeedbackValue.UNUSABLE, None, ItemState.DISMISSED, Answer.NOT_USABLE, None),
        (FeedbackValue.WRONG, None, ItemState.NEEDS_REVIEW, None, "dress"),
    ],
)
@pytest.mark.parametrize("fate", [needing_review("dress", 0.4), Fate(label="dress")], ids=["needs review", "accepted"])
def test_what_is_said_of_a_record_settles_its_item(
    shop: Shop, review: ReviewService, fate: Fate, verdict: FeedbackValue, label: str | None, state: ItemState,
    answer: Answer | None, stored: str | None,
) -> None:  # fmt: skip
    """With one row of feedback; a category that the model does not have is proposed."""
    item = settled(shop, fate)
    new = NewFeedback(prediction_id=item.prediction_id or "", verdict=verdict, label=label, comment="so", seen="")
    given = records_of(shop, review).give_feedback(new)
    after = shop.item(item)
    assert (state, answer, stored) == (after.state, after.answer, after.label)
    assert [given] == remarks_on(shop.database, item)
    assert ("so", "scarf" if label == "scarf" else None) == (given.comment, given.proposed)


def test_two_answers_on_a_record_are_not_mixed_up(shop: Shop, review: ReviewService) -> None:
    """The second person, who has not seen the first answer, gets an error; also between record page and gallery."""
    item = settled(shop, needing_review("dress", 0.4))
    review.confirm(item.id)
    new = NewFeedback(prediction_id=item.prediction_id or "", verdict=FeedbackValue.WRONG, label="hat", seen="")
    with pytest.raises(ItemChanged, match="correct"):
        records_of(shop, review).give_feedback(new)
    assert ("dress", 1) == (shop.item(item).label, len(remarks_on(shop.database, item)))


def test_the_pages_of_records_follow_a_correction(shop: Shop, review: ReviewService) -> None:
    """Original and thumbnail of the record, before the photo moves, while it does, and after."""
    images = ImageStore(shop.store, limits=LIMITS, sandbox=shop.images._sandbox, moved_to=MovedPhotos(shop.database))
    item = settled(shop, needing_review("dress", 0.4))
    original = shop.store.get(item.key or "")

    def shown() -> tuple[bool, bool]:
        with shop.database.reading() as tx:
            record = PredictionRepository(tx).get(item.prediction_id or "")
        small = images.open_record(record, ImageSize.THUMBNAIL)
        return original == images.open_record(record, ImageSize.ORIGINAL).data, "image/jpeg" == small.media_type

    seen = [shown()]
    target = f"returns/processed/hat/{item.id}.jpg"
    with shop.database.transaction() as tx:
        relabel(tx, item.id, label="hat", target_key=target, now=shop.now)
        PredictionRepository(tx).move_image(item.prediction_id or "", target)
    seen.append(shown())
    finish_moves(shop.database, shop.store, "returns")
    seen.append(shown())
    review.label(item.id, "coat")
    seen.append(shown())
    assert [(True, True)] * 4 == seen


def test_corrections_are_found_by_their_new_label(shop: Shop, review: ReviewService) -> None:
    """Filters see what a person said."""
    item = settled(shop, needing_review("dress", 0.4))
    review.label(item.id, "hat")
    with shop.database.reading() as tx:
        found = ItemRepository(tx).page(ItemFilter(run_id=item.run_id, label="hat"), limit=10)
    assert [item.id] == [each.id for each in found]


def test_all_of_a_filter_are_confirmed_in_one_act_and_taken_back(
    shop: Shop, review: ReviewService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another person answered, another label, and what came later are left; a later change survives the undo."""
    items = [shop.arrive(f"{number}.jpg", fate=needing_review("dress", 0.4)) for number in range(12)]
    monkeypatch.setattr("shoplens.batch.review._ONE_STEP", 5)
    hat = shop.arrive("hat.jpg", fate=needing_review("hat", 0.4))
    run = shop.run()
    shown_at = shop.now
    wanted = ItemFilter(run_id=run.id, state=ItemState.NEEDS_REVIEW, label="dress")
    assert 12 == review.count_to_confirm(wanted, completed_by=shown_at)
    assert 0 == review.count_to_confirm(wanted, completed_by=shown_at - timedelta(days=1))
    review.label(items[7].id, "coat", by="another")
    done = review.confirm_all(wanted, completed_by=shown_at, by="mine")
    assert (11, 0) == (done.items, review.count_to_confirm(wanted, completed_by=shown_at))
    after = [shop.item(item) for item in items]
    assert {(ItemState.DONE, Answer.CONFIRMED, "dress", "mine", done.moment)} == {
        (item.state, item.answer, item.label, item.answered_by, item.corrected_at) for item in after[:7] + after[8:]
    }
    assert (Answer.CORRECTED, "coat", "another") == (after[7].answer, after[7].label, after[7].answered_by)
    assert ItemState.NEEDS_REVIEW is shop.item(hat).state
    assert all(item.target_key is None and shop.store.exists(item.key or "") for item in after)
    assert [(FeedbackValue.RIGHT, "dress")] == [
        (said.verdict, said.label) for said in remarks_on(shop.database, items[0])
    ]

    review.label(items[0].id, "shoes", by="another")
    assert 0 == review.withdraw_all(run.id, done.moment, by="another")
    assert 10 == review.withdraw_all(run.id, done.moment, by="mine")
    states = [shop.item(item).state for item in items]
    assert (ItemState.DONE, ItemState.DONE) == (states[0], states[7])
    assert {ItemState.NEEDS_REVIEW} == {*states[1:7], *states[8:]}
    assert [] == remarks_on(shop.database, items[1])
    assert all(shop.store.exists(shop.item(item).key or "") for item in items)
