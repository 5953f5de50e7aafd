"""Fill a new database with a simulated quarter of a shop, so that its pages can be seen full. None of it happened.

    shoplens db upgrade
    python examples/simulate_quarter.py                   # 90 days up to now, about 300 records a day
    python examples/simulate_quarter.py --days 30 --seed 7

It writes rows as the server does, but keeps no photos: records without `image_key`, what people said of them, a run
each night, and the time series of monitoring. What can be seen in it:

- the days of a week, a few more requests each week, and a sale from the 40th to the 33rd day before the end;
- a power cut of seven hours on the 20th day before the end: a gap, and no zeros;
- an evening with a full queue and failures on the 12th day before the end;
- the model of returns, `clothing`, is replaced by 1.1.0 on the 30th day before the end: people agree with it more;
- darker photos of returns in the last ten days: the model is less sure and more photos need a person;
- a disk that becomes full.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from shoplens.batch.entities import BatchRun, RunOwner, RunState
from shoplens.batch.run_repository import RunRepository
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database, open_database, upgrade
from shoplens.db.tables import make_id
from shoplens.errors import Misconfigured, ShoplensError
from shoplens.images.picture import ImageFacts
from shoplens.monitoring.entities import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    SERVER,
    Counts,
    MinuteReading,
    SeriesKey,
    ServerState,
)
from shoplens.monitoring.recorder import Kept
from shoplens.monitoring.repository import DayRepository, SeriesRepository
from shoplens.predictions.entities import Feedback, FeedbackValue, Keep, PredictionRecord, Timing
from shoplens.predictions.policy import LabelRule, Policy, decide
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.serving.engine import LabelScore, Prediction
from shoplens.settings import read_settings
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S

DAYS: Final = 90
SALE: Final = range(33, 41)
POWER_CUT: Final = 20
OVERLOAD: Final = 12
NEW_MODEL: Final = 30
DARK_PHOTOS: Final = 10
"""How many days before the end."""
_GIGABYTE: Final = 1_000_000_000
_MINUTES_KEPT: Final = timedelta(hours=48)
_RUN_HOUR: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedChannel:
    """A channel: its model, its labels with their shares, how many records a day has, and whether runs make them."""

    name: str
    model: str
    labels: Sequence[tuple[str, float]]
    policy: Policy
    per_day: int
    latency_ms: float
    at_night: bool = False


CHANNELS: Final = (
    SimulatedChannel(
        name="look",
        model="efficientnet-lite0-int8",
        labels=(("jersey", 0.3), ("jean", 0.25), ("running shoe", 0.25), ("handbag", 0.2)),
        policy=Policy(),
        per_day=90,
        latency_ms=14,
    ),
    SimulatedChannel(
        name="returns",
        model="clothing",
        labels=(("dress", 0.24), ("shoes", 0.22), ("pants", 0.2), ("shirt", 0.18), ("outwear", 0.1), ("hat", 0.06)),
        policy=Policy(accept_at=0.8),
        per_day=150,
        latency_ms=21,
        at_night=True,
    ),
    SimulatedChannel(
        name="reviews",
        model="opennsfw",
        labels=(("sfw", 0.97), ("nsfw", 0.03)),
        policy=Policy(rules=(LabelRule(label="nsfw", review_at=0.4, reject_at=0.85),)),
        per_day=60,
        latency_ms=32,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """How much was written."""

    records: int = 0
    remarks: int = 0
    runs: int = 0
    hours: int = 0

    def __str__(self) -> str:
        return (
            f"Wrote {self.records:,} simulated records, {self.remarks:,} remarks of people, {self.runs:,} runs and "
            f"{self.hours:,} hours of figures. None of it happened."
        )


def simulate(database: Database, *, days: int, seed: int, now: datetime) -> Simulated:
    """Write `days` up to `now`. The same seed and `now` write the same. Raises DatabaseUnavailable."""
    random = Random(seed)
    written = Simulated()
    # The hour that is going on is left to the server, which may write it now.
    end = int(now.timestamp()) // HOUR_S * HOUR_S
    begin = end - days * DAY_S
    for number in range(days + 1):
        since, until = max(begin, (begin // DAY_S + number) * DAY_S), min(end, (begin // DAY_S + number + 1) * DAY_S)
        if since >= until:
            continue
        day = _Day(random, since=since, until=until, ago=(end - since) // DAY_S, whole=days)
        records = day.records()
        remarks = [each for record in records if (each := day.remark(record)) is not None]
        with database.transaction() as tx:
            PredictionRepository(tx).add_many(records)
            for remark in remarks:
                FeedbackRepository(tx).add(remark)
            written = replace(written, runs=written.runs + day.write_run(tx, records))
            SeriesRepository(tx).add(list(day.readings(detailed_from=end - int(_MINUTES_KEPT.total_seconds()))))
            for step_s, keep in Kept().steps.items():
                SeriesRepository(tx).prune(step_s, keep=keep)
            begins_s = since // DAY_S * DAY_S
            DayRepository(tx).replace(begins_s, DayRepository(tx).count(begins_s), now=now)
        written = replace(
            written,
            records=written.records + len(records),
            remarks=written.remarks + len(remarks),
            hours=written.hours + (until - since) // HOUR_S,
        )
    return written


class _Day:
    """One day from `since` to `until` (Unix seconds), `ago` days before the end of `whole` days."""

    def __init__(self, random: Random, *, since: int, until: int, ago: int, whole: int) -> None:
        self._random = random
        self._since = since
        self._until = until
        self._ago = ago
        moment = datetime.fromtimestamp(since, UTC)
        week = (whole - ago) / 7
        self._busy = (1 + 0.02 * week) * (0.75 if moment.weekday() >= 5 else 1.0) * (1.6 if ago in SALE else 1.0)
        self._free = 420 - 3.1 * (whole - ago)

    def records(self) -> list[PredictionRecord]:
        """The records of the day, oldest first."""
        found: list[PredictionRecord] = []
        for channel in CHANNELS:
            count = round(channel.per_day * self._busy * self._random.uniform(0.9, 1.1))
            for _ in range(count):
                at = self._moment(channel)
                if not self._is_dark(at) and at < self._until:
                    found.append(self._record(channel, at))
        return sorted(found, key=lambda record: record.id)

    def remark(self, record: PredictionRecord) -> Feedback | None:
        """What somebody said of it in the morning after: of most that needed a person, and of some others."""
        asked = record.decision.outcome.value != "accept"
        if self._random.random() > (0.7 if asked else 0.03):
            return None
        at = record.created_at + timedelta(minutes=self._random.randint(5, 40))
        if at.timestamp() >= self._until:
            return None
        newer = record.model.version != "1.0.1"
        right = self._random.random() < (0.9 if not asked else 0.72 if newer else 0.6)
        return Feedback(
            id=self._id(at.timestamp()),
            created_at=at,
            prediction_id=record.id,
            verdict=FeedbackValue.RIGHT if right else FeedbackValue.WRONG,
            label=record.labels[0 if right else 1].label,
        )

    def write_run(self, tx: object, records: Sequence[PredictionRecord]) -> int:
        """The run of the night, of the channels whose records come from one; how many were written."""
        runs = RunRepository(tx)  # type: ignore[arg-type]
        written = 0
        for channel in CHANNELS:
            mine = [record for record in records if record.channel == channel.name]
            if not channel.at_night or not mine:
                continue
            started = datetime.fromtimestamp(mine[0].created_at.timestamp(), UTC)
            run = BatchRun(
                id=self._id(started.timestamp() - 1),
                channel=channel.name,
                created_at=started - timedelta(seconds=1),
                requested_by="simulation",
                state=RunState.REQUESTED,
                bound=0,
                planned=len(mine),
            )
            owner = RunOwner(id=self._id(started.timestamp()), host="simulation", pid=1)
            last = mine[-1].created_at
            runs.add(run)
            runs.take_over(run, owner, now=started)
            runs.describe(
                run.id,
                owner=owner.id,
                model=mine[-1].model,
                policy_version=channel.policy.version,
                planned=len(mine),
                bound=0,
            )
            runs.beat(run.id, owner=owner.id, now=last, finished_item=True)
            runs.finish(run.id, owner=owner.id, now=last + timedelta(seconds=1), report_key=None)
            written += 1
        return written

    def readings(self, *, detailed_from: int) -> Iterator[MinuteReading]:
        """What the server wrote down. Before `detailed_from` an hour's counts lie in its first minute: the minutes are
        no longer kept, and its hour is the same.
        """
        for hour in range(self._since, self._until, HOUR_S):
            parts = 60 if hour >= detailed_from else 1
            for minute in range(hour, hour + HOUR_S, MINUTE_S):
                if self._is_dark(minute):
                    continue
                counts = {} if parts == 1 and minute != hour else self._counts(minute, HOUR_S // parts)
                yield MinuteReading(begins_s=minute, counts=counts, state=self._state(minute))

    def _counts(self, at: int, seconds: int) -> dict[SeriesKey, Counts]:
        found: dict[SeriesKey, Counts] = {}
        overloaded = self._ago == OVERLOAD and at // HOUR_S % 24 == 19
        for channel in CHANNELS:
            if channel.at_night:
                continue
            mean = channel.per_day * 6 * self._busy * self._curve(at) * seconds / DAY_S
            answered = self._about(mean)
            latency = self._latency(answered, channel.latency_ms * (9 if overloaded else 1))
            review = self._about(answered * (0.06 if channel.policy.rules else 0.0))
            counts = Counts(
                answered=answered,
                accepted=answered - review,
                to_review=review,
                refused=self._about(mean * 0.015),
                busy=self._about(mean * 0.3) if overloaded else 0,
                failed=self._about(mean * 0.05) if overloaded else 0,
                latency_sum_s=answered * channel.latency_ms / 1000,
                latency=latency,
            )
            if counts != Counts():
                found[SeriesKey(channel.name, channel.model)] = counts
        if found:
            asked = sum(each.requests for each in found.values())
            failed = sum(each.failed for each in found.values())
            found[SeriesKey(SERVER)] = Counts(answered=3 * asked, refused=asked // 20, failed=failed)
        return found

    def _state(self, at: int) -> ServerState:
        overloaded = self._ago == OVERLOAD and at // HOUR_S % 24 == 19
        through = (at - self._since) / DAY_S
        free = self._free - 3.1 * through
        return ServerState(
            queue=self._random.randint(90, 128) if overloaded else int(self._random.expovariate(1.2)),
            storage_bytes=int((500 - free - 40) * _GIGABYTE),
            database_bytes=int((1.2 + (420 - free) * 0.004) * _GIGABYTE),
            disk_free_bytes=int(free * _GIGABYTE),
            disk_total_bytes=500 * _GIGABYTE,
        )

    def _record(self, channel: SimulatedChannel, at: float) -> PredictionRecord:
        dark = channel.name == "returns" and self._ago < DARK_PHOTOS
        names, shares = zip(*channel.labels, strict=True)
        label = self._random.choices(names, shares)[0]
        best = 1 - min(0.75, self._random.expovariate(5.5 if dark else 11.0))
        others = [name for name in names if name != label]
        labels = (
            LabelScore(label, round(best, 4)),
            *(LabelScore(name, round((1 - best) / len(others), 4)) for name in others),
        )
        version = "1.1.0" if channel.name == "returns" and self._ago < NEW_MODEL else "1.0.1"
        model = ModelRef(name=channel.model, version=version)
        moment = datetime.fromtimestamp(at, UTC)
        sha256 = hashlib.sha256(self._random.randbytes(8)).hexdigest()
        total_ms = channel.latency_ms * self._random.lognormvariate(0, 0.3)
        return PredictionRecord(
            id=self._id(at),
            created_at=moment,
            channel=channel.name,
            model=model,
            labels=labels,
            decision=decide(Prediction(model=model, labels=labels), channel.policy),
            image=ImageFacts(
                format="jpeg",
                width=3024,
                height=4032,
                byte_count=self._random.randint(900_000, 3_500_000),
                sha256=sha256,
                phash=sha256[:16],
            ),
            keep=Keep.NOTHING,
            image_key=None,
            timing=Timing(
                queue_ms=0.2, pixels_ms=total_ms * 0.5, inference_ms=total_ms * 0.4, total_ms=round(total_ms, 3)
            ),
            file_name=f"simulated-{sha256[:8]}.jpg",
        )

    def _moment(self, channel: SimulatedChannel) -> float:
        """A moment of this day at which such a record comes."""
        midnight = self._since // DAY_S * DAY_S
        if channel.at_night:
            return midnight + _RUN_HOUR * HOUR_S + self._random.uniform(0, 240)
        while True:
            at = midnight + self._random.uniform(0, DAY_S)
            if self._random.random() * 2 < self._curve(int(at)):
                return max(float(self._since), at)

    def _is_dark(self, at: float) -> bool:
        """Whether the server was off."""
        return self._ago == POWER_CUT and 9 <= at // HOUR_S % 24 < 16

    @staticmethod
    def _curve(at: int) -> float:
        """How busy a time of the day is, around 1: quiet at night, most in the evening."""
        return max(0.05, 1 - math.cos((at % DAY_S / DAY_S - 0.15) * 2 * math.pi))

    def _latency(self, answered: int, median_ms: float) -> tuple[int, ...]:
        buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        for _ in range(answered):
            seconds = median_ms / 1000 * self._random.lognormvariate(0, 0.4)
            buckets[next((i for i, bound in enumerate(LATENCY_BUCKETS_S) if seconds <= bound), len(buckets) - 1)] += 1
        return tuple(buckets)

    def _about(self, mean: float) -> int:
        """A count of independent events with this mean (close to Poisson's)."""
        if mean < 20:
            product, count, limit = self._random.random(), 0, math.exp(-mean)
            while product > limit:
                product, count = product * self._random.random(), count + 1
            return count
        return max(0, round(self._random.gauss(mean, math.sqrt(mean))))

    def _id(self, at: float) -> str:
        return make_id(int(at * 1000), self._random.randbytes(10))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. The settings of Shoplens name the database."""
    parser = argparse.ArgumentParser(description="Fill a new database with a simulated quarter of a shop.")
    parser.add_argument("--days", type=int, default=DAYS, help=f"how many days up to now (default {DAYS})")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        settings = read_settings()
        settings.make_data_dir()
        upgrade(settings.effective_database_url)
        database = open_database(settings.effective_database_url)
        try:
            with database.reading() as tx:
                if DayRepository(tx).first_record_s() is not None:
                    raise Misconfigured(
                        "The database has records already, and simulated ones cannot be told from them later. Set "
                        "data_dir or database_url to a new one."
                    )
            print(simulate(database, days=given.days, seed=given.seed, now=datetime.now(UTC)))
        finally:
            database.close()
    except ShoplensError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
