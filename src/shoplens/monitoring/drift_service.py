"""What pages and programs read of drift: the days of a channel, and its model's test photos beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np

from shoplens.bundles.bundle import Bundle
from shoplens.db import Database
from shoplens.errors import ChannelNotFound, ModelNotFound
from shoplens.monitoring.drift import LEAST_DAYS, LEAST_ROWS, squared_distance
from shoplens.monitoring.drift_job import LOOK_BACK, reference
from shoplens.monitoring.drift_repository import DriftDay, DriftRepository
from shoplens.monitoring.profile import BINS, Measure, Profile, pooled
from shoplens.predictions.entities import Channel

DAYS: Final = 90
MOST_DAYS: Final = 365
_RECENT: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleComparison:
    """The last days beside the test photos with which the model was measured. None where its bundle does not say.

    `classes` is a Jensen-Shannon distance of predicted labels, `confidence` the greatest difference of the shares of
    samples with at least some score. A shop's own mix is not that of test photos, so these alarm nobody.
    """

    data: str
    samples: int
    classes: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftReport:
    """The days of a channel, oldest first. `shown` is the day that was asked for, else the last one; None without any.

    `reference` are the days together that its measures of photos are compared with, None where there are none.
    """

    channel: str
    since: date
    until: date
    days: tuple[DriftDay, ...]
    shown: DriftDay | None
    reference: Profile | None
    reference_days: int
    tests: BundleComparison | None

    @property
    def usable_days(self) -> int:
        """Days with enough samples to be part of a reference."""
        return sum(day.profile.rows >= LEAST_ROWS for day in self.days)

    @property
    def alarms(self) -> Mapping[Measure, date]:
        """What alarms on the shown day, and since when without a day in between that did not."""
        found: dict[Measure, date] = {}
        if self.shown is None:
            return found
        for finding in self.shown.alarms:
            since = self.shown.day
            for day in reversed([each for each in self.days if each.day < self.shown.day]):
                earlier = day.finding(finding.measure)
                if earlier is not None and not earlier.alarm:
                    break
                if earlier is not None:
                    since = day.day
            found[finding.measure] = since
        return found


class DriftService:
    """Blocks; raises DatabaseUnavailable. `find_bundle` gives an installed model, or raises ModelNotFound."""

    def __init__(
        self,
        database: Database,
        *,
        channels: Mapping[str, Channel],
        find_bundle: Callable[[str], Bundle],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._channels = channels
        self._find_bundle = find_bundle
        self._clock = clock

    @property
    def channels(self) -> Mapping[str, Channel]:
        """By name."""
        return self._channels

    def channel(self, name: str | None) -> Channel:
        """The channel of this name, else the first. Raises ChannelNotFound."""
        if name is None:
            return next(iter(self._channels.values()))
        if name not in self._channels:
            known = ", ".join(sorted(self._channels))
            raise ChannelNotFound(f"There is no channel {name[:100]!r}; the channels are: {known}.")
        return self._channels[name]

    def of(self, name: str, *, days: int = DAYS, day: date | None = None) -> DriftReport:
        """The last `days` days, or as many up to `day`. Raises ChannelNotFound."""
        channel = self.channel(name)
        until = self._clock().date() if day is None else day + timedelta(days=1)
        since = until - timedelta(days=days)
        with self._database.reading() as tx:
            found = DriftRepository(tx).days(channel.name, min(since, until - LOOK_BACK), until)
        listed = tuple(each for each in found if each.day >= since)
        shown = listed[-1] if listed else None
        before = [] if shown is None else reference(shown, [each for each in found if each.day < shown.day], _COMPARED)
        return DriftReport(
            channel=channel.name,
            since=since,
            until=until,
            days=listed,
            shown=shown,
            reference=pooled(before) if len(before) >= LEAST_DAYS else None,
            reference_days=len(before),
            tests=self._tests(listed[-_RECENT:]),
        )

    def _tests(self, recent: Sequence[DriftDay]) -> BundleComparison | None:
        days = [day for day in recent if day.model == recent[-1].model and day.profile.rows]
        if not days:
            return None
        try:
            bundle = self._find_bundle(days[-1].model)
        except ModelNotFound:
            return None
        return beside_tests(pooled([day.profile for day in days]), bundle)


_COMPARED: Final = Measure.CLASSES


def beside_tests(profile: Profile, bundle: Bundle) -> BundleComparison | None:
    """A profile beside the measurements in the bundle; None where the bundle has none."""
    if bundle.evaluation is None:
        return None
    part = bundle.evaluation.headline
    classes = None
    if part.confusion and Measure.CLASSES in profile.names:
        predicted = np.sum(part.confusion, axis=0)
        names = {label.name: int(count) for label, count in zip(bundle.labels, predicted, strict=True) if count}
        tested = Profile(rows=0, photos=0, names={Measure.CLASSES: names}, scales={}, vectors={})
        classes = math.sqrt(squared_distance(profile, tested, Measure.CLASSES))
    confidence = None
    if part.thresholds and Measure.CONFIDENCE in profile.scales:
        counts = profile.scales[Measure.CONFIDENCE]
        from_here = np.cumsum(counts[::-1])[::-1] / counts.sum()
        confidence = max(
            abs(each.share - float(from_here[min(BINS - 1, round(each.at * BINS))])) for each in part.thresholds
        )
    return BundleComparison(
        data=bundle.evaluation.data.name, samples=part.samples, classes=classes, confidence=confidence
    )
