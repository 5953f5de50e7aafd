"""Fill a new database with a simulated quarter of a shop, so that its pages can be seen full. None of it happened.

    shoplens db upgrade
    python -m examples.simulate_quarter                   # 90 days up to now, about 240 records a day
    python -m examples.simulate_quarter --days 30 --seed 7

It writes rows as the server does, but keeps no photos of them: records without `image_key`, what people said of them, a
run each night, and the time series of monitoring. Shoppers' photos and products go through the services of moderation
and of the catalogue, with drawn pictures (`simulated_shoppers.py`, `simulated_products.py`). What can be seen in it:

- the days of a week, a few more requests each week, and a sale from the 40th to the 33rd day before the end;
- a power cut of seven hours on the 20th day before the end: a gap, and no zeros;
- an evening with a full queue and failures on the 12th day before the end;
- the model of returns, `clothing`, is replaced by 1.1.0 on the 30th day before the end: people agree with it more;
- darker photos of returns in the last ten days: the model is less sure and more photos need a person;
- photos of shoppers that are published, held, refused, reported and appealed against, some of which wait now;
- products that are imported each week, suggested by runs, accepted, corrected and taken back;
- a disk that becomes full.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Final

from sqlalchemy import Connection

from examples.simulated_agenda import Agenda, Pictures
from examples.simulated_products import Products, SimulatedCatalogue
from examples.simulated_shoppers import Shoppers
from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunOwner, RunState
from shoplens.batch.entities import References as BatchReferences
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.bundles.manifest import ModelRef
from shoplens.catalogue.photos import ProductPhotos
from shoplens.db import Database, open_database, upgrade
from shoplens.db.tables import make_id
from shoplens.errors import ImageCorrupt, Misconfigured, ShoplensError
from shoplens.images.picture import ImageFacts
from shoplens.moderation.policy.entities import Band
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    SERVER,
    Counts,
    MinuteReading,
    SeriesKey,
    ServerState,
)
from shoplens.monitoring.series.recorder import Kept
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.platform.catalogue import catalogue_channels, stored_trees
from shoplens.platform.parts import build_channels, build_limits, build_sandbox
from shoplens.predictions.entities import Answer, Feedback, FeedbackValue, Keep, PredictionRecord, Timing
from shoplens.predictions.policy import LabelRule, Outcome, Policy, decide
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.serving.engine import LabelScore, Prediction
from shoplens.settings import Settings, read_settings
from shoplens.storage import open_store
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
_PHOTOS_PER_REVIEW: Final = 4 / 3
_FIRST_TABLE: Final = 160
_WEEKLY_TABLE: Final = 40
_TABLE_DAY: Final = 1
"""Tuesday."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedChannel:
    """A channel: its model, its labels with their shares, how many samples a day has, and whether runs make them.

    Those of a `moderated` channel are photos of shoppers, not records.
    """

    name: str
    model: str
    labels: Sequence[tuple[str, float]]
    policy: Policy
    per_day: int
    latency_ms: float
    at_night: bool = False
    moderated: bool = False


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
        policy=Policy(accept_at=0.8, audit_share=0.02),
        per_day=150,
        latency_ms=21,
        at_night=True,
    ),
    SimulatedChannel(
        name="reviews",
        model="opennsfw",
        labels=(("safe", 0.97), ("nsfw", 0.03)),
        policy=Policy(rules=(LabelRule(label="nsfw", review_at=0.4, reject_at=0.85),)),
        per_day=40,
        latency_ms=32,
        moderated=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """How much was written."""

    records: int = 0
    remarks: int = 0
    runs: int = 0
    hours: int = 0
    photos: int = 0
    moderated: int = 0
    products: int = 0
    categorised: int = 0

    def __str__(self) -> str:
        return (
            f"Wrote {self.records:,} simulated records, {self.remarks:,} remarks of people, {self.runs:,} runs, "
            f"{self.photos:,} photos of shoppers with {self.moderated:,} decisions of moderators, {self.products:,} "
            f"products with {self.categorised:,} decisions on their categories, and {self.hours:,} hours of figures. "
            "None of it happened."
        )


def simulate(database: Database, settings: Settings, *, days: int, seed: int, now: datetime) -> Simulated:
    """Write `days` up to `now`. The same seed and `now` write the same, but for ids and random checks of products.

    Raises DatabaseUnavailable, StorageUnavailable and Misconfigured.
    """
    random = Random(seed)
    written = Simulated()
    # The hour that is going on is left to the server, which may write it now.
    end = int(now.timestamp()) // HOUR_S * HOUR_S
    begin = end - days * DAY_S
    agenda = Agenda(Random(seed + 1))
    shoppers, products = _jobs(database, settings, agenda)
    for number in range(days + 1):
        since, until = max(begin, (begin // DAY_S + number) * DAY_S), min(end, (begin // DAY_S + number + 1) * DAY_S)
        if since >= until:
            continue
        day = _Day(random, since=since, until=until, ago=(end - since) // DAY_S, whole=days)
        records = day.records()
        remarks = [each for record in records if (each := day.remark(record)) is not None]
        day.plan(agenda, shoppers, products, first=number == 0)
        agenda.run_until(until)
        with database.transaction() as tx:
            PredictionRepository(tx).add_many(records)
            for remark in remarks:
                FeedbackRepository(tx).add(remark)
            written = replace(written, runs=written.runs + day.write_run(tx, records, remarks))
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
    shoppers.finish()
    return replace(
        written,
        photos=shoppers.photos,
        moderated=shoppers.decisions,
        products=0 if products is None else products.products,
        categorised=0 if products is None else products.decisions,
    )


def _jobs(database: Database, settings: Settings, agenda: Agenda) -> tuple[Shoppers, Products | None]:
    """The shoppers of the moderated channel, and the products of the channel with a catalogue, if there is one."""
    store = open_store(settings.effective_storage_url, setting="storage_url")
    pictures = Pictures(agenda.random)
    moderated = next(channel for channel in CHANNELS if channel.moderated)
    rule = moderated.policy.rules[0]
    nsfw = Band(signal=rule.label, review_at=rule.review_at, reject_at=rule.reject_at)
    shoppers = Shoppers(database, store, channel=moderated.name, nsfw=nsfw, agenda=agenda, pictures=pictures)
    channels = build_channels(settings)
    found = next(iter(catalogue_channels(settings, channels).values()), None)
    trees = None if found is None else stored_trees(settings, database)(found.name)
    if found is None or trees is None:
        return shoppers, None
    catalogue = SimulatedCatalogue(
        channel=found.name,
        model=found.model,
        accept_at=channels[found.name].policy.accept_at or found.answer_at,
        answer_at=found.answer_at,
        tree=trees.live(),
    )
    photos = ProductPhotos(store, limits=build_limits(settings), sandbox=build_sandbox(settings))
    return shoppers, Products(database, photos, catalogue, agenda=agenda, pictures=pictures)


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
            if channel.moderated:
                continue
            for _ in range(self._number(channel)):
                at = self._moment(channel)
                if not self._is_dark(at) and at < self._until:
                    found.append(self._record(channel, at))
        return sorted(found, key=lambda record: record.id)

    def plan(self, agenda: Agenda, shoppers: Shoppers, products: Products | None, *, first: bool) -> None:
        """Put the photos of shoppers and the products of the day on the agenda; a table of products comes each week."""
        for channel in (each for each in CHANNELS if each.moderated):
            for _ in range(round(self._number(channel) / _PHOTOS_PER_REVIEW)):
                self._plan(agenda, self._moment(channel), shoppers.send)
        if products is None:
            return
        weekday = datetime.fromtimestamp(self._since, UTC).weekday()
        table = _FIRST_TABLE if first else _WEEKLY_TABLE if weekday == _TABLE_DAY else 0
        if table:
            self._plan(agenda, self._since + 60, partial(products.import_table, table))
        for _ in range(round(3 * self._busy)):
            self._plan(agenda, self._random.uniform(self._since, self._until), products.add_one)
        if self._ago == NEW_MODEL:
            self._plan(agenda, self._until - 60, products.accept_surest)

    def remark(self, record: PredictionRecord) -> Feedback | None:
        """What somebody said of it soon after: of nearly all that needed a person, but today, and of some others."""
        asked = record.decision.outcome is not Outcome.ACCEPT
        if self._random.random() > ((0.98 if self._ago else 0.4) if asked else 0.03):
            return None
        at = record.created_at + timedelta(minutes=self._random.randint(5, 40))
        if at.timestamp() >= self._until:
            return None
        newer = record.model.version != "1.0.1"
        sure = not asked or record.decision.random_check
        right = self._random.random() < (0.94 if sure else 0.72 if newer else 0.6)
        return Feedback(
            id=self._id(at.timestamp()),
            created_at=at,
            prediction_id=record.id,
            verdict=FeedbackValue.RIGHT if right else FeedbackValue.WRONG,
            label=record.labels[0 if right else 1].label,
        )

    def write_run(self, tx: Connection, records: Sequence[PredictionRecord], remarks: Sequence[Feedback]) -> int:
        """The run of the night, of the channels whose records come from one; how many were written."""
        runs = RunRepository(tx)
        written = 0
        for channel in CHANNELS:
            mine = [record for record in records if record.channel == channel.name]
            if not channel.at_night or not mine:
                continue
            started = datetime.fromtimestamp(mine[0].created_at.timestamp(), UTC)
            run_id = self._id(started.timestamp() - 1)
            items = [*self._items(run_id, mine, remarks), *self._damaged(run_id, mine)]
            run = BatchRun(
                id=run_id,
                channel=channel.name,
                created_at=started - timedelta(seconds=1),
                requested_by="simulation",
                state=RunState.REQUESTED,
                bound=0,
                planned=len(items),
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
                planned=len(items),
                bound=0,
            )
            ItemRepository(tx).add_many(items)
            runs.beat(run.id, owner=owner.id, now=last, finished_item=True)
            runs.finish(run.id, owner=owner.id, now=last + timedelta(seconds=1), report_key=None)
            written += 1
        return written

    def _items(
        self, run_id: str, records: Sequence[PredictionRecord], remarks: Sequence[Feedback]
    ) -> Iterator[BatchItem]:
        """An item for each record of a run, as what was said of it left it."""
        said = {remark.prediction_id: remark for remark in remarks}
        for number, record in enumerate(records):
            best = record.labels[0]
            asked = record.decision.outcome is not Outcome.ACCEPT
            left = ItemState.NEEDS_REVIEW if asked else ItemState.DONE
            remark = said.get(record.id)
            right = remark is not None and remark.verdict is FeedbackValue.RIGHT
            yield BatchItem(
                id=self._id(record.created_at.timestamp() - 3 * HOUR_S),
                channel=record.channel,
                received_at=record.created_at - timedelta(hours=3),
                source_name=record.file_name or record.id,
                sha256=record.image.sha256,
                byte_count=record.image.byte_count,
                state=left if remark is None else ItemState.DONE,
                references=BatchReferences(order=f"{self._since // DAY_S % 1000}{number // 2:03}", item=f"A-{number}"),
                attempts=1,
                run_id=run_id,
                prediction_id=record.id,
                predicted=best.label,
                score=best.score,
                label=best.label if remark is None else remark.label,
                corrected_at=None if remark is None else remark.created_at,
                finished_at=record.created_at,
                work_ms=record.timing.total_ms,
                answer=None if remark is None else Answer.CONFIRMED if right else Answer.CORRECTED,
                reviewed_from=None if remark is None else left,
                revision=0 if remark is None else 1,
            )

    def _damaged(self, run_id: str, records: Sequence[PredictionRecord]) -> Iterator[BatchItem]:
        """Files of a run that could not be read."""
        for _ in range(self._about(len(records) * 0.008)):
            record = self._random.choice(records)
            sha256 = hashlib.sha256(self._random.randbytes(8)).hexdigest()
            yield BatchItem(
                id=self._id(record.created_at.timestamp() - 3 * HOUR_S),
                channel=record.channel,
                received_at=record.created_at - timedelta(hours=3),
                source_name=f"simulated-{sha256[:8]}.jpg",
                sha256=sha256,
                byte_count=self._random.randint(20_000, 300_000),
                state=ItemState.QUARANTINED,
                attempts=1,
                run_id=run_id,
                finished_at=record.created_at,
                failure_code=ImageCorrupt.code,
                failure="The JPEG file is damaged or incomplete. Upload it again.",
            )

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
            decision=decide(Prediction(model=model, labels=labels), channel.policy, draw=self._random.random()),
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

    def _number(self, channel: SimulatedChannel) -> int:
        """How many samples of a channel the day has."""
        return round(channel.per_day * self._busy * self._random.uniform(0.9, 1.1))

    def _plan(self, agenda: Agenda, at: float, action: Callable[[], None]) -> None:
        if at < self._until and not self._is_dark(at):
            agenda.at(at, action)

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
    parser.add_argument("--days", type=int, default=DAYS, help=f"how many days (default {DAYS})")
    parser.add_argument(
        "--until",
        type=datetime.fromisoformat,
        default=datetime.now(UTC),
        help="such as 2026-03-01T12:00Z (now)",
    )
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
            print(simulate(database, settings, days=given.days, seed=given.seed, now=given.until))
        finally:
            database.close()
    except ShoplensError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
