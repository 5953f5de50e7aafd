"""What the time series hold: counts of a step, the state of the server, and what is made of both. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum, StrEnum
from typing import Final, NamedTuple, Self

from shoplens.errors import RequestInvalid
from shoplens.messages import marked
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
DAY_S: Final = 86_400
STEPS_S: Final = (MINUTE_S, HOUR_S, DAY_S)
"""How long the steps are that are stored."""

SERVER: Final = ""
"""The name under which the HTTP requests of the whole server are counted, beside the channels."""


class SeriesKey(NamedTuple):
    """What is counted together: the requests of a channel for a model, whose version is left out."""

    channel: str
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The requests of a step. `accepted`, `to_review` and `rejected` are what policies made of the answered ones.

    `refused`: the sample or the request was at fault. `busy`: there was no room or no time. `failed`: Shoplens was at
    fault. `latency` counts the answers by the buckets of `LATENCY_BUCKETS_S`, and in one more the slower ones.
    """

    answered: int = 0
    accepted: int = 0
    to_review: int = 0
    rejected: int = 0
    refused: int = 0
    busy: int = 0
    failed: int = 0
    latency_sum_s: float = 0.0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_BUCKETS_S) + 1)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.answered + self.refused + self.busy + self.failed

    @property
    def decided(self) -> int:
        """Those of which a policy made something."""
        return self.accepted + self.to_review + self.rejected

    def __add__(self, other: Counts) -> Counts:
        return self._with(other, 1)

    def __sub__(self, other: Counts) -> Counts:
        return self._with(other, -1)

    def _with(self, other: Counts, sign: int) -> Counts:
        plain = {name: getattr(self, name) + sign * getattr(other, name) for name in _NUMBERS}
        return Counts(**plain, latency=tuple(a + sign * b for a, b in zip(self.latency, other.latency, strict=True)))

    def latency_s(self, share: float) -> float | None:
        """The latency that `share` of the answers kept; see `quantile`."""
        return quantile(self.latency, share)


_NUMBERS: Final = tuple(each.name for each in fields(Counts) if each.name != "latency")
NOTHING: Final = Counts()


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """The value below which `share` of what was counted lies, in seconds; None where nothing was counted.

    Within its bucket the values are taken to lie evenly, as Prometheus' histogram_quantile does. What is slower than
    the highest bound counts as that bound: the histogram knows no more.
    """
    total = sum(buckets)
    if total <= 0:
        return None
    wanted, below = share * total, 0
    bounds = (0.0, *LATENCY_BUCKETS_S)
    for index, count in enumerate(buckets[:-1]):
        if count > 0 and below + count >= wanted:
            return bounds[index] + (bounds[index + 1] - bounds[index]) * max(0.0, wanted - below) / count
        below += count
    return bounds[-1]


def total(parts: Iterable[Counts]) -> Counts:
    """All of them together."""
    whole = NOTHING
    for each in parts:
        whole = whole + each
    return whole


MOST_OF_STEP: Final = ("queue", "storage_bytes", "database_bytes", "disk_total_bytes")
LEAST_OF_STEP: Final = ("workers", "disk_free_bytes")
"""Which of the figures of a step is the worst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """How the server was at a moment, or in a step: the most of each, but the least of workers and free disk.

    None: not known, or not there. `workers` counts model workers, where they are separate processes. The disk is the
    one of the photos or of the database with less room; there is none where both lie on other machines.
    """

    queue: int | None = None
    workers: int | None = None
    storage_bytes: int | None = None
    database_bytes: int | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None

    def worst(self, other: ServerState) -> ServerState:
        """The state of both together; of each figure, the one that is known."""
        both = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        merged = {
            name: (max if name in MOST_OF_STEP else min)((each for each in pair if each is not None), default=None)
            for name, pair in both.items()
        }
        return ServerState(**merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteReading:
    """What one process saw in the minute that began at the Unix second `begins_s`; `counts` has no empty ones."""

    begins_s: int
    counts: Mapping[SeriesKey, Counts]
    state: ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class StepState:
    """The state in a step of which `watched` minutes were seen by at least one process."""

    watched: int
    state: ServerState


class Job(StrEnum):
    """Whose decisions are counted: those on single photos and in runs, on shoppers' photos, or on products."""

    PREDICTIONS = "predictions"
    MODERATION = "moderation"
    CATALOGUE = "catalogue"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCounts:
    """What a job of a channel decided on one day, and what people said on that day of decisions of any day.

    `predictions` are all of them; `to_review` is how many needed a person. `confirmed` and `corrected` are people's
    answers for and against what was predicted.
    """

    begins_s: int
    channel: str
    job: Job = Job.PREDICTIONS
    predictions: int = 0
    accepted: int = 0
    to_review: int = 0
    rejected: int = 0
    confirmed: int = 0
    corrected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _RangeFacts:
    name: str
    title: str
    seconds: int
    step_s: int
    bucket_s: int


class Range(Enum):
    """How far back a page looks, the step whose rows it reads, and how long the parts are that it shows."""

    HOUR = _RangeFacts(name="1h", title=marked("1 hour"), seconds=HOUR_S, step_s=MINUTE_S, bucket_s=MINUTE_S)
    DAY = _RangeFacts(name="24h", title=marked("24 hours"), seconds=DAY_S, step_s=MINUTE_S, bucket_s=900)
    WEEK = _RangeFacts(name="7d", title=marked("7 days"), seconds=7 * DAY_S, step_s=HOUR_S, bucket_s=2 * HOUR_S)
    QUARTER = _RangeFacts(name="90d", title=marked("90 days"), seconds=90 * DAY_S, step_s=DAY_S, bucket_s=DAY_S)

    @classmethod
    def named(cls, name: str) -> Self:
        """The range of this name, such as "24h". Raises RequestInvalid."""
        for each in cls:
            if each.value.name == name:
                return each
        known = ", ".join(each.value.name for each in cls)
        raise RequestInvalid(f"There is no range {name[:20]!r}. Use one of: {known}.")

    def begins(self, now: datetime) -> list[int]:
        """The Unix seconds at which its parts begin, oldest first; the last one is going on."""
        last = int(now.timestamp()) // self.value.bucket_s * self.value.bucket_s
        count = self.value.seconds // self.value.bucket_s
        return [last - self.value.bucket_s * index for index in range(count - 1, -1, -1)]
