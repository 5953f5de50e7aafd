"""Whether a day differs from the days before it by more than days usually do. Values only.

The method and its sources: docs/explanation/drift.md.
Each distance is compared with what no drift would give: the noise of a sample of this size, by a bootstrap, and how
much the reference days differ from each other, which weekdays, campaigns and series of similar photos cause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoplens.monitoring.drift.profile import SCALED, VECTORS, Floats, MeanVector, Measure, Profile

LEAST_ROWS: Final = 30
"""Days with fewer samples are not compared."""
LEAST_DAYS: Final = 7
REFERENCE_DAYS: Final = 28
ALARM_BELOW: Final = 0.0003
"""The p-value of a day that is unusual. Nine measures on thirty days expect 0.08 such days without a change."""
AT_ONCE_BELOW: Final = 1e-5
"""So unusual a day is an alarm at once."""
CONFIRMED_BELOW: Final = 0.01
"""Another unusual day is an alarm if the day before it was at least so unusual: chance seldom strikes twice in a row,
while a change stays.
"""
_ALARM_SCORE: Final = 3.4316
"""The standard normal quantile of 1 - ALARM_BELOW."""
_DRAWS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One measure of one day against the reference.

    `distance` is a Jensen-Shannon distance for names, the statistic of Kolmogorov and Smirnov for scales, and for
    vectors the distance of the means. `usual` is what days without drift have in the middle, `limit` what they exceed
    with probability ALARM_BELOW. `p_value` is that of a distance as large as this one without drift, `before` that of
    the day before; None where that was not compared.
    """

    measure: Measure
    distance: float
    usual: float
    limit: float
    p_value: float
    samples: int
    reference_samples: int
    before: float | None = None

    @property
    def unusual(self) -> bool:
        """Whether the day is too unlikely without drift. One such day may be chance; it is in no reference."""
        return self.p_value < ALARM_BELOW

    @property
    def alarm(self) -> bool:
        """Whether it is unusual beyond doubt, or for the second day."""
        confirmed = self.before is not None and self.before < CONFIRMED_BELOW
        return self.p_value < AT_ONCE_BELOW or (self.unusual and confirmed)


def compare(
    day: Profile, reference: Sequence[Profile], measure: Measure, *, seed: int, before: float | None = None
) -> Finding | None:
    """The finding of one measure; None where the day has fewer than LEAST_ROWS samples of it, or the reference fewer
    than LEAST_DAYS such days. `seed` is for the bootstrap: the same one gives the same finding. `before` is the p-value
    of the day before.
    """
    days = [each for each in reference if each.size(measure) >= LEAST_ROWS]
    samples = day.size(measure)
    if samples < LEAST_ROWS or len(days) < LEAST_DAYS:
        return None
    means, sizes = _means([day, *days], measure), np.array([each.size(measure) for each in days], float)
    total = float(sizes.sum())
    together = sizes @ means[1:] / total
    found = float(_squared(means[:1], together[None], measure)[0])
    scale = 1 / samples + 1 / total
    if measure in VECTORS:
        noise = _vector_noise([each.vectors[measure] for each in days], sizes / total, scale)
    else:
        noise = _drawn_noise(together, samples, int(total), measure, np.random.default_rng(seed))
    null = _with_days(noise, means[1:], sizes, measure, scale=scale)
    return Finding(
        measure=measure,
        distance=math.sqrt(found),
        usual=math.sqrt(null.quantile(0.0)),
        limit=math.sqrt(null.quantile(_ALARM_SCORE)),
        p_value=null.tail(found),
        samples=samples,
        reference_samples=int(total),
        before=before,
    )


def squared_distance(one: Profile, other: Profile, measure: Measure) -> float:
    """How far two profiles are apart, squared: noise and true differences then add up."""
    means = _means([one, other], measure)
    return float(_squared(means[:1], means[1:], measure)[0])


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


def _with_days(noise: _Null, means: Floats, sizes: Floats, measure: Measure, *, scale: float) -> _Null:
    """`noise`, and what the reference days differ from each other beyond their own noise.

    `means` has a row per day, of `sizes` samples. `noise` is of samples with 1 / size + 1 / reference size = `scale`;
    squared distances grow with it.
    """
    others = sizes.sum() - sizes
    rest = (sizes @ means - sizes[:, None] * means) / others[:, None]
    apart = _squared(means, rest, measure)
    beyond = apart - noise.mean * (1 / sizes + 1 / others) / scale
    # What a few days show of their own differences is itself uncertain: the fewer days, the more is allowed for.
    caution = 1 + 2 / math.sqrt(len(means))
    between = max(0.0, float(beyond.mean()))
    spread = max(0.0, float(apart.var(ddof=1)) - noise.variance)
    return _Null(mean=noise.mean + caution * between, variance=noise.variance + caution**2 * spread)


def _drawn_noise(shares: Floats, size: int, total: int, measure: Measure, random: np.random.Generator) -> _Null:
    """Squared distances of samples of `size` from samples of `total`, both drawn from the reference."""
    of_days = random.multinomial(size, shares, size=_DRAWS) / size
    of_references = random.multinomial(total, shares, size=_DRAWS) / total
    found = _squared(of_days, of_references, measure)
    return _Null(mean=float(found.mean()), variance=float(found.var()))


def _vector_noise(days: Sequence[MeanVector], shares: Floats, scale: float) -> _Null:
    """The same for mean vectors. Means of so many vectors are normal, so this needs no draws."""
    trace = float(shares @ [each.trace for each in days])
    square = float(shares @ [each.square for each in days])
    return _Null(mean=trace * scale, variance=2 * square * scale**2)


def _means(profiles: Sequence[Profile], measure: Measure) -> Floats:
    """(profiles, any) a row for each: shares of names, shares of bins, or the mean vector."""
    if measure in VECTORS:
        return np.stack([each.vectors[measure].mean for each in profiles])
    if measure in SCALED:
        counts = np.stack([each.scales[measure] for each in profiles])
    else:
        names = sorted({name for each in profiles for name in each.names[measure]})
        counts = np.array([[each.names[measure].get(name, 0) for name in names] for each in profiles], float)
    shares: Floats = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _squared(one: Floats, other: Floats, measure: Measure) -> Floats:
    """(rows,) squared distances of each row from the same row of the other, or from its only one."""
    distances: Floats
    if measure in VECTORS:
        distances = ((one - other) ** 2).sum(axis=1)
    elif measure in SCALED:
        distances = np.abs(np.cumsum(one, axis=1) - np.cumsum(other, axis=1)).max(axis=1) ** 2
    else:
        middle = (one + other) / 2
        distances = np.maximum(0.0, (_relative_entropy(one, middle) + _relative_entropy(other, middle)) / 2)
    return distances


def _relative_entropy(shares: Floats, of: Floats) -> Floats:
    """(rows,) in bits. Half of the sum to the middle is the divergence of Jensen and Shannon (Lin 1991), 0 to 1."""
    ratios = np.divide(shares, of, out=np.ones_like(of), where=shares > 0)
    entropies: Floats = (shares * np.log2(ratios)).sum(axis=1)
    return entropies
