"""GET /monitoring/series: the time series as JSON, for programs that have no Prometheus."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.monitoring.series.entities import Counts, Job, Range, SeriesKey
from shoplens.monitoring.series.forecast import DiskForecast, DiskTrend
from shoplens.monitoring.series.pages import known_channel
from shoplens.monitoring.series.service import MonitoringService, Part, SeriesView, Volume
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response


class RequestCountsOut(Schema):
    """Requests, and how long their answers took."""

    answered: int
    accepted: int = Field(description="What policies made of the answered ones: no person needed.")
    to_review: int
    rejected: int
    refused: int = Field(description="The sample or the request was at fault.")
    busy: int = Field(description="There was no room or no time.")
    failed: int = Field(description="Shoplens was at fault.")
    p50_ms: float | None = Field(description="Null: nothing was answered.")
    p95_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, counts: Counts) -> Self:
        """The counts with percentiles."""
        plain = {name: getattr(counts, name) for name in cls.model_fields if not name.endswith("_ms")}
        shares = {f"p{round(100 * share)}_ms": _milliseconds(counts.latency_s(share)) for share in (0.5, 0.95, 0.99)}
        return cls(**plain, **shares)


class PartOut(Schema):
    """A part of the range. `counts` and the state are null where no process looked; zeros are really none."""

    begins_at: datetime
    counts: RequestCountsOut | None
    queue: int | None = Field(description="The longest queue; null: not known.")
    workers: int | None = Field(description="The fewest model workers; null where models run in the web server.")
    storage_bytes: int | None
    database_bytes: int | None
    disk_free_bytes: int | None

    @classmethod
    def of(cls, part: Part) -> Self:
        """A part with its state."""
        names = ("queue", "workers", "storage_bytes", "database_bytes", "disk_free_bytes")
        return cls(
            begins_at=datetime.fromtimestamp(part.begins_s, UTC),
            counts=None if part.counts is None else RequestCountsOut.of(part.counts),
            **{name: getattr(part.state, name, None) for name in names},
        )


class ModelCountsOut(Schema):
    """The sums of one channel and model over the range."""

    channel: str
    model: str
    counts: RequestCountsOut


class DayOut(Schema):
    """What all jobs decided on a day in UTC, runs included, and what people said on it."""

    day: date
    predictions: int
    accepted: int
    to_review: int
    rejected: int
    confirmed: int = Field(description="Answers of people that agreed with what was predicted.")
    corrected: int

    @classmethod
    def of(cls, volume: Volume) -> Self:
        """The counts of a day."""
        plain = {name: getattr(volume.counts, name) for name in cls.model_fields if name != "day"}
        return cls(day=datetime.fromtimestamp(volume.begins_s, UTC).date(), **plain)


class JobOut(Schema):
    """What one job of a channel decided on all of these days, and what people said on them."""

    channel: str
    job: Job = Field(description="`predictions` (runs included), `moderation` or `catalogue`.")
    predictions: int = Field(description="All decisions.")
    accepted: int
    to_review: int = Field(description="Needed a person.")
    rejected: int
    confirmed: int
    corrected: int

    @classmethod
    def of(cls, volume: Volume) -> Self:
        """The sums."""
        return cls(**{name: getattr(volume.counts, name) for name in cls.model_fields})


class DiskOut(Schema):
    """How long the disk with the least room lasts, at the rate of the last two weeks."""

    trend: DiskTrend
    free_bytes: int | None
    total_bytes: int | None
    bytes_per_day: float | None
    days_left: float | None = Field(description="Null unless it fills up within two years.")
    full_at: datetime | None

    @classmethod
    def of(cls, disk: DiskForecast) -> Self:
        """The forecast."""
        return cls(**{name: getattr(disk, name) for name in cls.model_fields})


class SeriesOut(Schema):
    """A range up to now, oldest part first."""

    range: str = Field(examples=["24h"])
    step_s: int = Field(description="The length of each part.")
    parts: list[PartOut]
    by_model: list[ModelCountsOut]
    days: list[DayOut]
    jobs: list[JobOut]
    disk: DiskOut

    @classmethod
    def of(cls, view: SeriesView, days: list[Volume], jobs: list[Volume], disk: DiskForecast) -> Self:
        """All of it."""
        by_model = [
            ModelCountsOut(channel=key.channel, model=key.model, counts=RequestCountsOut.of(counts))
            for key, counts in view.by_series.items()
            if view.key.channel in ("", key.channel) and view.key.model in ("", key.model)
        ]
        return cls(
            range=view.range.value.name,
            step_s=view.range.value.bucket_s,
            parts=[PartOut.of(part) for part in view.parts],
            by_model=by_model,
            days=[DayOut.of(each) for each in days],
            jobs=[JobOut.of(each) for each in jobs],
            disk=DiskOut.of(disk),
        )


def monitoring_router(monitoring: MonitoringService) -> APIRouter:
    """The route of the series."""
    router = api_router(tags=["monitoring"], dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get(
        "/monitoring/series",
        response_model=SeriesOut,
        operation_id="get_monitoring_series",
        summary="Requests, latency, decisions and room over time",
    )
    def series(
        chosen: Annotated[str, Query(alias="range", max_length=10, description="1h, 24h, 7d or 90d.")] = "24h",
        channel: Annotated[str, Query(max_length=100, description="One channel; unset: all of them.")] = "",
        model: Annotated[str, Query(max_length=160, description="One model of that channel, by its name.")] = "",
    ) -> Response:
        """What the page Monitoring shows. Requests are those that somebody waited for; `days` counts runs, too."""
        known_channel(channel, monitoring)
        wanted = Range.named(chosen)
        view = monitoring.series(wanted, SeriesKey(channel, model if channel else ""))
        days, jobs = monitoring.days(wanted, channel), monitoring.jobs(wanted, channel)
        return json_response(SeriesOut.of(view, days, jobs, monitoring.disk()))

    return router


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)
