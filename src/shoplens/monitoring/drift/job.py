"""Compute the drift of a channel for a day and store it: once per day and channel, by a server or by a command.

A day that is computed again is replaced, and each day of each channel is committed by itself: a job that was
interrupted goes on with what is missing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Final

from shoplens.db import Database
from shoplens.db.turns import Turns
from shoplens.errors import RequestInvalid
from shoplens.monitoring.drift.baseline_repository import Baseline, BaselineRepository, expected
from shoplens.monitoring.drift.comparison import REFERENCE_DAYS, compare
from shoplens.monitoring.drift.looking import Look, PhotoLooker
from shoplens.monitoring.drift.profile import (
    OF_THE_MODEL,
    VECTORS,
    Floats,
    Measure,
    Profile,
    binned,
    counted,
    pooled,
)
from shoplens.monitoring.drift.repository import DriftDay, DriftRepository, seconds_of, start_of
from shoplens.monitoring.drift.sample_repository import Sample
from shoplens.monitoring.drift.sampling import SampleSource, chosen
from shoplens.monitoring.drift.sketch import strangeness, vectors_of
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.threads import PeriodicTask

Lookers = Callable[[str, str], PhotoLooker]
"""What looks at photos of a channel with a model, `name@version`. Where the model is gone it looks without one."""

STRANGEST: Final = 10
KEPT_DAYS: Final = 400
LOOK_BACK: Final = timedelta(days=60)
"""How far back the days of a reference may lie, since days with an alarm are left out of it."""
DAY_BEFORE: Final = timedelta(days=4)
"""The day before may be this long ago: a weekend may have too few samples."""
CATCH_UP: Final = timedelta(days=REFERENCE_DAYS)
_TASK: Final = "drift"
_LEASE: Final = timedelta(hours=1)
_EVERY: Final = timedelta(hours=1)
_CHECK_EVERY_S: Final = 60.0
_REST: Final = 3.0
"""A server that catches up rests so many times as long as it worked: requests go first."""
_log: Final = get_logger(__name__)


class DriftJob:
    """`run` and `run_if_due` block; `start` lets a thread of this process look every minute whether it is due.

    The thread calls `each_minute`, too.
    """

    def __init__(
        self,
        database: Database,
        *,
        sources: Mapping[str, SampleSource],
        lookers: Lookers,
        clock: Callable[[], datetime],
        each_minute: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._sources = sources
        self._lookers = lookers
        self._clock = clock
        self._each_minute = each_minute
        self._shown = False
        self._task = PeriodicTask("drift", self._turn, every_s=_CHECK_EVERY_S, first_s=0)

    @property
    def channels(self) -> tuple[str, ...]:
        """All channels, in alphabetical order."""
        return tuple(sorted(self._sources))

    def start(self) -> None:
        """Begin to look. Call it once."""
        self._task.start()

    def close(self) -> None:
        """Stop after the photos that are being looked at. Blocks."""
        self._task.close()

    def run_if_due(self) -> list[DriftDay] | None:
        """Compute what is missing if no other process does it now and an hour has passed; None otherwise."""
        now = self._clock()
        with self._database.transaction() as tx:
            if not Turns(tx).take(_TASK, now=now, lease=_LEASE):
                return None
        computed = []
        for day in self.run():
            computed.append(day)
            self._task.stopping.wait(_REST * day.cpu_s)
        with self._database.transaction() as tx:
            DriftRepository(tx).forget(now.date() - timedelta(days=KEPT_DAYS))
            Turns(tx).end(_TASK, next_at=self._clock() + _EVERY)
        return computed

    def run(
        self, days: Sequence[date] | None = None, *, channels: Sequence[str] | None = None, again: bool = False
    ) -> Iterator[DriftDay]:
        """Compute and store these days of these channels, oldest first; yields each as it is committed.

        Without `days` those up to yesterday since a channel began, at most CATCH_UP back. A day that is stored already
        is left as it is, unless `again`. Raises RequestInvalid for a day that is not over, DatabaseUnavailable and
        StorageUnavailable.
        """
        for channel in channels or self.channels:
            for day in self._missing(channel, days, again=again):
                computed = self.compute(channel, day)
                if self._task.stopping.is_set():
                    return
                with self._database.transaction() as tx:
                    DriftRepository(tx).save(computed)
                for finding in computed.alarms:
                    _log.warning(
                        "drift.alarm", channel=channel, day=day.isoformat(), measure=finding.measure.value,
                        distance=round(finding.distance, 4), limit=round(finding.limit, 4),
                    )  # fmt: skip
                yield computed

    def compute(self, channel: str, day: date) -> DriftDay:
        """The day as it would be stored. Raises DatabaseUnavailable and StorageUnavailable."""
        began = time.thread_time()
        source = self._sources[channel]
        samples = list(source.rows(channel, start_of(day), start_of(day + timedelta(days=1))))
        model = Counter(sample.model for sample in samples).most_common(1)
        name = model[0][0] if model else ""
        look = self._look(channel, chosen(samples), name)
        features = look.features()
        profile = _profile(samples, name, look, features)
        with self._database.reading() as tx:
            before = DriftRepository(tx).days(channel, day - LOOK_BACK, day)
            normal = BaselineRepository(tx).of_day(channel, day)
        computed = DriftDay(
            day=day,
            channel=channel,
            model=name,
            space=look.space,
            profile=profile,
            findings=(),
            strangest=(),
            cpu_s=0.0,
            computed_at=self._clock(),
        )
        found = [
            compare(
                profile,
                reference(computed, before, measure, normal),
                measure,
                seed=seconds_of(day),
                before=_p_value_before(day, before, measure),
            )
            for measure in Measure
        ]
        return replace(
            computed,
            findings=tuple(finding for finding in found if finding is not None),
            strangest=_strangest(look.ids, features, reference(computed, before, Measure.EMBEDDING_MMD, normal)),
            cpu_s=round(time.thread_time() - began, 3),
        )

    def _missing(self, channel: str, days: Sequence[date] | None, *, again: bool) -> list[date]:
        yesterday = self._clock().date() - timedelta(days=1)
        if days is not None and max(days, default=yesterday) > yesterday:
            raise RequestInvalid(f"{max(days)} is not over (UTC). Days up to {yesterday} can be compared.")
        if days is None:
            first = yesterday - CATCH_UP
            began = next(self._sources[channel].rows(channel, start_of(first), self._clock()), None)
            if began is None:
                return []
            days = [first + timedelta(days=ahead) for ahead in range((yesterday - first).days + 1)]
        wanted = sorted(set(days))
        if not wanted or again:
            return wanted
        with self._database.reading() as tx:
            known = DriftRepository(tx).known(channel, wanted[0], wanted[-1] + timedelta(days=1))
        return [day for day in wanted if day not in known]

    def _look(self, channel: str, ids: Sequence[str], model: str) -> Look:
        def photos() -> Iterator[tuple[str, bytes]]:
            for sample_id in ids:
                data = self._sources[channel].photo(sample_id)
                if data is not None:
                    yield sample_id, data

        return self._lookers(channel, model).look(photos(), going_on=lambda: not self._task.stopping.is_set())

    def _turn(self) -> None:
        if self._shown:  # what is stored is shown from the start; days are computed a minute later
            self.run_if_due()
        self._shown = True
        self._each_minute()


def reference(
    day: DriftDay, before: Sequence[DriftDay], measure: Measure, normal: Baseline | None = None
) -> list[Profile]:
    """The days that a measure of `day` is compared with: the last REFERENCE_DAYS of the same model that are usual.

    An unusual day is left out, so that a shift that stays does not become what is usual within days, unless a person
    has said since that it is `normal`; then days before that change are left out. Another model changes what follows
    from the model, but not how photos are taken.
    """
    fitting = [
        each.profile
        for each in before
        if (normal is None or each.day >= normal.day)
        and ((finding := each.finding(measure)) is None or not finding.unusual or expected(each, normal))
        and (measure not in OF_THE_MODEL or each.model == day.model)
        and (measure not in VECTORS or each.space == day.space)
    ]
    return fitting[-REFERENCE_DAYS:]


def _p_value_before(day: date, before: Sequence[DriftDay], measure: Measure) -> float | None:
    """Of the last day with enough samples, if it is not long ago."""
    found = [each.finding(measure) for each in before if each.day >= day - DAY_BEFORE]
    return next((finding.p_value for finding in reversed(found) if finding is not None), None)


def _profile(samples: Sequence[Sample], model: str, look: Look, features: Floats | None) -> Profile:
    answered = [sample for sample in samples if sample.model == model]
    photos = [sample for sample in samples if sample.format]
    names = {
        Measure.CLASSES: counted(Counter(sample.label for sample in answered)),
        Measure.FORMAT: counted(Counter(sample.format for sample in photos)),
    }
    scales = {
        Measure.CONFIDENCE: binned(Measure.CONFIDENCE, [sample.score for sample in answered]),
        Measure.SIZE: binned(Measure.SIZE, [sample.pixels for sample in photos]),
    }
    return Profile(
        rows=len(samples),
        photos=len(look.ids),
        names={measure: counts for measure, counts in names.items() if counts},
        scales={measure: counts for measure, counts in scales.items() if counts.any()} | look.scales(),
        vectors={} if look.points is None or features is None else vectors_of(look.points, features),
    )


def _strangest(ids: Sequence[str], features: Floats | None, before: Sequence[Profile]) -> tuple[tuple[str, float], ...]:
    with_vectors = [profile for profile in before if Measure.EMBEDDING_MMD in profile.vectors]
    if features is None or not with_vectors:
        return ()
    distances = strangeness(features, pooled(with_vectors).vectors[Measure.EMBEDDING_MMD])
    far = sorted(zip(ids, distances.tolist(), strict=True), key=lambda each: -each[1])[:STRANGEST]
    return tuple((sample_id, round(distance, 4)) for sample_id, distance in far)
