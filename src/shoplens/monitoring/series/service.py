"""What pages and API show of the time series: requests, latency, decisions, runs, room, and what is live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoplens.batch.entities import BatchRun, RunState
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import ShoplensError
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    NOTHING,
    SERVER,
    Counts,
    DayCounts,
    Job,
    Range,
    SeriesKey,
    ServerState,
    total,
)
from shoplens.monitoring.series.forecast import LOOKED_AT_S, PART_S, DiskForecast, forecast
from shoplens.monitoring.series.repository import ALL, SeriesRepository
from shoplens.predictions.entities import Answer, Channel
from shoplens.registry.entities import HistoryEntry
from shoplens.registry.live import FollowedModel
from shoplens.telemetry.logs import get_logger

LEAST_DAYS: Final = 30
"""So many days of volumes are shown also beside shorter ranges."""
MOST_RUNS: Final = 90
LISTED_RUNS: Final = 10
_NEWEST_S: Final = 180
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a range. `counts` and `state` are None where no process looked: nobody knows what happened."""

    begins_s: int
    counts: Counts | None
    state: ServerState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView:
    """A range of the series: its parts, oldest first, and the sums of each channel and model over all of it.

    `server` has the HTTP requests of the whole server, `now` the newest state if it is one of the last minutes.
    `recorded` says whether anything was ever written down.
    """

    range: Range
    key: SeriesKey
    parts: tuple[Part, ...]
    whole: Counts
    by_series: Mapping[SeriesKey, Counts]
    server: Counts
    now: ServerState | None
    recorded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What was decided and said on the day that begins at `begins_s`, or, for one channel and job, from then on."""

    begins_s: int
    counts: DayCounts

    @property
    def needed_person(self) -> float | None:
        """The share that needed a person; None without records."""
        return self.counts.to_review / self.counts.predictions if self.counts.predictions else None

    @property
    def agreement(self) -> float | None:
        """The share of people's answers that agreed with what was predicted; None without answers."""
        answers = self.counts.confirmed + self.counts.corrected
        return self.counts.confirmed / answers if answers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """A finished run, how long it took and its rate; both None where nothing says it.

    `answers` are those of people on its items, as the run's own page has them; empty for all but the newest runs.
    """

    run: BatchRun
    took_s: float | None
    per_second: float | None
    answers: Mapping[Answer, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """The model of a channel that answers now. `since` is when it became champion; None where no registry says it."""

    channel: str
    model: str
    version: str
    since: datetime | None
    fault: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """A version of a model became champion."""

    at: datetime
    model: str
    version: str


class LiveModels:
    """What is live since when. The registry may be slow or away: `refresh` asks it, and reading never does."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        *,
        followed: Callable[[], Sequence[FollowedModel]],
        history: Callable[[str], Sequence[HistoryEntry]],
    ) -> None:
        self._channels = channels
        self._followed = followed
        self._history = history
        self._known: dict[str, tuple[HistoryEntry, ...]] = {}

    def refresh(self) -> None:
        """Ask the registry for the history of each model. Blocks; raises nothing, and keeps what it knew."""
        for each in self._followed():
            try:
                self._known[each.name] = tuple(self._history(each.name))
            except ShoplensError as error:
                _log.debug("monitoring.history_unknown", model=each.name, code=error.code)

    def now(self) -> list[LiveModel]:
        """The model of each channel."""
        states = {each.name: each for each in self._followed()}
        return [self._of(channel, states) for channel in self._channels.values()]

    def changes(self, channel: str) -> list[ModelChange]:
        """When versions of the channel's model became champion, oldest first; of all channels for ""."""
        wanted = {each.model for each in self._channels.values() if channel in ("", each.name)}
        return [
            ModelChange(at=entry.at, model=name, version=entry.after)
            for name, history in self._known.items()
            if name in wanted
            for entry in history
            if entry.alias == "champion" and entry.after is not None
        ]

    def _of(self, channel: Channel, states: Mapping[str, FollowedModel]) -> LiveModel:
        name, _, version = channel.model.partition("@")
        state = states.get(channel.model)
        if state is None:
            return LiveModel(channel=channel.name, model=name, version=version, since=None, fault=None)
        became = [
            entry
            for entry in self._known.get(state.name, ())
            if entry.alias == "champion" and entry.after == state.serving.version
        ]
        return LiveModel(
            channel=channel.name,
            model=state.serving.name,
            version=state.serving.version,
            since=became[-1].at if became else state.since,
            fault=state.fault,
        )


class MonitoringService:
    """Reads the series. All methods but `channels` and `live` block and raise DatabaseUnavailable."""

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        live: LiveModels,
        *,
        has_workers: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self.channels = channels
        self.live = live
        self.has_workers = has_workers
        self._database = database
        self._clock = clock

    def series(self, wanted: Range, key: SeriesKey = ALL) -> SeriesView:
        """A range up to now, of all channels or of one and its model."""
        facts = wanted.value
        begins = wanted.begins(self._clock())
        since_s, until_s = begins[0], begins[-1] + facts.bucket_s
        with self._database.reading() as tx:
            repository = SeriesRepository(tx)
            span = {"step_s": facts.step_s, "since_s": since_s, "until_s": until_s}
            counts = repository.totals(bucket_s=facts.bucket_s, key=key, **span)
            states = repository.states(bucket_s=facts.bucket_s, **span)
            by_series = repository.by_series(**span)
            now_s = begins[-1] + facts.bucket_s
            newest = repository.states(
                step_s=MINUTE_S, bucket_s=MINUTE_S, since_s=int(self._clock().timestamp()) - _NEWEST_S, until_s=now_s
            )
            recorded = bool(states) or repository.first_s() is not None
        server = by_series.pop(SeriesKey(SERVER), NOTHING)
        return SeriesView(
            range=wanted,
            key=key,
            parts=tuple(
                Part(
                    begins_s=at,
                    counts=counts.get(at, NOTHING) if at in states else None,
                    state=states[at].state if at in states else None,
                )
                for at in begins
            ),
            whole=total(counts.values()),
            by_series=by_series,
            server=server,
            now=newest[max(newest)].state if newest else None,
            recorded=recorded,
        )

    def days(self, wanted: Range, channel: str = "") -> list[Volume]:
        """Each day from the first one with records on, today included; at least `LEAST_DAYS`, where there are so many.

        A day without a record is there with zeros: that nothing came is known.
        """
        today, found = self._counted(wanted, channel)
        by_day: dict[int, list[DayCounts]] = {}
        for each in found:
            by_day.setdefault(each.begins_s, []).append(each)
        return [
            Volume(begins_s=at, counts=_sum(by_day.get(at, []), begins_s=at, channel=channel))
            for at in range(min(by_day, default=today + DAY_S), today + 1, DAY_S)
        ]

    def jobs(self, wanted: Range, channel: str = "") -> list[Volume]:
        """The same days together for each channel and job that decided something in them, or was answered."""
        _, found = self._counted(wanted, channel)
        parts: dict[tuple[str, Job], list[DayCounts]] = {}
        for each in found:
            parts.setdefault((each.channel, each.job), []).append(each)
        return [
            Volume(
                begins_s=min(each.begins_s for each in counts),
                counts=_sum(counts, begins_s=counts[0].begins_s, channel=name, job=job),
            )
            for (name, job), counts in sorted(parts.items())
        ]

    def _counted(self, wanted: Range, channel: str) -> tuple[int, list[DayCounts]]:
        """When today begins, and what was counted since as many days as are shown."""
        today = int(self._clock().timestamp()) // DAY_S * DAY_S
        since = today - DAY_S * (max(LEAST_DAYS, wanted.value.seconds // DAY_S) - 1)
        with self._database.reading() as tx:
            return today, DayRepository(tx).between(since, today + DAY_S, channel=channel)

    def runs(self, wanted: Range, channel: str = "") -> list[RunFigures]:
        """The finished runs of the range, at least of `LEAST_DAYS`, newest first."""
        since = self._clock().timestamp() - max(LEAST_DAYS * DAY_S, wanted.value.seconds)
        names = [channel] if channel else list(self.channels)
        with self._database.reading() as tx:
            found = [
                run
                for name in names
                for run in RunRepository(tx).page(name, limit=MOST_RUNS, state=RunState.FINISHED)
                if run.created_at.timestamp() >= since
            ]
            found.sort(key=lambda run: run.id, reverse=True)
            answers = {run.id: ReviewRepository(tx).count_answers(run.id) for run in found[:LISTED_RUNS]}
        return [_figures(run, answers.get(run.id, {})) for run in found]

    def disk(self) -> DiskForecast:
        """How long the disk will last."""
        now = self._clock()
        until_s = int(now.timestamp()) // HOUR_S * HOUR_S + HOUR_S
        with self._database.reading() as tx:
            states = SeriesRepository(tx).states(
                step_s=HOUR_S, bucket_s=PART_S, since_s=until_s - LOOKED_AT_S, until_s=until_s
            )
        free = [(at, room) for at, each in states.items() if (room := each.state.disk_free_bytes) is not None]
        size = next((states[at].state.disk_total_bytes for at in sorted(states, reverse=True)), None)
        return forecast(free, total_bytes=size, now=now)


def _sum(counts: Sequence[DayCounts], *, begins_s: int, channel: str, job: Job = Job.PREDICTIONS) -> DayCounts:
    names = ("predictions", "accepted", "to_review", "rejected", "confirmed", "corrected")
    return DayCounts(
        begins_s=begins_s,
        channel=channel,
        job=job,
        **{name: sum(getattr(each, name) for each in counts) for name in names},
    )


def _figures(run: BatchRun, answers: Mapping[Answer, int]) -> RunFigures:
    """The time from the start to the last item: clocks may jump, so one that is not positive says nothing."""
    took_s = None
    if run.started_at is not None and run.last_item_at is not None:
        took_s = (run.last_item_at - run.started_at).total_seconds()
        took_s = took_s if took_s > 0 else None
    per_second = run.planned / took_s if took_s else None
    return RunFigures(run=run, took_s=took_s, per_second=per_second, answers=answers)
