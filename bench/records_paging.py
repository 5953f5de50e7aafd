"""How fast the Records page finds its rows: fill a database, then time every kind of filter.

Run: python -m bench.records_paging [--rows 1000000] [--keep FILE]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database, open_database, upgrade
from shoplens.db.tables import make_id
from shoplens.images.picture import ImageFacts
from shoplens.predictions.entities import Keep, PredictionRecord, RecordFilter, Timing
from shoplens.predictions.policy import Decision, Outcome
from shoplens.predictions.records import RecordService
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.similar import SimilarPhotos
from shoplens.serving.engine import LabelScore
from shoplens.telemetry.metrics import Metrics

_START = datetime(2026, 1, 1, tzinfo=UTC)
_CHANNELS = ("look", "reviews")
_PAGE = 50
_PER_COMMIT = 10_000
_ROUNDS = 60
_FEW = 10


def main() -> None:
    """Fill where needed, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="a database file to keep and to use again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = options.keep or Path(directory) / "records.db"
        fresh = not path.exists()
        upgrade(f"sqlite:///{path}")
        database = open_database(f"sqlite:///{path}")
        if fresh:
            _fill(database, options.rows)
        print(f"{options.rows} rows, {path.stat().st_size / 1e6:.0f} MB")
        _measure(database, options.rows)
        database.close()


def _fill(database: Database, rows: int) -> None:
    began = time.perf_counter()
    records = _records(rows)
    for first in range(0, rows, _PER_COMMIT):
        with database.transaction() as tx:
            PredictionRepository(tx).add_many(next(records) for _ in range(min(_PER_COMMIT, rows - first)))
    print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)


def _records(rows: int) -> Iterator[PredictionRecord]:
    """Two thirds `look` with 1,000 labels, the rest `reviews` with two; one review in 100,000 is refused as safe."""
    chance = random.Random(7)
    for number in range(rows):
        moment = _START + timedelta(milliseconds=20 * number)
        reviews = number % 3 == 0
        label = ("nsfw" if chance.random() < 0.01 else "safe") if reviews else f"label {int(chance.expovariate(0.01))}"
        rare = reviews and number % 99_999 == 0
        outcome = Outcome.REJECT if label == "nsfw" or rare else Outcome.ACCEPT
        if not reviews and chance.random() < 0.05:
            outcome = Outcome.REVIEW
        yield _record(chance, moment, _CHANNELS[reviews], label, outcome)


def _record(chance: random.Random, moment: datetime, channel: str, label: str, outcome: Outcome) -> PredictionRecord:
    sha256 = f"{chance.getrandbits(256):064x}"
    return PredictionRecord(
        id=make_id(int(moment.timestamp() * 1000), chance.randbytes(10)),
        created_at=moment,
        channel=channel,
        model=ModelRef(name="model", version="1"),
        labels=(LabelScore(label, 0.9), LabelScore("second best", 0.05), LabelScore("third best", 0.02)),
        decision=Decision(outcome=outcome, policy_version="0123456789ab"),
        image=ImageFacts(
            format="jpeg",
            width=1000,
            height=800,
            byte_count=200_000,
            sha256=sha256,
            phash=f"{chance.getrandbits(64):016x}",
        ),
        keep=Keep.THUMBNAIL,
        image_key=f"images/{sha256[:2]}/{sha256[2:4]}/{sha256}.jpg",
        file_name=f"IMG_{chance.randrange(10**7):07}.JPG",
        timing=Timing(queue_ms=0.1, pixels_ms=2.6, inference_ms=1.9, total_ms=5.0),
    )


def _filters() -> dict[str, RecordFilter]:
    return {
        "everything": RecordFilter(),
        "channel": RecordFilter(channel="look"),
        "outcome, common": RecordFilter(outcome=Outcome.ACCEPT),
        "outcome, none in one channel": RecordFilter(outcome=Outcome.REVIEW),
        "label, common": RecordFilter(label="safe"),
        "label, rare": RecordFilter(label="label 800"),
        "label, absent": RecordFilter(label="no such label"),
        "channel, absent": RecordFilter(channel="returns"),
        "channel + outcome": RecordFilter(channel="reviews", outcome=Outcome.REJECT),
        "label + outcome, 1 in 100,000": RecordFilter(label="safe", outcome=Outcome.REJECT),
        "label + outcome, none": RecordFilter(label="safe", outcome=Outcome.REVIEW),
        "label + channel, none": RecordFilter(label="safe", channel="look"),
        "label + channel + outcome": RecordFilter(label="label 1", channel="look", outcome=Outcome.REVIEW),
    }


def _measure(database: Database, rows: int) -> None:
    chance = random.Random(11)
    records = RecordService(database, clock=lambda: _START, metrics=Metrics())
    end = _START + timedelta(milliseconds=20 * rows)
    print(f"{'filter':34}{'p50 ms':>8}{'p99 ms':>8}   a page of {_PAGE}, from the newest and from random places")
    for name, wanted in _filters().items():
        _print_line(name, [_time_page(database, wanted, _place(chance, rows)) for _ in range(_ROUNDS)])
    hours = RecordFilter(label="safe", outcome=Outcome.REJECT, since=end - timedelta(hours=2), until=end)
    _print_line("the last two hours, label + outcome", [_time_page(database, hours, None) for _ in range(_ROUNDS)])
    for text in ("IMG_0012345.jpg", "img_00123", "img_", "label 8", "nothing like it"):
        _print_line(f"search: {text}", [_time_search(records, RecordFilter(text=text)) for _ in range(_FEW)])
    _print_line("search: img_, one channel", [_time_search(records, RecordFilter(text="img_", channel="look"))])
    _print_line("total: everything", [_time_total(database, RecordFilter()) for _ in range(_FEW)])
    _print_line(
        "total: label, all its ranges", [_time_total(database, RecordFilter(label="safe")) for _ in range(_FEW)]
    )
    _print_line("total: outcome", [_time_total(database, RecordFilter(outcome=Outcome.ACCEPT)) for _ in range(_FEW)])
    similar, some = SimilarPhotos(database), records.page(RecordFilter(), limit=_FEW).records
    _print_line("similar photos, the first time", [_time_similar(similar, some[0])])
    _print_line("similar photos, then", [_time_similar(similar, each) for each in some])
    _print_line("all labels (for the filter's list)", [_time_labels(database) for _ in range(_ROUNDS)])


def _place(chance: random.Random, rows: int) -> str | None:
    """A random id to page from; every other time the newest page."""
    if chance.random() < 0.5:
        return None
    moment = _START + timedelta(milliseconds=20 * chance.randrange(rows))
    return make_id(int(moment.timestamp() * 1000), bytes(10))


def _time_page(database: Database, wanted: RecordFilter, before: str | None) -> float:
    began = time.perf_counter()
    with database.reading() as tx:
        PredictionRepository(tx).page(wanted, limit=_PAGE, before=before)
    return time.perf_counter() - began


def _time_search(records: RecordService, wanted: RecordFilter) -> float:
    began = time.thread_time()
    records.page(wanted, limit=_PAGE)
    return time.thread_time() - began


def _time_total(database: Database, wanted: RecordFilter) -> float:
    began = time.thread_time()
    with database.reading() as tx:
        PredictionRepository(tx).count(wanted, most=10_001)
    return time.thread_time() - began


def _time_similar(similar: SimilarPhotos, record: PredictionRecord) -> float:
    began = time.thread_time()
    similar.of(record)
    return time.thread_time() - began


def _time_labels(database: Database) -> float:
    began = time.perf_counter()
    with database.reading() as tx:
        PredictionRepository(tx).labels()
    return time.perf_counter() - began


def _print_line(name: str, seconds: list[float]) -> None:
    p99 = sorted(seconds)[int(len(seconds) * 0.99)]
    print(f"{name:34}{statistics.median(seconds) * 1000:8.2f}{p99 * 1000:8.2f}")


if __name__ == "__main__":
    main()
