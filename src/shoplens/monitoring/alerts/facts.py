"""What the rules look at: everything that the server knows of itself at one moment. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from shoplens.batch.status import RunStatus
from shoplens.monitoring.series.entities import Counts, ServerState
from shoplens.monitoring.series.forecast import DiskForecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """None: nobody knows, so the alerts about it stay as they are. That is so where a minute was not written down.

    `server` and `channels` are the requests of the last five minutes, `slow` of the last ten. `missed` has the planned
    times at which no run began, `refused` the faults of models, `drift` the measures that alarm on the last day,
    `accuracy` the upper end of its interval. The ages are those of the oldest event and mail that nobody has taken.
    `quarantined_jobs` are those of 15 minutes.
    """

    server: Counts | None = None
    channels: Mapping[str, Counts] | None = None
    slow: Mapping[str, Counts] | None = None
    state: ServerState | None = None
    has_workers: bool = False
    runs: Mapping[str, RunStatus] = field(default_factory=dict)
    missed: Mapping[str, datetime] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, tuple[date, Sequence[str]]] = field(default_factory=dict)
    accuracy: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    least_accuracy: float = 0.9
    disk: DiskForecast | None = None
    webhook_age_s: float = 0.0
    mail_age_s: float = 0.0
    quarantined_jobs: int | None = None
