"""The facts of a run's report: totals, reconciliation, categories; from one consistent read of the database."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import variance
from typing import Final

from sqlalchemy import Connection

from shoplens.batch.browse import rate_per_s
from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunCounts, RunState
from shoplens.batch.repository import FailureCount, ItemRepository, RunRange, RunRepository

MOST_TO_REVIEW: Final = 24
MOST_PER_REASON: Final = 12
MOST_SLOWEST: Final = 10
_CLASSIFIED: Final = (ItemState.DONE, ItemState.NEEDS_REVIEW)
COMPARED_RUNS: Final = 10
"""Earlier finished runs that the shares of a run are compared with."""

LEAST_ITEMS: Final = 30
"""With fewer items in the run, or in the earlier runs together, nothing is highlighted."""

UNUSUAL_FROM: Final = 3.0
_LEAST_RUNS_FOR_VARIANCE: Final = 3

METHOD: Final = (
    f"Highlighted: shares that differ from the average by more than {UNUSUAL_FROM:g} standard errors (two-proportion "
    f"z-test, from {LEAST_ITEMS} items on; if the runs differ among themselves by more than chance, their own variance "
    f"is used). The average is that of all items of the last {COMPARED_RUNS} finished runs."
)


@dataclass(frozen=True, slots=True)
class TotalRow:
    """A line of the reconciliation. `number` is signed; a total is shown even if it is 0."""

    name: str
    number: int
    words: str
    total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A segment of the bar at the top, as shares of its length from 0 to 1."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """The reconciliation of a run: what became of everything that arrived.

    `planned` was counted by the run when it began; everything else is counted from the items now. `own` are the run's
    items by state; `passed_on` are planned items that wait again or belong to a later run; `waiting` are those that an
    active run has not taken yet.
    """

    planned: int
    own: RunCounts
    passed_on: int
    arrived: int
    older: int
    duplicates: int
    refused: int
    waiting: int

    @property
    def in_run(self) -> int:
        """Items that belong to the run now."""
        return sum(self.own.by_state.values())

    @property
    def unfinished(self) -> int:
        """Items of the run that are not processed."""
        return self.in_run - self.own.settled

    @property
    def joined(self) -> int:
        """Items that joined the run after it had begun, because they were retried."""
        return max(0, self.in_run - self.planned)

    @property
    def elsewhere(self) -> int:
        """Arrived since the previous run, and now in another run or waiting again."""
        return self.arrived - (self.in_run - self.older) - self.duplicates - self.refused

    @property
    def sent_back(self) -> int:
        """Planned items that have left the run and are accounted for."""
        return max(0, min(self.planned - self.in_run, self.passed_on))

    @property
    def missing(self) -> int:
        """Planned items that are not accounted for. Anything but 0 is a bug."""
        return max(0, self.planned - self.in_run - self.passed_on)

    @property
    def settled(self) -> bool:
        """Whether every item is accounted for and processed."""
        return self.missing == self.unfinished == self.waiting == 0

    def rows(self) -> list[TotalRow]:
        """Line by line: what arrived, what of it was in the run, what became of it."""
        own = self.own
        return [
            TotalRow("arrived", self.arrived, "Files that arrived since the previous run"),
            TotalRow("duplicates", -self.duplicates, "Duplicates"),
            TotalRow("refused", -self.refused, "Quarantined on arrival"),
            TotalRow("elsewhere", -self.elsewhere, "Waiting for another run, or in one"),
            TotalRow("older", self.older, "Left by earlier runs"),
            TotalRow("in_run", self.in_run, "Photos of this run", total=True),
            TotalRow("done", own[ItemState.DONE], "Done"),
            TotalRow("needs_review", own[ItemState.NEEDS_REVIEW], "Needs review"),
            TotalRow("quarantined", own[ItemState.QUARANTINED], "Quarantined by the run"),
            TotalRow("unfinished", self.unfinished, "Not finished"),
            TotalRow("planned", self.planned, "Photos planned when the run began", total=True),
            TotalRow("joined", self.joined, "Joined later, to be retried"),
            TotalRow("sent_back", -self.sent_back, "Left since, to be retried"),
            TotalRow("waiting", -self.waiting, "Not taken yet"),
            TotalRow("missing", -self.missing, "Missing"),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Quarantined items with the same reason; `shown` are the first of `count`."""

    code: str
    example: str
    count: int
    shown: Sequence[BatchItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Everything that the report shows. `ended_at` and `per_minute` are None before an item was finished."""

    run: BatchRun
    written_at: datetime
    counts: RunCounts
    accounting: Accounting
    ended_at: datetime | None
    per_minute: float | None
    corrected: int
    needs_review: Sequence[BatchItem]
    reasons: Sequence[Reason]
    mix: Sequence[CategoryShare]
    compared_runs: int
    slowest: Sequence[BatchItem]

    @property
    def total(self) -> int:
        """All items except duplicates."""
        return sum(self.counts.by_state.values()) - self.counts[ItemState.DUPLICATE]

    @property
    def rest(self) -> int:
        """Items that wait or are being processed."""
        return self.total - self.counts.settled

    @property
    def parts(self) -> list[Part]:
        """The segments of the bar."""
        numbers = {
            "done": self.counts[ItemState.DONE],
            "needs_review": self.counts[ItemState.NEEDS_REVIEW],
            "quarantined": self.counts[ItemState.QUARANTINED],
            "rest": self.rest,
        }
        total, before, parts = self.total or 1, 0, []
        for kind, number in numbers.items():
            parts.append(Part(kind=kind, left=before / total, width=number / total))
            before += number
        return parts


def gather(tx: Connection, run: BatchRun, *, now: datetime) -> ReportFacts:
    """The facts of `run`, bounded for any number of items."""
    items = ItemRepository(tx)
    within = items.range_of(run)
    counts = RunCounts(by_state=items.count_states(within))
    accounting = _accounting(tx, run, within, counts)
    rate = rate_per_s(run, accounting.own.settled, now)
    before = RunRepository(tx).page(run.channel, limit=COMPARED_RUNS, before=run.id, state=RunState.FINISHED)
    earlier = [_categories(tx, each) for each in before]
    return ReportFacts(
        run=run,
        written_at=now,
        counts=counts,
        accounting=accounting,
        ended_at=run.finished_at or run.last_item_at,
        per_minute=None if rate is None else rate * 60,
        corrected=items.count_corrected(run.id),
        needs_review=items.least_sure(run.id, MOST_TO_REVIEW),
        reasons=[_reason(tx, within, count) for count in items.failures(within)],
        mix=compare(_categories(tx, run), earlier),
        compared_runs=sum(1 for each in earlier if each),
        slowest=items.slowest(run.id, MOST_SLOWEST),
    )


def _accounting(tx: Connection, run: BatchRun, within: RunRange, counts: RunCounts) -> Accounting:
    items = ItemRepository(tx)
    own = RunCounts(by_state=items.count_own_states(run.id))
    waiting = items.count_waiting(run.channel, bound=run.bound) - own[ItemState.WAITING] if run.active else 0
    return Accounting(
        planned=run.planned,
        own=own,
        passed_on=items.count_passed_on(run),
        arrived=items.count_arrived(within),
        older=items.count_older(within),
        duplicates=counts[ItemState.DUPLICATE],
        refused=counts[ItemState.QUARANTINED] - own[ItemState.QUARANTINED],
        waiting=waiting,
    )


def _categories(tx: Connection, run: BatchRun) -> Counter[str]:
    """The number of classified items of a run by label."""
    found: Counter[str] = Counter()
    for (state, label), count in ItemRepository(tx).count_labels(run.id).items():
        if state in _CLASSIFIED:
            found[label] += count
    return found


def _reason(tx: Connection, within: RunRange, count: FailureCount) -> Reason:
    shown = ItemRepository(tx).quarantined(within, count.code, MOST_PER_REASON)
    return Reason(code=count.code, example=count.example, count=count.count, shown=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShare:
    """A category in a run and on average; shares from 0 to 1. `z` is None if nothing can be compared."""

    label: str
    count: int
    share: float
    usual: float | None
    z: float | None

    @property
    def unusual(self) -> bool:
        """Whether the difference is larger than chance."""
        return self.z is not None and abs(self.z) > UNUSUAL_FROM


def compare(current: Mapping[str, int], earlier: Sequence[Mapping[str, int]]) -> list[CategoryShare]:
    """Every category of the run and of the earlier runs, the most frequent first. Counts by label in, shares out."""
    runs = [run for run in earlier if sum(run.values())]
    usual: Counter[str] = Counter()
    for run in runs:
        usual.update(run)
    labels = sorted({*current, *usual}, key=lambda label: (-current.get(label, 0), -usual[label], label))
    return [_share(label, current, runs, usual) for label in labels]


def _share(
    label: str, current: Mapping[str, int], runs: Sequence[Mapping[str, int]], usual: Mapping[str, int]
) -> CategoryShare:
    """The z-score is that of two proportions; the variance among the runs is a lower bound of the chance variance."""
    total, total_usual = sum(current.values()), sum(usual.values())
    count = current.get(label, 0)
    share = count / total if total else 0.0
    usual_share = usual[label] / total_usual if total_usual else None
    z = None
    if usual_share is not None and min(total, total_usual) >= LEAST_ITEMS:
        pooled = (count + usual[label]) / (total + total_usual)
        chance = pooled * (1 - pooled) * (1 / total + 1 / total_usual)
        error = math.sqrt(max(chance, _variance_of_next_run(label, runs)))
        z = (share - usual_share) / error if error else 0.0
    return CategoryShare(label=label, count=count, share=share, usual=usual_share, z=z)


def _variance_of_next_run(label: str, runs: Sequence[Mapping[str, int]]) -> float:
    """The variance of another run's share about the mean of these; 0.0 if there are too few."""
    totals = [(run.get(label, 0), sum(run.values())) for run in runs]
    shares = [count / total for count, total in totals if total >= LEAST_ITEMS]
    if len(shares) < _LEAST_RUNS_FOR_VARIANCE:
        return 0.0
    return variance(shares) * (1 + 1 / len(shares))
