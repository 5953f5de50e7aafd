"""The page Monitoring: ranges and channels as links, gaps that say so, on a phone and without a script."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from playwright.sync_api import expect

from shoplens.db import open_database
from shoplens.monitoring.series.entities import Counts, MinuteReading, Range, SeriesKey, ServerState
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S
from tests.acceptance.browser.conftest import VisitMaker
from tests.conftest import RunningServer

PART_S = Range.DAY.value.bucket_s
SEEN = [*range(40, 52), *range(56, 70)]
"""Parts ago in which somebody looked: hours before the server of the tests began to write its own."""


@pytest.fixture(scope="module")
def last_part_s(shop: RunningServer) -> int:
    """When the part began to whose past figures were added, by another process of the shop."""
    now_s = int(time.time()) // PART_S * PART_S
    latency = (0, 0, 2, 38, *(0,) * (len(LATENCY_BUCKETS_S) - 3))
    busy = Counts(answered=40, accepted=30, to_review=10, busy=3, latency=latency, latency_sum_s=0.6)
    counts = {SeriesKey("returns", "clothing"): busy, SeriesKey("look", "efficientnet-lite0-int8"): busy}
    readings = [MinuteReading(begins_s=now_s - PART_S * ago, counts=counts, state=ServerState(queue=2)) for ago in SEEN]
    database = open_database(f"sqlite:///{shop.data_dir / 'shoplens.db'}")
    with database.transaction() as tx:
        SeriesRepository(tx).add(readings)
    database.close()
    return now_s


@pytest.mark.parametrize("script", [True, False])
def test_a_range_and_a_channel_are_chosen_by_links(visit: VisitMaker, last_part_s: int, script: bool) -> None:
    """The charts have their numbers as a table, in which parts that nobody saw have none; also at 320 pixels."""
    page = visit(viewport={"width": 320, "height": 700}, java_script_enabled=script).page("/console/records")
    page.get_by_role("link", name="Monitoring").first.click()
    ranges = page.get_by_role("navigation", name="Range")
    ranges.get_by_role("link", name="1 hour").click()
    page.get_by_role("navigation", name="Channel").get_by_role("link", name="Returns").click()
    expect(ranges.get_by_role("link", name="1 hour")).to_have_attribute("aria-current", "true")
    ranges.get_by_role("link", name="24 hours").click()
    requests = page.locator("figure", has_text="Busy: no room or no time")
    expect(requests.locator("svg").first).to_be_visible()
    requests.get_by_text("Numbers").click()
    for ago, words in ((45, "40"), (53, "no data")):
        label = f"{datetime.fromtimestamp(last_part_s - PART_S * ago, UTC):%Y-%m-%d %H:%M}"
        row = requests.get_by_role("row", name=label)
        expect(row).to_be_visible()
        expect(row.get_by_role("cell").first).to_have_text(words)
    width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1]
