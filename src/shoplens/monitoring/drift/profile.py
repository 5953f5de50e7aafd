"""What is kept of a day of one channel: counts of all its samples, and mean vectors of a sample of its photos.

A profile has no photo and no single embedding in it, so it is small, and profiles of many days add up to a reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = Mapping[str, int]

MOST_NAMES: Final = 200
"""Labels with counts of their own in a profile; the rarer ones share one."""
OTHERS: Final = "(others)"
BINS: Final = 50


class Measure(StrEnum):
    """What is watched. The first group are counts of names, the second of places on a scale, the third mean vectors."""

    CLASSES = "classes"
    FORMAT = "format"
    CONFIDENCE = "confidence"
    SIZE = "size"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    SHARPNESS = "sharpness"
    EMBEDDING_MEAN = "embedding_mean"
    EMBEDDING_MMD = "embedding_mmd"


NAMED: Final = (Measure.CLASSES, Measure.FORMAT)
SCALED: Final = (Measure.CONFIDENCE, Measure.SIZE, Measure.BRIGHTNESS, Measure.CONTRAST, Measure.SHARPNESS)
VECTORS: Final = (Measure.EMBEDDING_MEAN, Measure.EMBEDDING_MMD)
OF_THE_MODEL: Final = (Measure.CLASSES, Measure.CONFIDENCE, *VECTORS)
"""Measures that another version of the model changes although the photos are the same."""

_RANGES: Final[Mapping[Measure, tuple[float, float]]] = {
    Measure.CONFIDENCE: (0.0, 1.0),
    Measure.SIZE: (-8.0, 6.0),  # log2 of megapixels: 60 x 60 pixels to 64 MP
    Measure.BRIGHTNESS: (0.0, 256.0),
    Measure.CONTRAST: (0.0, 128.0),
    Measure.SHARPNESS: (0.0, 14.0),  # log2 of the variance of the Laplacian
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeanVector:
    """The mean of `count` vectors, and their covariance in two numbers: its trace, and the trace of its square.

    They are the mean and half the variance of the squared distance of a sample's mean, times its size.
    """

    count: int
    mean: Floats
    trace: float
    square: float

    @classmethod
    def of(cls, vectors: Floats) -> MeanVector:
        """Of (n, dimensions) with n > 0."""
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        covariance = centred.T @ centred / len(vectors)
        return cls(
            count=len(vectors), mean=mean, trace=float(np.trace(covariance)), square=float((covariance**2).sum())
        )

    @classmethod
    def pooled(cls, parts: Sequence[MeanVector]) -> MeanVector:
        """That of all parts together; its covariance is the mean of those within the parts."""
        counts = np.array([part.count for part in parts], float)
        shares = counts / counts.sum()
        return cls(
            count=int(counts.sum()),
            mean=shares @ np.stack([part.mean for part in parts]),
            trace=float(shares @ [part.trace for part in parts]),
            square=float(shares @ [part.square for part in parts]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """One day of one channel, or several days together.

    `names` has counts by name, `scales` has (BINS,) counts for each of SCALED, `vectors` the mean vectors. A measure
    for which there were no samples is left out. `rows` are all samples, `photos` those that were looked at.
    """

    rows: int
    photos: int
    names: Mapping[Measure, Counts]
    scales: Mapping[Measure, Floats]
    vectors: Mapping[Measure, MeanVector]

    def size(self, measure: Measure) -> int:
        """How many samples a measure is of; 0 where it is missing."""
        if measure in NAMED:
            return sum(self.names.get(measure, {}).values())
        if measure in SCALED:
            return int(self.scales[measure].sum()) if measure in self.scales else 0
        return self.vectors[measure].count if measure in self.vectors else 0


def pooled(profiles: Sequence[Profile]) -> Profile:
    """All days together."""
    names: dict[Measure, Counts] = {}
    scales: dict[Measure, Floats] = {}
    vectors: dict[Measure, MeanVector] = {}
    for named in NAMED:
        counts: dict[str, int] = {}
        for profile in profiles:
            for name, count in profile.names.get(named, {}).items():
                counts[name] = counts.get(name, 0) + count
        if counts:
            names[named] = counts
    for scaled in SCALED:
        found = [profile.scales[scaled] for profile in profiles if scaled in profile.scales]
        if found:
            scales[scaled] = np.sum(found, axis=0)
    for each in VECTORS:
        parts = [profile.vectors[each] for profile in profiles if each in profile.vectors]
        if parts:
            vectors[each] = MeanVector.pooled(parts)
    return Profile(
        rows=sum(profile.rows for profile in profiles),
        photos=sum(profile.photos for profile in profiles),
        names=names,
        scales=scales,
        vectors=vectors,
    )


def binned(measure: Measure, values: Sequence[float] | Floats) -> Floats:
    """(BINS,) counts of values of a measure on its scale; what lies outside counts at the end of the scale.

    Sizes are in pixels, sharpness is the variance of the Laplacian; both are counted by their logarithm.
    """
    found = np.asarray(values, float)
    if measure is Measure.SIZE:
        found = np.log2(np.maximum(found, 1.0) / 1e6)
    elif measure is Measure.SHARPNESS:
        found = np.log2(np.maximum(found, 1.0))
    low, high = _RANGES[measure]
    places = np.clip(((found - low) / (high - low) * BINS).astype(int), 0, BINS - 1)
    return np.bincount(places, minlength=BINS).astype(float)


def bin_edges(measure: Measure) -> Floats:
    """(BINS + 1,) edges of the bins, in the unit of the measure."""
    low, high = _RANGES[measure]
    edges = np.linspace(low, high, BINS + 1)
    return edges if measure not in (Measure.SIZE, Measure.SHARPNESS) else np.exp2(edges)


def counted(names: Mapping[str, int]) -> Counts:
    """The most frequent MOST_NAMES names, and the sum of the others."""
    ranked = sorted(names.items(), key=lambda each: (-each[1], each[0]))
    kept = dict(ranked[:MOST_NAMES])
    rest = sum(count for _, count in ranked[MOST_NAMES:])
    return kept | ({OTHERS: rest} if rest else {})


def to_json(profile: Profile) -> dict[str, Any]:
    """Plain values that `from_json` reads; vectors are rounded to 5 digits."""
    return {
        "rows": profile.rows,
        "photos": profile.photos,
        "names": {measure.value: dict(counts) for measure, counts in profile.names.items()},
        "scales": {measure.value: [int(count) for count in counts] for measure, counts in profile.scales.items()},
        "vectors": {
            measure.value: [each.count, each.trace, each.square, [round(float(value), 5) for value in each.mean]]
            for measure, each in profile.vectors.items()
        },
    }


def from_json(stored: Mapping[str, Any]) -> Profile:
    """The profile that was stored."""
    return Profile(
        rows=stored["rows"],
        photos=stored["photos"],
        names={Measure(name): counts for name, counts in stored["names"].items()},
        scales={Measure(name): np.asarray(counts, float) for name, counts in stored["scales"].items()},
        vectors={
            Measure(name): MeanVector(count=count, trace=trace, square=square, mean=np.asarray(mean, float))
            for name, (count, trace, square, mean) in stored["vectors"].items()
        },
    )
