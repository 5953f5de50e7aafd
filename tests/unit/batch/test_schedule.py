"""When runs are planned: the next time, changes of clocks, a time at which nothing began, and the shipped files."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.schedule import Planner, Schedule
from shoplens.db import Database
from shoplens.errors import Misconfigured
from shoplens.platform.batch import build_schedules
from shoplens.settings import read_settings
from tests.samples import make_item, make_run, moment
from tools.project import ROOT

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = Schedule(expression="0 2 * * *", zone=BERLIN)
HALF_PAST_TWO = Schedule(expression="30 2 * * *", zone=BERLIN)
DEPLOY = ROOT / "deploy"


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "now", "following"),
    [
        (NIGHTLY, "2026-11-22 12:00", "2026-11-23 01:00"),
        (NIGHTLY, "2026-07-01 12:00", "2026-07-02 00:00"),
        # On 29 March 2026 there is no 02:30 in Berlin: it fires after the gap, once.
        (HALF_PAST_TWO, "2026-03-29 00:30", "2026-03-29 01:00"),
        (HALF_PAST_TWO, "2026-03-29 01:00", "2026-03-30 00:30"),
        # On 25 October 2026 there are two: only the first counts.
        (HALF_PAST_TWO, "2026-10-24 12:00", "2026-10-25 00:30"),
        (HALF_PAST_TWO, "2026-10-25 00:30", "2026-10-26 01:30"),
        (Schedule(expression="0 2 * * *", zone=UTC), "2026-11-22 12:00", "2026-11-23 02:00"),
        (Schedule(expression="0 2 * * *", zone=ZoneInfo("Etc/UTC")), "2026-11-22 12:00", "2026-11-23 02:00"),
        (Schedule(expression="*/30 * * * *", zone=BERLIN), "2026-10-25 00:40", "2026-10-25 01:00"),
    ],
)
def test_the_next_run_is_that_of_the_clock_on_the_wall(schedule: Schedule, now: str, following: str) -> None:
    """In winter, in summer, and in the nights when clocks are changed."""
    assert at(following) == schedule.next_after(at(now))
    assert at(following) == schedule.last_before(at(following) + timedelta(minutes=1))


def test_a_planned_run_counts_as_missed_once_it_is_an_hour_late() -> None:
    """Only where items waited for it, and nothing began around its time."""
    night = at("2026-11-22 01:00")
    evening, late = night - timedelta(hours=5), night + timedelta(hours=2)
    assert night == NIGHTLY.missed_at(late, last_start=None, waiting_since=evening)
    assert night == NIGHTLY.missed_at(late, last_start=evening, waiting_since=evening)
    assert NIGHTLY.missed_at(night + timedelta(minutes=50), last_start=evening, waiting_since=evening) is None
    assert NIGHTLY.missed_at(late, last_start=night, waiting_since=evening) is None
    assert NIGHTLY.missed_at(late, last_start=None, waiting_since=None) is None
    assert NIGHTLY.missed_at(late, last_start=None, waiting_since=night + timedelta(minutes=10)) is None


def test_a_plan_knows_the_last_run_and_what_waits(database: Database) -> None:
    """And a run on this machine that found nothing to do, which only the log has."""
    triggered: list[datetime] = []
    planner = Planner(
        database,
        {"returns": Schedule(expression="0 13 * * *", zone=UTC)},
        clock=lambda: moment(3 * 3600),
        last_trigger=lambda _: next(iter(triggered), None),
    )
    planned = moment(0).replace(hour=13, microsecond=0)
    assert planner("look") is None
    plan = planner("returns")
    assert plan is not None
    assert (planned + timedelta(days=1), None) == (plan.next_at, plan.missed_at)
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(1)])
    plan = planner("returns")
    assert plan is not None
    assert planned == plan.missed_at
    triggered.append(planned)
    assert (plan := planner("returns")) is not None
    assert plan.missed_at is None
    triggered.clear()
    with database.transaction() as tx:
        RunRepository(tx).add(make_run(3600))
    assert (plan := planner("returns")) is not None
    assert plan.missed_at is None


def test_the_default_is_the_time_of_the_shipped_files() -> None:
    """What pages expect is what cron, systemd, Jenkins, Airflow and Kubernetes do as they are shipped."""
    schedule = read_settings().batch_channels["returns"].schedule
    assert schedule == "0 2 * * *"

    def read(name: str) -> str:
        return (DEPLOY / name).read_text("utf-8")

    for name, pattern in (
        ("cron/shoplens.cron", r"^(\S+ \S+ \S+ \S+ \S+)\s+shoplens .* batch run "),
        ("jenkins/batch.Jenkinsfile", r"cron\('TZ=[^\\]+\\n([^']+)'\)"),
        ("airflow/dags/shoplens_dags.py", r'schedule="([^"]+)"'),
        ("kubernetes/base/schedules.yaml", r'schedule: "(0 2 [^"]+)"'),
    ):
        assert schedule in re.findall(pattern, read(name), re.MULTILINE), name
    minute, hour = schedule.split()[:2]
    assert f"OnCalendar=*-*-* {int(hour):02}:{int(minute):02}\n" in read("systemd/shoplens-batch.timer")


@pytest.mark.parametrize(
    ("key", "value"), [("schedule", "at night"), ("schedule", "0 2 31 2 *"), ("schedule", "61 2 * * *")]
)
def test_what_is_no_schedule_is_refused(key: str, value: str) -> None:
    """With its name, at the start."""
    with pytest.raises(Misconfigured, match=r"channels.returns.batch.schedule: .* is no cron expression"):
        read_settings(channels={"returns": {"batch": {key: value}}})


def test_the_time_zone_is_that_of_the_setting(tmp_path: Path) -> None:
    """Else that of the machine; a channel with an empty schedule has none."""
    settings = read_settings(data_dir=tmp_path, batch={"time_zone": "Asia/Tokyo"})
    assert at("2026-11-22 17:00") == build_schedules(settings)["returns"].next_after(at("2026-11-22 12:00"))
    assert {} == build_schedules(read_settings(channels={"returns": {"batch": {"schedule": ""}}}))
    with pytest.raises(Misconfigured, match=r"batch.time_zone: .*Europe/Berlin"):
        read_settings(batch={"time_zone": "Europe/Berlinn"})
