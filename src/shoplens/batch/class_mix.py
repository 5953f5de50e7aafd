"""Compare the shares of a night's categories with those of the nights before. Counts in, shares out; no I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import variance
from typing import Final

NIGHTS: Final = 10
"""How many finished runs make up what is usual."""

LEAST_ITEMS: Final = 30
"""With fewer items tonight, or in the nights before taken together, nothing is called unusual."""

UNUSUAL_FROM: Final = 3.0
_LEAST_NIGHTS_FOR_SPREAD: Final = 3

METHOD: Final = (
    f"A share is marked where it differs from the usual one by more than {UNUSUAL_FROM:g} standard errors "
    f"(two-proportion z-test, from {LEAST_ITEMS} items on; where the nights differ among themselves by more than "
    "chance, their own spread counts instead). The usual share is that among all items of the last "
    f"{NIGHTS} finished runs."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShare:
    """One category tonight and usually; shares from 0 to 1. `z` is None where nothing can be compared."""

    label: str
    count: int
    share: float
    usual: float | None
    z: float | None

    @property
    def unusual(self) -> bool:
        """Whether it differs by more than would be chance."""
        return self.z is not None and abs(self.z) > UNUSUAL_FROM


def compare(tonight: Mapping[str, int], before: Sequence[Mapping[str, int]]) -> list[CategoryShare]:
    """Every category of tonight and of the nights before, the most frequent first."""
    nights = [night for night in before if sum(night.values())]
    usual: Counter[str] = Counter()
    for night in nights:
        usual.update(night)
    labels = sorted({*tonight, *usual}, key=lambda label: (-tonight.get(label, 0), -usual[label], label))
    return [_share(label, tonight, nights, usual) for label in labels]


def _share(
    label: str, tonight: Mapping[str, int], nights: Sequence[Mapping[str, int]], usual: Mapping[str, int]
) -> CategoryShare:
    total, total_usual = sum(tonight.values()), sum(usual.values())
    count = tonight.get(label, 0)
    share = count / total if total else 0.0
    usual_share = usual[label] / total_usual if total_usual else None
    comparable = min(total, total_usual) >= LEAST_ITEMS
    return CategoryShare(
        label=label,
        count=count,
        share=share,
        usual=usual_share,
        z=_z(count, total, usual[label], total_usual, _spread(label, nights)) if comparable else None,
    )


def _z(count: int, total: int, usual: int, total_usual: int, spread: float) -> float:
    """The difference of two proportions in standard errors; `spread` is a variance that is the least to be expected."""
    pooled = (count + usual) / (total + total_usual)
    chance = pooled * (1 - pooled) * (1 / total + 1 / total_usual)
    error = math.sqrt(max(chance, spread))
    return (count / total - usual / total_usual) / error if error else 0.0


def _spread(label: str, nights: Sequence[Mapping[str, int]]) -> float:
    """The variance of a further night's share about the mean of those before; 0.0 where there are too few."""
    totals = [(night.get(label, 0), sum(night.values())) for night in nights]
    shares = [count / total for count, total in totals if total >= LEAST_ITEMS]
    if len(shares) < _LEAST_NIGHTS_FOR_SPREAD:
        return 0.0
    return variance(shares) * (1 + 1 / len(shares))
