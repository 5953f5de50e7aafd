"""Make tables of a load test: what Locust counted and what the processes used in, Markdown out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

_PREDICT: Final = "POST /predict"
_REFUSED: Final = " refused"
_SUMS: Final = (
    "workers", "requests/s", "images/s", "upload p50 ms", "p95 ms", "p99 ms", "refusals", "failures", "cores in use",
)  # fmt: skip
_JOURNEYS: Final = ("journey", "workers", "requests/s", "p50 ms", "p95 ms", "p99 ms", "refusals", "failures")
_CPU: Final = ("workers", "process", "CPU s", "of one core")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """One kind of request. `times` has how many answers took so many milliseconds; refusals are not among them."""

    name: str
    requests: int = 0
    failures: int = 0
    refusals: int = 0
    times: Mapping[float, int] = field(default_factory=dict)

    def __add__(self, other: Journey) -> Journey:
        times = dict(self.times)
        for milliseconds, count in other.times.items():
            times[milliseconds] = times.get(milliseconds, 0) + count
        return Journey(
            name=self.name,
            requests=self.requests + other.requests,
            failures=self.failures + other.failures,
            refusals=self.refusals + other.refusals,
            times=times,
        )

    def percentile_ms(self, share: float) -> float | None:
        """The time within which that share of the answers came; None without any."""
        wanted, seen = share * sum(self.times.values()), 0
        for milliseconds in sorted(self.times):
            seen += self.times[milliseconds]
            if seen >= wanted:
                return milliseconds
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One load test. `workers` is how many there were, in words; `cpu_s` is what each process used in `wall_s`."""

    workers: str
    seconds: float
    journeys: tuple[Journey, ...]
    cpu_s: Mapping[str, float]
    wall_s: float

    @classmethod
    def of(
        cls, counted: Sequence[Mapping[str, Any]], *, workers: str, cpu_s: Mapping[str, float], wall_s: float
    ) -> Self:
        """From the entries of Locust's statistics."""
        begin = min((float(entry["start_time"]) for entry in counted), default=0.0)
        end = max((float(entry["last_request_timestamp"] or begin) for entry in counted), default=begin)
        found: dict[str, Journey] = {}
        for entry in counted:
            journey = _journey(entry)
            found[journey.name] = found[journey.name] + journey if journey.name in found else journey
        journeys = tuple(found[name] for name in sorted(found))
        return cls(workers=workers, seconds=end - begin, journeys=journeys, cpu_s=cpu_s, wall_s=wall_s)

    @property
    def total(self) -> Journey:
        """All requests together."""
        return sum(self.journeys, Journey(name="all"))

    @property
    def uploads(self) -> Journey:
        """All photos that shoppers sent, of whatever size."""
        return sum((each for each in self.journeys if each.name.startswith(_PREDICT)), Journey(name=_PREDICT))

    def per_second(self, journey: Journey) -> float:
        """Right answers per second."""
        return (journey.requests - journey.failures) / self.seconds if self.seconds else 0.0


def markdown(outcomes: Sequence[Outcome]) -> str:
    """All tables."""
    tables = (
        _table(_SUMS, map(_sums, outcomes)),
        _table(_JOURNEYS, (row for outcome in outcomes for row in _journeys(outcome))),
        _table(_CPU, (row for outcome in outcomes for row in _processes(outcome))),
    )
    return "\n".join(table for table in tables if table)


def _journey(entry: Mapping[str, Any]) -> Journey:
    """Locust counts failures among the requests; refusals have entries of their own, with names of their own."""
    name = f"{entry['method']} {entry['name']}"
    if name.endswith(_REFUSED):
        return Journey(name=name.removesuffix(_REFUSED), refusals=int(entry["num_requests"]))
    times = {float(milliseconds): int(count) for milliseconds, count in entry["response_times"].items()}
    return Journey(name=name, requests=entry["num_requests"], failures=entry["num_failures"], times=times)


def _sums(outcome: Outcome) -> tuple[str, ...]:
    total, uploads = outcome.total, outcome.uploads
    cores = sum(outcome.cpu_s.values()) / outcome.wall_s
    return (
        outcome.workers, f"{outcome.per_second(total):.1f}", f"{outcome.per_second(uploads):.1f}",
        *_percentiles(uploads), str(total.refusals), str(total.failures), f"{cores:.2f}",
    )  # fmt: skip


def _journeys(outcome: Outcome) -> Iterable[tuple[str, ...]]:
    for each in outcome.journeys:
        counts = (str(each.refusals), str(each.failures))
        yield each.name, outcome.workers, f"{outcome.per_second(each):.1f}", *_percentiles(each), *counts


def _processes(outcome: Outcome) -> Iterable[tuple[str, ...]]:
    for name, cpu_s in outcome.cpu_s.items():
        yield outcome.workers, name, f"{cpu_s:.1f}", f"{100 * cpu_s / outcome.wall_s:.0f} %"


def _percentiles(journey: Journey) -> tuple[str, ...]:
    found = (journey.percentile_ms(share) for share in (0.5, 0.95, 0.99))
    return tuple("–" if each is None else f"{each:.0f}" for each in found)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join((f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines, "")) if lines else ""
