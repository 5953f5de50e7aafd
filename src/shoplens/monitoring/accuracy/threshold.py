"""The threshold that keeps a goal such as "at most 1 % wrong", chosen from weighted answers of people.

Thresholds are tried from the highest down, and the last one that keeps the goal with 95 % confidence is the choice:
fixed-sequence testing, so that trying many does not raise the chance of a wrong choice (Angelopoulos et al. 2021,
"Learn then Test"; the same idea for one classifier: Geifman and El-Yaniv 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoplens.monitoring.accuracy.estimates import LEAST_ANSWERS, STEPS, Floats, Stratum, Weighted, parts_of, weighted

MISTAKE: Final = 0.05
"""The chance that the goal is not kept by the threshold that was chosen."""
_LEAST_THRESHOLD: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdPoint:
    """What would hold with this threshold: the share of samples without a person, and the share of these that is wrong.

    `wrong` is None without an answer from here on; `at_most` is its upper bound with 95 % confidence. `answers` are
    those of samples with at least this score, which count as `effective` equal ones.
    """

    at: float
    automatic: float
    wrong: float | None
    at_most: float
    answers: int
    effective: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChoice:
    """The lowest threshold that keeps the goal; None where the answers do not show it for any.

    `needed` are about as many answers, taken at random from sure samples and all right, as would show it.
    """

    goal: float
    point: ThresholdPoint | None
    needed: int


def curve(strata: Sequence[Stratum]) -> tuple[ThresholdPoint, ...]:
    """A point for each hundredth from 1 down to the least threshold; empty without any sample.

    From a score on below which too few samples were answered, nothing is known.
    """
    scores = np.sum([stratum.scores for stratum in strata], axis=0) if strata else np.zeros(STEPS + 1)
    total = scores.sum()
    if not total:
        return ()
    answers, unknown = weighted(strata), _highest_unanswered(strata)
    from_here = np.cumsum(scores[::-1])[::-1]
    points = []
    for step in range(STEPS, _LEAST_THRESHOLD - 1, -1):
        automatic = float(from_here[step] / total)
        if step <= unknown:
            points.append(
                ThresholdPoint(at=step / STEPS, automatic=automatic, wrong=None, at_most=1.0, answers=0, effective=0.0)
            )
        else:
            points.append(_point(answers, step, automatic=automatic))
    return tuple(points)


def choose(points: Sequence[ThresholdPoint], goal: float) -> ThresholdChoice:
    """The choice among the points of a curve. The first one tried is the highest with enough answers for the goal."""
    needed = answers_needed(goal)
    chosen: ThresholdPoint | None = None
    for point in points:
        if point.effective < needed:
            continue
        if point.at_most > goal:
            break
        chosen = point
    return ThresholdChoice(goal=goal, point=chosen, needed=needed)


def answers_needed(goal: float) -> int:
    """How many answers, all right, show with 95 % confidence that at most the share `goal` is wrong."""
    return math.ceil(math.log(MISTAKE) / math.log(1 - goal))


def upper_bound(share: float, size: float) -> float:
    """The share that `size` answers with `share` wrong ones exclude with 95 % confidence, by the bound of Chernoff
    (1952): exact where nothing is wrong, else a little too high, and also for a size that is no whole number.
    """
    if size <= 0:
        return 1.0
    low, high = share, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if size * _relative_entropy(share, middle) < -math.log(MISTAKE):
            low = middle
        else:
            high = middle
    return high


def _point(answers: Weighted, step: int, *, automatic: float) -> ThresholdPoint:
    at = step / STEPS
    count = int(np.searchsorted(-answers.scores, -at + 1e-9, side="right"))
    weights: Floats = answers.weights[:count]
    if not count:
        return ThresholdPoint(at=at, automatic=automatic, wrong=None, at_most=1.0, answers=0, effective=0.0)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    wrong = float(weights @ answers.wrong[:count] / weights.sum())
    return ThresholdPoint(
        at=at,
        automatic=automatic,
        wrong=wrong,
        at_most=upper_bound(wrong, effective),
        answers=count,
        effective=effective,
    )


def _highest_unanswered(strata: Sequence[Stratum]) -> int:
    """The highest hundredth of samples for which no answers stand; -1 where there are none."""
    parts = [part for stratum in strata for part in parts_of(stratum) if len(part.answers) < LEAST_ANSWERS]
    return max((int(np.flatnonzero(part.scores).max()) for part in parts if part.samples), default=-1)


def _relative_entropy(share: float, of: float) -> float:
    """Of two Bernoulli distributions, in nats."""
    if not 0 < of < 1:
        return 0.0 if share == of else math.inf
    first = share * math.log(share / of) if share > 0 else 0.0
    second = (1 - share) * math.log((1 - share) / (1 - of)) if share < 1 else 0.0
    return first + second
