"""The gauges of drift and accuracy, set from what is stored: another process may have computed it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from shoplens.db import Database
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.monitoring.drift.profile import Measure
from shoplens.monitoring.drift.repository import DriftRepository, seconds_of
from shoplens.telemetry.metrics import Metrics

_SHOWN: timedelta = timedelta(days=7)
"""An alarm that is older than this says nothing of now."""


class DriftGauges:
    """Call it to set the gauges: a value per channel and measure. Raises DatabaseUnavailable."""

    def __init__(
        self, database: Database, accuracy: AccuracyService, metrics: Metrics, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._accuracy = accuracy
        self._metrics = metrics
        self._clock = clock

    def __call__(self) -> None:
        """Set them."""
        channels = tuple(self._accuracy.channels)
        with self._database.reading() as tx:
            alarms = DriftRepository(tx).last_alarms(channels, (self._clock() - _SHOWN).date())
        for channel in channels:
            day, measures = alarms.get(channel, (None, ()))
            for measure in Measure:
                self._metrics.drift_alarm.labels(channel, measure.value).set(measure in measures)
            if day is not None:
                self._metrics.drift_day.labels(channel).set(seconds_of(day))
            estimate = self._accuracy.of(channel).automatic
            for bound in ("value", "low", "high"):
                gauge = self._metrics.accuracy.labels(channel, bound)
                gauge.set(float("nan") if estimate is None else getattr(estimate, bound))
