"""How far a night is: counts, speed, and how long the rest will take. Values and arithmetic only."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shoplens.batch.entities import SETTLED, ItemState

_RECENT_S: Final = 30.0
_MOST_MARKS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NightProgress:
    """`per_second` is that of about the last half minute; None where nothing was finished yet."""

    run_id: str
    planned: int
    counts: Mapping[ItemState, int]
    per_second: float | None = None

    @property
    def settled(self) -> int:
        """Items that the run is through with."""
        return sum(self.counts.get(state, 0) for state in SETTLED)

    @property
    def seconds_left(self) -> float | None:
        """At the present speed."""
        return None if not self.per_second else max(0, self.planned - self.settled) / self.per_second


class Pace:
    """Counts what is settled and knows the recent speed, in bounded memory."""

    def __init__(self, run_id: str, *, planned: int, before: Mapping[ItemState, int], now_s: float) -> None:
        self._run_id = run_id
        self._planned = planned
        self._counts = Counter({state: before.get(state, 0) for state in SETTLED})
        self._marks: deque[tuple[float, int]] = deque([(now_s, self._counts.total())], maxlen=_MOST_MARKS)

    def add(self, states: Iterable[ItemState], *, now_s: float) -> NightProgress:
        """Take note of items that were settled by now (monotonic seconds)."""
        self._counts.update(states)
        while len(self._marks) > 1 and self._marks[1][0] < now_s - _RECENT_S:
            self._marks.popleft()
        self._marks.append((now_s, self._counts.total()))
        return self.progress()

    def progress(self) -> NightProgress:
        """As it stands."""
        (since, first), (until, last) = self._marks[0], self._marks[-1]
        speed = (last - first) / (until - since) if until > since and last > first else None
        return NightProgress(run_id=self._run_id, planned=self._planned, counts=dict(self._counts), per_second=speed)
