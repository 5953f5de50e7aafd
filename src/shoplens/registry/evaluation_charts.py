"""What an evaluation says, in numbers that charts show: how sure the model is, and how often it is right then.

An evaluation holds, for each of some thresholds, the share of photos with such a score and their accuracy. The
difference of two of them is what lies between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from shoplens.bundles.manifest import PartResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBand:
    """The photos with a score from `low` to below `high`: their share of all, and the share of these that are right.

    `accuracy` is None where there are no photos.
    """

    low: float
    high: float
    share: float
    accuracy: float | None


def score_bands(part: PartResult) -> list[ScoreBand]:
    """The bands between the thresholds of an evaluation, from the lowest score to 1."""
    edges = [(0.0, 1.0, part.accuracy), *_cumulative(part), (1.0, 0.0, 0.0)]
    bands = []
    for (low, above_low, right_low), (high, above_high, right_high) in pairwise(edges):
        share = max(0.0, above_low - above_high)
        right = right_low * above_low - right_high * above_high
        # Shares are rounded to six digits in the file, so less than that is nothing.
        accuracy = min(1.0, max(0.0, right / share)) if share > 1e-5 else None
        bands.append(ScoreBand(low=low, high=high, share=share if accuracy is not None else 0.0, accuracy=accuracy))
    return bands


def _cumulative(part: PartResult) -> Iterator[tuple[float, float, float]]:
    """Each threshold with the share of photos above it and their accuracy."""
    for each in sorted(part.thresholds, key=lambda threshold: threshold.at):
        if 0.0 < each.at < 1.0:
            yield each.at, each.share, each.accuracy or 0.0
