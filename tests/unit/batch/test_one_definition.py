"""Every place that tells what became of a run tells the same, whatever people do; a finished run is frozen."""

from __future__ import annotations

import random
import re
from collections import Counter
from contextlib import suppress

import orjson
import pytest

from shoplens.batch.api import RunCountsOut
from shoplens.batch.browse import BrowseService
from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState
from shoplens.batch.export import ExportFormat, ExportItems
from shoplens.batch.presenting import count_words, progress_words
from shoplens.batch.report import WriteReport
from shoplens.batch.review import ItemAnswer, ReviewService
from shoplens.batch.status import ReadStatus, as_json, show
from shoplens.errors import ItemNotReady
from shoplens.predictions.entities import Answer
from shoplens.telemetry.metrics import Metrics
from tests.unit.batch.results_shop import Fate, Shop, needing_review, quarantined, retention_job

FATES = (
    Fate(),
    Fate(label="hat"),
    needing_review("dress", 0.4),
    quarantined("image_corrupt", "It is cut off."),
    quarantined("image_decoder_failed", "It ran out of time."),
)
Numbers = dict[ItemState, int]


def numbers_of_table(shop: Shop, run: BatchRun) -> Numbers:
    """Counted row by row in the export."""
    lines = b"".join(ExportItems(shop.database).stream(ItemFilter(run_id=run.id), ExportFormat.JSONL)).splitlines()
    return Counter(ItemState(orjson.loads(line)["state"]) for line in lines)


def numbers_of_gallery(browse: BrowseService, run: BatchRun) -> Numbers:
    """Counted tile by tile."""
    return Counter(item.state for item in browse.items(ItemFilter(run_id=run.id), limit=200).items)


def numbers_of_report(report: WriteReport, run: BatchRun) -> tuple[int, Numbers]:
    """What the headline says."""
    html = report.render(run.id)
    found = re.search(r'<h1 id="headline">(.*?)</h1>', html)
    assert found
    assert 'data-accounted="yes"' in html
    received, _, rest = found[1].removesuffix(".").partition(" received: ")
    words = {
        "done": ItemState.DONE, "needs review": ItemState.NEEDS_REVIEW, "need review": ItemState.NEEDS_REVIEW,
        "quarantined": ItemState.QUARANTINED, "dismissed": ItemState.DISMISSED, "duplicate": ItemState.DUPLICATE,
        "duplicates": ItemState.DUPLICATE,
    }  # fmt: skip
    parts = [each.partition(" ") for each in rest.split(", ")]
    return int(received.split()[0]), {words[name]: int(number) for number, _, name in parts}


def numbers_of_metrics(shop: Shop, run: BatchRun) -> Numbers:
    """The gauges of the server, which show the last run."""
    metrics = Metrics()
    show("returns", ReadStatus(shop.database, clock=shop.clock, takeover_s=60)("returns"), metrics)
    value = metrics.registry.get_sample_value
    labels = [{"channel": "returns", "state": state.value} for state in ItemState]
    return {
        ItemState(each["state"]): int(value("shoplens_batch_run_items", each) or 0) for each in labels
    }  # fmt: skip


def compare_all(shop: Shop, browse: BrowseService, run: BatchRun, *, is_last: bool) -> tuple[int, Numbers]:
    """The numbers of a run, which all places must agree on."""
    view = browse.run(run.id)
    expected = {state: view.counts[state] for state in ItemState if view.counts[state]}
    received = sum(expected.values())
    assert expected == numbers_of_table(shop, run) == numbers_of_gallery(browse, run)
    (listed,) = [each for each in browse.runs("returns") if each.run.id == run.id]
    assert expected == {state: number for state, number in listed.counts.by_state.items() if number}
    said, reported = numbers_of_report(WriteReport(shop.database, shop.store, shop.images, clock=shop.clock), run)
    assert (received, expected) == (said, {state: number for state, number in reported.items() if number})
    words = progress_words(view)
    assert [str(received), *(str(view.counts[each]) for each in ItemState)] == [
        words["received"], *(words[each.value] for each in ItemState),
    ]  # fmt: skip
    assert view.counts.by_state == {ItemState(k): v for k, v in RunCountsOut.of(view.counts).model_dump().items() if v}
    if is_last:
        status = ReadStatus(shop.database, clock=shop.clock, takeover_s=60)("returns")
        facts = as_json(status)["run"]
        assert isinstance(facts, dict)
        assert (received, expected) == (
            facts["received"], {ItemState(state): number for state, number in facts["counts"].items() if number},
        )  # fmt: skip
        assert count_words(status).startswith(f"Received {received}: ")
        assert received == sum(map(int, re.findall(r"(\d+) [a-z]", count_words(status).partition(": ")[2])))
        assert expected == {state: number for state, number in numbers_of_metrics(shop, run).items() if number}
    return received, expected


def random_run(shop: Shop, dice: random.Random) -> BatchRun:
    """Photos, duplicates and refused files arrive, and a run processes them."""
    arrived = [shop.arrive(f"{shop.count}.jpg", fate=dice.choice(FATES)) for _ in range(dice.randint(2, 8))]
    for item in dice.sample(arrived, dice.randint(0, 2)):
        shop.repeat(item, f"again-{shop.count}-{item.id}.jpg")
    for _ in range(dice.randint(0, 2)):
        shop.refuse(f"{shop.count}.jpg", code=dice.choice(["image_missing", "image_too_large"]))
    return shop.run()


def review_something(review: ReviewService, items: list[BatchItem], dice: random.Random) -> None:
    """What people do with items of any run; what is impossible is refused."""
    item_id = dice.choice(items).id
    acts = (
        lambda: review.confirm(item_id),
        lambda: review.label(item_id, "hat"),
        lambda: review.answer(item_id, ItemAnswer(answer=Answer.NONE_OF_THESE, proposed="scarf")),
        lambda: review.answer(item_id, ItemAnswer(answer=Answer.NOT_USABLE)),
        lambda: review.reopen(item_id),
        lambda: review.retry(item_id),
        lambda: review.delete(item_id),
        lambda: review.retry_all("returns"),
    )
    with suppress(ItemNotReady):
        dice.choice(acts)()


@pytest.mark.parametrize("seed", range(6))
def test_all_places_agree_and_finished_runs_keep_their_sums(shop: Shop, seed: int) -> None:
    """After runs with failures and duplicates, and days of answers, withdrawals, retries, deletions and retention."""
    dice = random.Random(seed)
    review = ReviewService(shop.database, shop.store, labels={"returns": ("dress", "hat")}, clock=shop.tick)
    browse = BrowseService(shop.database, shop.images, clock=shop.clock)
    sums: dict[str, int] = {}
    runs: list[BatchRun] = []
    for _ in range(3):
        runs.append(random_run(shop, dice))
        for _ in range(12):
            review_something(review, browse.items(ItemFilter(), limit=200).items, dice)
        retention_job(shop, days=0 if dice.random() < 0.5 else 1).run()
        for run in runs:
            received, _ = compare_all(shop, browse, run, is_last=run is runs[-1])
            assert received == sums.setdefault(run.id, received)
    shop.arrive("last.jpg")
    runs.append(shop.run())
    last = [compare_all(shop, browse, run, is_last=run is runs[-1])[0] for run in runs]
    assert [sums[run.id] for run in runs[:-1]] == last[:-1]
    assert sum(last) == sum(numbers_of_all(shop).values())


def numbers_of_all(shop: Shop) -> Numbers:
    """Counted in the whole table."""
    lines = b"".join(ExportItems(shop.database).stream(ItemFilter(), ExportFormat.JSONL)).splitlines()
    return Counter(ItemState(orjson.loads(line)["state"]) for line in lines)
