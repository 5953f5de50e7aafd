"""When the runs of a channel are planned, as a cron expression: the next time, and a time at which nothing began.

Shoplens starts no run by itself: cron, systemd, Jenkins, Airflow or Kubernetes does. The setting says when, so that
pages and checks know what to expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from shoplens.batch.run_repository import RunRepository
from shoplens.batch.schedule_repository import ScheduleRepository
from shoplens.db import Database

LATE: Final = timedelta(hours=1)
"""How long after its time a run may begin before it counts as missed: what starts it may wait for another job."""
_EARLY: Final = timedelta(minutes=5)
_LOCAL_ZONE: Final = Path("/etc/localtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cron expression, in a time zone. Where clocks are changed it fires as Debian's cron does: a time of day never
    twice, and what falls into the missing hour after it.
    """

    expression: str
    zone: tzinfo

    def next_after(self, moment: datetime) -> datetime:
        """The next time after a moment, in UTC."""
        return next(self._times(moment, back=False))

    def last_before(self, moment: datetime) -> datetime:
        """The last time before a moment, in UTC."""
        return next(self._times(moment, back=True))

    def _times(self, moment: datetime, *, back: bool) -> Iterator[datetime]:
        from croniter import croniter

        each_hour = "*" in self.expression.split()[1]
        times = croniter(self.expression, moment.astimezone(self.zone))
        for time in times.all_prev(datetime) if back else times.all_next(datetime):
            # Without its `fold`, which it may set where no hour comes twice.
            found = time.astimezone(UTC).replace(fold=0)
            # It counts the hour that comes twice, twice.
            if each_hour or not found.astimezone(self.zone).fold:
                yield found

    def missed_at(
        self, now: datetime, *, last_start: datetime | None, waiting_since: datetime | None
    ) -> datetime | None:
        """The last planned time if no run began then although items waited for it; else None."""
        planned = self.last_before(now - LATE)
        began = last_start is not None and last_start >= planned - _EARLY
        waited = waiting_since is not None and waiting_since < planned
        return planned if waited and not began else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When the next run of a channel is planned, and the planned time at which none began, if there is one."""

    next_at: datetime
    missed_at: datetime | None


class Planner:
    """The plan of a channel; None for one without a schedule. Blocks; raises DatabaseUnavailable.

    `last_trigger` says when a run of a channel was last started on this machine: one that finds nothing to do leaves no
    row in the database.
    """

    def __init__(
        self,
        database: Database,
        schedules: dict[str, Schedule],
        *,
        clock: Callable[[], datetime],
        last_trigger: Callable[[str], datetime | None],
    ) -> None:
        self._database = database
        self._schedules = schedules
        self._clock = clock
        self._last_trigger = last_trigger

    def __call__(self, channel: str) -> Plan | None:
        """See the class."""
        schedule = self._schedules.get(channel)
        if schedule is None:
            return None
        now = self._clock()
        with self._database.reading() as tx:
            repository = ScheduleRepository(tx)
            started, waiting_since = repository.last_start(channel), repository.waiting_since(channel)
        missed = schedule.missed_at(now, last_start=started, waiting_since=waiting_since)
        if missed is not None:  # the log file is read only where the answer depends on it
            triggered = self._last_trigger(channel)
            missed = schedule.missed_at(now, last_start=triggered or started, waiting_since=waiting_since)
        return Plan(next_at=schedule.next_after(now), missed_at=missed)

    def missed(self) -> dict[str, datetime | None]:
        """By channel with a schedule: the planned time at which no run began; None also while a run works."""
        found = {channel: plan.missed_at for channel in self._schedules if (plan := self(channel)) is not None}
        if any(found.values()):
            with self._database.reading() as tx:
                runs = RunRepository(tx)
                found = {channel: at if at and runs.active(channel) is None else None for channel, at in found.items()}
        return found


def local_zone() -> tzinfo:
    """The time zone of this machine with its changes over the year; UTC where the machine does not say it."""
    try:
        with _LOCAL_ZONE.open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC
