"""What the page shows: ranges with their gaps, days, runs, and what is live since when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database, open_database
from shoplens.errors import StorageUnavailable
from shoplens.monitoring.series.charts import day_charts, run_charts, series_charts
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import (
    DAY_S,
    MINUTE_S,
    Counts,
    DayCounts,
    MinuteReading,
    Range,
    SeriesKey,
    ServerState,
)
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.monitoring.series.server_state import LookAtServer, StoredSize, size_of_folder
from shoplens.monitoring.series.service import LiveModels, ModelChange, MonitoringService
from shoplens.predictions.entities import Channel
from shoplens.registry.entities import HistoryEntry
from shoplens.registry.errors import RegistryUnavailable
from shoplens.registry.live import FollowedModel
from shoplens.telemetry.metrics import Metrics

NOW = datetime(2026, 5, 15, 12, 34, 56, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
RETURNS = SeriesKey("returns", "clothing")
CHANNELS = {
    name: Channel(name=name, model=model, title=name, question=name)
    for name, model in (("returns", "clothing"), ("look", "efficientnet@1.0.0"))
}
NO_MODELS = LiveModels(CHANNELS, followed=tuple, history=lambda _: ())


@pytest.fixture
def sqlite(database_file: Path) -> Iterator[Database]:
    """A new database; the queries are tested on both kinds in test_series.py."""
    opened = open_database(f"sqlite:///{database_file}")
    yield opened
    opened.close()


def service(database: Database, *, has_workers: bool = False) -> MonitoringService:
    """At the fixed time."""
    return MonitoringService(database, CHANNELS, NO_MODELS, has_workers=has_workers, clock=lambda: NOW)


def seen(ago: timedelta, answered: int = 0, **state: int) -> MinuteReading:
    """What was written down so long ago."""
    counts = {RETURNS: Counts(answered=answered)} if answered else {}
    at = int((NOW - ago).timestamp()) // MINUTE_S * MINUTE_S
    return MinuteReading(begins_s=at, counts=counts, state=ServerState(**state))


@pytest.mark.parametrize("wanted", Range)
def test_a_range_has_a_part_for_each_step_up_to_now(sqlite: Database, wanted: Range) -> None:
    """Those that nobody watched have no figures, and no zeros."""
    with sqlite.transaction() as tx:
        SeriesRepository(tx).add([seen(timedelta(0), 3, queue=7), seen(timedelta(minutes=200), 2), seen(timedelta(9))])
    view = service(sqlite).series(wanted)
    facts = wanted.value
    assert facts.seconds // facts.bucket_s == len(view.parts)
    last = view.parts[-1]
    assert last.begins_s <= NOW_S < last.begins_s + facts.bucket_s
    assert last.counts is not None
    assert 3 <= last.counts.answered <= 5
    missing = sum(part.counts is None for part in view.parts)
    watched = {"1h": 1, "24h": 2, "7d": 2, "90d": 2}[facts.name]
    assert len(view.parts) - watched == missing
    assert view.now == ServerState(queue=7)
    assert sum(part.counts.answered for part in view.parts if part.counts) == view.whole.answered
    charts = series_charts(view, [], has_workers=False)
    assert {"requests", "latency", "queue"} == charts.keys()
    for name in ("requests", "latency"):
        assert missing == sum(row[1] == "no data" for row in charts[name].rows)


def test_an_old_state_is_not_how_it_is_now(sqlite: Database) -> None:
    """The server was stopped ten minutes ago."""
    with sqlite.transaction() as tx:
        SeriesRepository(tx).add([seen(timedelta(minutes=10), 1, queue=7)])
    view = service(sqlite).series(Range.HOUR)
    assert (None, True) == (view.now, view.recorded)


def test_days_begin_with_the_first_record_and_have_real_zeros(sqlite: Database) -> None:
    """That nothing came on a day is known; shares of nothing are not."""
    today = NOW_S // DAY_S * DAY_S
    first = DayCounts(
        begins_s=today - 2 * DAY_S, channel="returns", predictions=8, to_review=2, confirmed=3, corrected=1
    )
    other = DayCounts(begins_s=today - 2 * DAY_S, channel="look", predictions=2, accepted=2)
    with sqlite.transaction() as tx:
        DayRepository(tx).replace(first.begins_s, [first, other], now=NOW)
    both, alone = service(sqlite).days(Range.HOUR), service(sqlite).days(Range.HOUR, "returns")
    assert [(10, 0.2, 0.75), (0, None, None), (0, None, None)] == [
        (each.counts.predictions, each.needed_person, each.agreement) for each in both
    ]
    assert 8 == alone[0].counts.predictions
    assert ("2026-05-14", "no data", "no data") == day_charts(both)["people"].rows[1]
    assert {} == day_charts(service(sqlite).days(Range.HOUR, "shoes"))


def test_what_is_live_comes_from_the_registry_as_long_as_it_answers() -> None:
    """A registry that is away afterwards changes nothing; a fixed version was never published."""
    became = HistoryEntry(
        at=NOW, by="anna", name="clothing", alias="champion", before="1", after="2", why="better", figures={}
    )
    away = False

    def history(name: str) -> list[HistoryEntry]:
        if away:
            raise RegistryUnavailable("gone")
        return [became]

    followed = FollowedModel(name="clothing", serving=ModelRef(name="clothing", version="2"))
    live = LiveModels(CHANNELS, followed=lambda: (followed,), history=history)
    assert [None, None] == [each.since for each in live.now()]
    live.refresh()
    away = True
    live.refresh()
    assert [("returns", "2", NOW), ("look", "1.0.0", None)] == [
        (each.channel, each.version, each.since) for each in live.now()
    ]
    change = ModelChange(at=NOW, model="clothing", version="2")
    assert ([change], [change], []) == (live.changes(""), live.changes("returns"), live.changes("look"))


def test_a_change_of_the_model_is_marked_where_it_happened(sqlite: Database) -> None:
    """And one before the range is not drawn at its edge."""
    with sqlite.transaction() as tx:
        SeriesRepository(tx).add([seen(timedelta(0), 1)])
    changes = [ModelChange(at=NOW - timedelta(minutes=minutes), model="clothing", version="2") for minutes in (30, 90)]
    chart = series_charts(service(sqlite).series(Range.HOUR), changes, has_workers=True)["latency"]
    ((x, name),) = chart.marks
    assert ("clothing 2 went live", True) == (name, 450 < x < 550)


def test_runs_are_drawn_from_two_on() -> None:
    """One column would say nothing."""
    assert {} == run_charts([])


def test_a_folder_is_measured_a_part_at_a_time(tmp_path: Path) -> None:
    """The last complete count stands until the next one is complete; a missing folder has nothing in it."""
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * 10)
    now = 0.0
    size = size_of_folder(tmp_path, at_once=3, monotonic=lambda: now)
    assert [None, 50, 50] == [size.look() for _ in range(3)]
    (tmp_path / "0.jpg").unlink()
    assert 50 == size.look()
    now = 3_601.0
    assert [50, 40] == [size.look() for _ in range(2)]
    assert 0 == size_of_folder(tmp_path / "none").look()


def test_a_store_elsewhere_is_listed_once_a_day_and_not_without_end() -> None:
    """A listing that fails is begun again at the next turn, and keeps what was known."""
    now, listings = 0.0, 0

    def sizes() -> Iterator[int]:
        nonlocal listings
        listings += 1
        if listings == 2:
            yield 10
            raise StorageUnavailable("away")
        yield from [10] * (5 if listings == 1 else 9)

    size = StoredSize(sizes, at_once=3, every_s=86_400, most=6, monotonic=lambda: now)
    assert [None, 50, 50, 50] == [size.look() for _ in range(4)]
    assert 1 == listings
    now = 86_401.0
    assert [50, 50] == [size.look() for _ in range(2)]
    assert 2 == listings
    now = 2 * 86_402.0
    assert [50, 50, None, None] == [size.look() for _ in range(4)]
    assert 3 == listings


def test_a_look_at_the_server_has_what_can_be_found_out(sqlite: Database, tmp_path: Path) -> None:
    """Without a local disk there is none to fill up."""
    metrics = Metrics()
    metrics.watch_queue(lambda: 4)
    here = LookAtServer(metrics, sqlite, storage=size_of_folder(tmp_path), folders=[tmp_path], has_workers=False)()
    assert (4, None, True) == (here.queue, here.workers, (here.disk_free_bytes or 0) > 0)
    assert (here.database_bytes or 0) >= 4096
    metrics.queue_jobs.labels("online").set(2)
    metrics.queue_jobs.labels("batch").set(5)
    metrics.workers.set(3)
    away = LookAtServer(metrics, sqlite, storage=None, folders=[], has_workers=True)()
    assert (7, 3, None, None) == (away.queue, away.workers, away.storage_bytes, away.disk_free_bytes)
