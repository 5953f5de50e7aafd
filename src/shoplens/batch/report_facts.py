"""Gather what the morning report says of a run, over one consistent view of the database. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoplens.batch.browse import rate_per_s
from shoplens.batch.class_mix import NIGHTS, CategoryShare, compare
from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunCounts, RunState
from shoplens.batch.item_table import FailureCount, RunRange
from shoplens.db.uow import ReadWork

MOST_TO_REVIEW: Final = 24
MOST_PER_REASON: Final = 12
MOST_SLOWEST: Final = 10
_CLASSIFIED: Final = (ItemState.DONE, ItemState.NEEDS_REVIEW)


@dataclass(frozen=True, slots=True)
class SumRow:
    """One line of the sums; `number` has its sign, and a total is shown also where it is 0."""

    name: str
    number: int
    words: str
    total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of the bar at the top, as shares of its length from 0 to 1."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """The sums of a run: where everything that arrived has gone.

    `planned` was counted by the night itself when it began, all else is counted from the items now. `own` are the
    run's items by state; `passed_on` are items that were there for it and wait again or belong to a later run;
    `waiting` are those that an active run has yet to take.
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
        """The items that belong to the run now."""
        return sum(self.own.by_state.values())

    @property
    def unfinished(self) -> int:
        """Items of the run that are neither done nor doubtful nor set aside."""
        return self.in_run - self.own.settled

    @property
    def joined(self) -> int:
        """Items that came to the run after it had begun, because somebody let them be tried again."""
        return max(0, self.in_run - self.planned)

    @property
    def elsewhere(self) -> int:
        """What arrived since the run before and is now in another run, or waits again."""
        return self.arrived - (self.in_run - self.older) - self.duplicates - self.refused

    @property
    def sent_back(self) -> int:
        """Planned items that are not the run's any more, for which there is a place where they are."""
        return max(0, min(self.planned - self.in_run, self.passed_on))

    @property
    def missing(self) -> int:
        """Planned items that are nowhere. Anything but 0 is a fault of the program."""
        return max(0, self.planned - self.in_run - self.passed_on)

    @property
    def settled(self) -> bool:
        """Whether every item is accounted for, and none is still to be done."""
        return self.missing == self.unfinished == self.waiting == 0

    def rows(self) -> list[SumRow]:
        """The sums line by line: what arrived, what of it came to the run, what became of that."""
        own = self.own
        return [
            SumRow("arrived", self.arrived, "Files that arrived since the run before"),
            SumRow("duplicates", -self.duplicates, "Duplicates of photos that were there already"),
            SumRow("refused", -self.refused, "Set aside on arrival"),
            SumRow("elsewhere", -self.elsewhere, "Waiting for another run, or in one"),
            SumRow("older", self.older, "Left by earlier nights"),
            SumRow("in_run", self.in_run, "Photos of this run", total=True),
            SumRow("done", own[ItemState.DONE], "Done"),
            SumRow("needs_review", own[ItemState.NEEDS_REVIEW], "Doubtful"),
            SumRow("quarantined", own[ItemState.QUARANTINED], "Set aside by the run"),
            SumRow("unfinished", self.unfinished, "Not finished"),
            SumRow("planned", self.planned, "Photos that the run was to do when it began", total=True),
            SumRow("joined", self.joined, "Came to it later, to be tried again"),
            SumRow("sent_back", -self.sent_back, "Sent back since, to be tried again"),
            SumRow("waiting", -self.waiting, "Still to be taken"),
            SumRow("missing", -self.missing, "Nowhere"),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Items that were set aside for one reason, as many of them as are shown."""

    code: str
    example: str
    count: int
    shown: Sequence[BatchItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that the report says. `ended_at` is None before anything was finished; `per_minute` likewise."""

    run: BatchRun
    written_at: datetime
    counts: RunCounts
    accounting: Accounting
    ended_at: datetime | None
    per_minute: float | None
    corrected: int
    doubtful: Sequence[BatchItem]
    reasons: Sequence[Reason]
    mix: Sequence[CategoryShare]
    nights: int
    slowest: Sequence[BatchItem]

    @property
    def total(self) -> int:
        """All items but the duplicates."""
        return sum(self.counts.by_state.values()) - self.counts[ItemState.DUPLICATE]

    @property
    def rest(self) -> int:
        """Items that wait, or that are worked on."""
        return self.total - self.counts.settled

    @property
    def parts(self) -> list[Part]:
        """How the items are divided."""
        numbers = {
            "done": self.counts[ItemState.DONE],
            "needs_review": self.counts[ItemState.NEEDS_REVIEW],
            "aside": self.counts[ItemState.QUARANTINED],
            "rest": self.rest,
        }
        total, before, parts = self.total or 1, 0, []
        for kind, number in numbers.items():
            parts.append(Part(kind=kind, left=before / total, width=number / total))
            before += number
        return parts


def gather(work: ReadWork, run: BatchRun, *, now: datetime) -> ReportFacts:
    """The facts of `run`. Bounded, however many items it has."""
    within = work.item_table.range_of(run)
    counts = RunCounts(by_state=work.item_table.count_states(within))
    accounting = _accounting(work, run, within, counts)
    rate = rate_per_s(run, accounting.own.settled, now)
    before = work.batch_runs.page(run.channel, limit=NIGHTS, before=run.id, state=RunState.FINISHED)
    nights = [_categories(work, each) for each in before]
    return ReportFacts(
        run=run,
        written_at=now,
        counts=counts,
        accounting=accounting,
        ended_at=run.finished_at or run.last_item_at,
        per_minute=None if rate is None else rate * 60,
        corrected=work.item_table.count_corrected(run.id),
        doubtful=work.item_table.least_sure(run.id, MOST_TO_REVIEW),
        reasons=[_reason(work, within, count) for count in work.item_table.failures(within)],
        mix=compare(_categories(work, run), nights),
        nights=sum(1 for night in nights if night),
        slowest=work.batch_items.slowest(run.id, MOST_SLOWEST),
    )


def _accounting(work: ReadWork, run: BatchRun, within: RunRange, counts: RunCounts) -> Accounting:
    own = RunCounts(by_state=work.batch_items.count_states(run.id))
    waiting = work.batch_items.count_waiting(run.channel, bound=run.bound) - own[ItemState.WAITING] if run.active else 0
    return Accounting(
        planned=run.planned,
        own=own,
        passed_on=work.item_table.count_passed_on(run),
        arrived=work.item_table.count_arrived(within),
        older=work.item_table.count_older(within),
        duplicates=counts[ItemState.DUPLICATE],
        refused=counts[ItemState.QUARANTINED] - own[ItemState.QUARANTINED],
        waiting=waiting,
    )


def _categories(work: ReadWork, run: BatchRun) -> Counter[str]:
    """How many classified items of a run there are by label."""
    found: Counter[str] = Counter()
    for (state, label), count in work.batch_items.count_labels(run.id).items():
        if state in _CLASSIFIED:
            found[label] += count
    return found


def _reason(work: ReadWork, within: RunRange, count: FailureCount) -> Reason:
    shown = work.item_table.set_aside(within, count.code, MOST_PER_REASON)
    return Reason(code=count.code, example=count.example, count=count.count, shown=shown)
