"""Whether a day differs from the days before it by more than days usually do. Values only.

The method and its sources: docs/explanation/drift.md.
Each distance is compared with what no drift would give: the noise of a sample of this size, by a bootstrap, and how
much the reference days differ from each other, which weekdays, campaigns and series of similar photos cause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoplens.monitoring.profile import NAMED, SCALED, Floats, Measure, Profile, pooled

LEAST_ROWS: Final = 30
"""Days with fewer samples are not compared."""
LEAST_DAYS: Final = 7
REFERENCE_DAYS: Final = 28
ALARM_BELOW: Final = 0.0003
"""The p-value of an alarm. Nine measures on thirty days expect 0.08 false alarms."""
_ALARM_SCORE: Final = 3.4316
"""The standard normal quantile of 1 - ALARM_BELOW."""
_DRAWS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One measure of one day against the reference.

    `distance` is a Jensen-Shannon distance for names, the statistic of Kolmogorov and Smirnov for scales, and for
    vectors the distance of the means. `usual` is what days without drift have in the middle, `limit` what they exceed
    with probability ALARM_BELOW. `p_value` is that of a distance as large as this one without drift.
    """

    measure: Measure
    distance: float
    usual: float
    limit: float
    p_value: float
    samples: int
    reference_samples: int

    @property
    def alarm(self) -> bool:
        """Whether it is too unlikely without drift."""
        return self.p_value < ALARM_BELOW


def compare(day: Profile, reference: Sequence[Profile], measure: Measure, *, seed: int) -> Finding | None:
    """The finding of one measure; None where the day has fewer than LEAST_ROWS samples of it, or the reference fewer
    than LEAST_DAYS such days. `seed` is for the bootstrap: the same one gives the same finding.
    """
    days = [each for each in reference if each.size(measure) >= LEAST_ROWS]
    samples = day.size(measure)
    if samples < LEAST_ROWS or len(days) < LEAST_DAYS:
        return None
    together = pooled(days)
    found = squared_distance(day, together, measure)
    noise = _noise(day, together, measure, np.random.default_rng(seed))
    null = _with_days(noise, days, measure, scale=1 / samples + 1 / together.size(measure))
    return Finding(
        measure=measure,
        distance=math.sqrt(found),
        usual=math.sqrt(null.quantile(0.0)),
        limit=math.sqrt(null.quantile(_ALARM_SCORE)),
        p_value=null.tail(found),
        samples=samples,
        reference_samples=together.size(measure),
    )


def squared_distance(one: Profile, other: Profile, measure: Measure) -> float:
    """How far two profiles are apart, squared: noise and true differences then add up."""
    if measure in NAMED:
        first, second = _aligned(one.names[measure], other.names[measure])
        return _jensen_shannon(first, second)
    if measure in SCALED:
        return _kolmogorov(one.scales[measure], other.scales[measure])
    first, second = one.vectors[measure].mean, other.vectors[measure].mean
    return float(((first - second) ** 2).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Null:
    """A gamma distribution of squared distances without drift, by its mean and variance."""

    mean: float
    variance: float

    def tail(self, value: float) -> float:
        """The probability of at least `value`, by the cube root of Wilson and Hilferty (1931)."""
        if self.mean <= 0:
            return 0.0 if value > 0 else 1.0
        width = self._width
        root = ((value / self.mean) ** (1 / 3) - (1 - width)) / math.sqrt(width)
        return 0.5 * math.erfc(root / math.sqrt(2))

    def quantile(self, score: float) -> float:
        """The value at so many standard deviations of the cube root."""
        width = self._width
        return self.mean * max(0.0, 1 - width + score * math.sqrt(width)) ** 3

    @property
    def _width(self) -> float:
        """The variance of the cube root of the value over the mean: 1 / (9 shape)."""
        return self.variance / (9 * self.mean**2) if self.mean > 0 else 0.0


def _with_days(noise: _Null, days: Sequence[Profile], measure: Measure, *, scale: float) -> _Null:
    """`noise`, and what the reference days differ from each other beyond their own noise.

    `noise` is of samples with 1 / size + 1 / reference size = `scale`; squared distances grow with it.
    """
    apart, beyond = [], []
    for at, each in enumerate(days):
        rest = pooled([*days[:at], *days[at + 1 :]])
        distance = squared_distance(each, rest, measure)
        own = 1 / each.size(measure) + 1 / rest.size(measure)
        apart.append(distance)
        beyond.append(distance - noise.mean * own / scale)
    # What a few days show of their own differences is itself uncertain: the fewer days, the more is allowed for.
    caution = 1 + 2 / math.sqrt(len(days))
    between = max(0.0, float(np.mean(beyond)))
    spread = max(0.0, float(np.var(apart, ddof=1)) - noise.variance)
    return _Null(mean=noise.mean + caution * between, variance=noise.variance + caution**2 * spread)


def _noise(day: Profile, reference: Profile, measure: Measure, random: np.random.Generator) -> _Null:
    """Squared distances of samples of the size of the day from the reference that they are drawn from."""
    size = day.size(measure)
    if measure in NAMED:
        return _drawn(np.array(list(reference.names[measure].values()), float), size, random, named=True)
    if measure in SCALED:
        return _drawn(reference.scales[measure], size, random, named=False)
    # Means of so many vectors are normal, so this needs no draws: the squared length of a normal vector.
    found = reference.vectors[measure]
    scale = 1 / size + 1 / found.count
    return _Null(mean=found.trace * scale, variance=2 * found.square * scale**2)


def _drawn(counts: Floats, size: int, random: np.random.Generator, *, named: bool) -> _Null:
    shares = counts / counts.sum()
    days = random.multinomial(size, shares, size=_DRAWS)
    references = random.multinomial(int(counts.sum()), shares, size=_DRAWS)
    distance = _jensen_shannon if named else _kolmogorov
    found = np.array([distance(one, other) for one, other in zip(days, references, strict=True)])
    return _Null(mean=float(found.mean()), variance=float(found.var()))


def _aligned(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[Floats, Floats]:
    names = sorted({*one, *other})
    return np.array([one.get(name, 0) for name in names], float), np.array(
        [other.get(name, 0) for name in names], float
    )


def _jensen_shannon(one: Floats, other: Floats) -> float:
    """The divergence of Jensen and Shannon in bits, 0 to 1 (Lin 1991). Its root is a distance."""
    first, second = one / one.sum(), other / other.sum()
    middle = (first + second) / 2
    return max(0.0, (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2)


def _relative_entropy(shares: Floats, of: Floats) -> float:
    known = shares > 0
    return float((shares[known] * np.log2(shares[known] / of[known])).sum())


def _kolmogorov(one: Floats, other: Floats) -> float:
    """The squared greatest difference of two cumulative distributions."""
    return float(np.abs(np.cumsum(one) / one.sum() - np.cumsum(other) / other.sum()).max() ** 2)
