"""How often a model is right in production, from the answers of people, although they see mostly the doubtful samples.

Each answer stands for as many samples as the chance to be asked makes it stand for. Values only; the method and its
sources: docs/explanation/accuracy.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

Z95: Final = 1.959964
STEPS: Final = 100
"""Scores are counted in hundredths."""
LEAST_ANSWERS: Final = 10
"""Answers that a stratum needs before it says anything."""
_MOST_PARTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A sample with the answer of a person: whether the label was right. `chance` is that of being asked, 0 to 1."""

    score: float
    right: bool
    chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stratum:
    """Samples that reach people in one way. `scores` is (STEPS + 1,): how many samples there are by hundredths.

    With `at_random` chance alone chose what people saw, so the answers stand for all samples. Otherwise people chose
    what they answered first, perhaps the least sure ones, and an answer stands for samples with similar scores.
    """

    scores: Floats
    answers: tuple[Answered, ...]
    at_random: bool = False

    @property
    def samples(self) -> int:
        """How many there are."""
        return int(self.scores.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A share with its interval of 95 % confidence, of `answers` that count as `effective` equal ones.

    `samples` are those that it stands for.
    """

    value: float
    low: float
    high: float
    answers: int
    effective: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighted:
    """Answers as arrays, sorted by falling score: score, whether wrong, and how many samples each stands for."""

    scores: Floats
    wrong: Floats
    weights: Floats


def place(score: float) -> int:
    """The hundredth in which a score counts."""
    return min(STEPS, max(0, math.floor(score * STEPS + 1e-9)))


def accuracy(strata: Sequence[Stratum]) -> Estimate | None:
    """The share of samples whose label is right; None while a stratum with samples has fewer than LEAST_ANSWERS.

    Within parts of similar score the estimate is that of Hajek (1971) for answers of unequal chance, its interval that
    of Wilson (1927) with the effective number of Kish (1965); parts are added by the method of Zou and Donner (2008).
    """
    parts = [part for stratum in strata if stratum.samples for part in parts_of(stratum)]
    if not parts or any(len(part.answers) < LEAST_ANSWERS for part in parts):
        return None
    total = sum(part.samples for part in parts)
    value = below = above = 0.0
    effective = []
    for part in parts:
        share = part.samples / total
        one = _of_part(part)
        value += share * one.value
        below += (share * (one.value - one.low)) ** 2
        above += (share * (one.high - one.value)) ** 2
        effective.append((share, one.effective))
    return Estimate(
        value=value,
        low=max(0.0, value - math.sqrt(below)),
        high=min(1.0, value + math.sqrt(above)),
        answers=sum(len(part.answers) for part in parts),
        effective=1 / sum(share**2 / size for share, size in effective),
        samples=total,
    )


def naive(strata: Sequence[Stratum]) -> float | None:
    """The share of all answers that were right, as if people saw a fair sample; None without answers."""
    answers = [answer.right for stratum in strata for answer in stratum.answers]
    return sum(answers) / len(answers) if answers else None


def weighted(strata: Sequence[Stratum]) -> Weighted:
    """All answers together, each with the number of samples that it stands for."""
    scores, wrong, weights = [], [], []
    for stratum in strata:
        for part in parts_of(stratum):
            total = sum(1 / answer.chance for answer in part.answers)
            for answer in part.answers:
                scores.append(answer.score)
                wrong.append(0.0 if answer.right else 1.0)
                weights.append(part.samples / answer.chance / total)
    order = np.argsort(-np.array(scores), kind="stable")
    return Weighted(scores=np.array(scores)[order], wrong=np.array(wrong)[order], weights=np.array(weights)[order])


def wilson(share: float, size: float, z: float = Z95) -> tuple[float, float]:
    """The interval of Wilson (1927) of a share of `size` answers, which need not be a whole number."""
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _of_part(part: Stratum) -> Estimate:
    weights = np.array([1 / answer.chance for answer in part.answers])
    right = np.array([answer.right for answer in part.answers], float)
    value = float(weights @ right / weights.sum())
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    low, high = wilson(value, effective)
    return Estimate(
        value=value, low=low, high=high, answers=len(part.answers), effective=effective, samples=part.samples
    )


def parts_of(stratum: Stratum) -> list[Stratum]:
    """The stratum in up to _MOST_PARTS ranges of score, each with at least LEAST_ANSWERS where there are so many."""
    if stratum.at_random:
        return [stratum]
    answers = sorted(stratum.answers, key=lambda answer: answer.score)
    count = max(1, min(_MOST_PARTS, len(answers) // (2 * LEAST_ANSWERS)))
    cuts = sorted({place(answers[len(answers) * part // count].score) for part in range(1, count)} - {0})
    ranges = list(zip([0, *cuts], [*cuts, STEPS + 1], strict=True))
    parts = []
    for low, high in ranges:
        scores = np.zeros_like(stratum.scores)
        scores[low:high] = stratum.scores[low:high]
        inside = tuple(answer for answer in answers if low <= place(answer.score) < high)
        parts.append(Stratum(scores=scores, answers=inside))
    return _merged(parts)


def _merged(parts: Sequence[Stratum]) -> list[Stratum]:
    """Parts with too few answers join the part before them, or the first one the next; empty parts go."""
    merged: list[Stratum] = []
    for part in parts:
        if merged and min(len(part.answers), len(merged[-1].answers)) < LEAST_ANSWERS:
            last = merged.pop()
            merged.append(Stratum(scores=last.scores + part.scores, answers=(*last.answers, *part.answers)))
        else:
            merged.append(part)
    return [part for part in merged if part.samples]
