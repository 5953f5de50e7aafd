"""How often drift alarms without a change in a year, and how often it finds real ones.

python -m bench.drift --data DIR --models-dir DIR [--channels 10]   (DIR has clothing/ and fashion-mnist/)

Streams are drawn from photos of clothes with a model of clothes. Days differ as those of a shop do: two days of the
week have less than half of the volume and another mix, the mix and the light follow yesterday's, and photos come in
series of the same class.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shoplens.bundles.bundle import open_bundle
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.sandbox import shared_decoder
from shoplens.monitoring.drift.comparison import REFERENCE_DAYS, compare
from shoplens.monitoring.drift.job import LOOK_BACK
from shoplens.monitoring.drift.looking import PhotoLooker
from shoplens.monitoring.drift.profile import Floats, Measure, Profile, binned
from shoplens.monitoring.drift.sketch import kernel_features, vectors_of
from shoplens.serving.classifier import Classifier

Pixels = NDArray[np.uint8]

PHOTOS = 600
SHIFTED = 150
DAYS = 365
SIZES = (64, 512)
SHARES = (0.2, 1.0)
TRIALS = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Photos with all that a profile counts, a row for each."""

    labels: NDArray[np.intp]
    scores: Floats
    pixels: Floats
    formats: tuple[str, ...]
    measured: Floats
    points: Floats
    features: Floats

    def profile(self, rows: NDArray[np.intp], brighter: float = 0.0) -> Profile:
        """The profile of these photos, each a little brighter."""
        light = np.clip(self.measured[rows, 0] + brighter, 0, 255)
        return Profile(
            rows=len(rows),
            photos=len(rows),
            names={
                Measure.CLASSES: dict(Counter(map(str, self.labels[rows]))),
                Measure.FORMAT: dict(Counter(self.formats[row] for row in rows)),
            },
            scales={
                Measure.CONFIDENCE: binned(Measure.CONFIDENCE, self.scores[rows]),
                Measure.SIZE: binned(Measure.SIZE, self.pixels[rows]),
                Measure.BRIGHTNESS: binned(Measure.BRIGHTNESS, light),
                Measure.CONTRAST: binned(Measure.CONTRAST, self.measured[rows, 1]),
                Measure.SHARPNESS: binned(Measure.SHARPNESS, self.measured[rows, 2]),
            },
            vectors=vectors_of(self.points[rows], self.features[rows]),
        )


class Shop:
    """A stream of days without any shift."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool = pool
        self._random = np.random.default_rng(seed)
        self._classes = [np.flatnonzero(pool.labels == label) for label in np.unique(pool.labels)]
        self._usual = self._random.dirichlet(np.full(len(self._classes), 3.0))
        self._weekend = self._random.normal(0, 0.25, len(self._classes))
        self._mix = np.zeros(len(self._classes))
        self._light = 0.0
        self._volume = self._random.uniform(80, 500)

    def day(self, number: int, size: int | None = None) -> Profile:
        """The next day; with `size` it has as many photos."""
        rows, light = self.draw(number, size)
        return self._pool.profile(rows, light)

    def draw(self, number: int, size: int | None = None) -> tuple[NDArray[np.intp], float]:
        """The photos of the next day, and how much brighter than usual they are."""
        random, weekend = self._random, number % 7 >= 5
        self._mix = 0.7 * self._mix + random.normal(0, 0.11, len(self._mix))
        self._light = 0.7 * self._light + random.normal(0, 2.1)
        count = size or min(512, max(5, int(self._volume * random.lognormal(0, 0.3) * (0.4 if weekend else 1.0))))
        weights = self._usual * np.exp(self._mix + (self._weekend if weekend else 0.0))
        series = np.repeat(random.choice(len(weights), count, p=weights / weights.sum()), random.integers(1, 5, count))
        return np.array([random.choice(self._classes[each]) for each in series[:count]]), self._light


def false_alarms(pool: Pool, channels: int) -> None:
    """Print how often unshifted streams alarm."""
    alarms: Counter[Measure] = Counter()
    months, worst, seconds = 0.0, 0, time.process_time()
    unusual = days = worst_days = 0
    for channel in range(channels):
        shop = Shop(pool, channel)
        kept: dict[Measure, list[tuple[int, Profile]]] = {measure: [] for measure in Measure}
        last: dict[Measure, float] = {}
        alarmed: set[int] = set()
        by_month: Counter[int] = Counter()
        days_by_month: Counter[int] = Counter()
        for number in range(DAYS):
            day = shop.day(number)
            for measure in Measure:
                before = [each for at, each in kept[measure] if at >= number - LOOK_BACK.days][-REFERENCE_DAYS:]
                finding = compare(day, before, measure, seed=number, before=last.get(measure))
                if finding is not None:
                    last[measure] = finding.p_value
                if finding is None or not finding.unusual:
                    kept[measure].append((number, day))
                    continue
                unusual += 1
                if finding.alarm:
                    alarms[measure] += 1
                    alarmed.add(number)
                    by_month[number // 30] += 1
            days_by_month[number // 30] += number in alarmed
        months += DAYS / 30
        days += len(alarmed)
        worst = max(worst, *by_month.values(), 0)
        worst_days = max(worst_days, *days_by_month.values(), 0)
    seconds = time.process_time() - seconds
    total = sum(alarms.values())
    print(f"{channels} channels, a year each, no shift: {days} days with an alarm, {days / months:.3f} per channel and")
    print(f"month, at most {worst_days} in a month; {total} alarms of measures, at most {worst} in a month; {unusual}")
    print(f"unusual days of measures; {seconds / channels / DAYS * 1000:.0f} ms of CPU per day to compare", flush=True)
    for measure in Measure:
        print(f"  {measure.value}: {alarms[measure]}")


def power(usual: Pool, shifted: dict[str, Pool]) -> None:
    """Print the share of shifts after a month without one that alarm on their first day, and by their second day, and
    what finds them.
    """
    print(
        "| shift | share of the photos | photos a day | first day | second day | by |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for size in SIZES:
        months = [_month(usual, size, seed=1_000 + trial) for trial in range(TRIALS)]
        for name, pool in {"none": usual, **shifted}.items():
            both = _joined(usual, pool)
            for share in SHARES:
                changed = 0.0 if name == "none" else share
                found: Counter[Measure] = Counter()
                first = second = 0
                for seed, (before, drawn) in enumerate(months):
                    days = [_mixed(both, usual, each, changed, seed) for each in drawn]
                    by_day = _alarms(days, before, seed)
                    found.update(by_day[0] | by_day[1])
                    first += bool(by_day[0])
                    second += bool(by_day[0] | by_day[1])
                by = ", ".join(f"{each.value} {count / TRIALS:.0%}" for each, count in found.most_common(4))
                shares = f"{first / TRIALS:.0%} | {second / TRIALS:.0%}"
                print(f"| {name} | {share:.0%} | {size} | {shares} | {by or '–'} |", flush=True)


Drawn = tuple[NDArray[np.intp], float]


def _month(usual: Pool, size: int, *, seed: int) -> tuple[list[Profile], list[Drawn]]:
    """A month without a shift, and the photos and the light of the two days after it."""
    shop = Shop(usual, seed)
    month = [shop.day(number, size) for number in range(REFERENCE_DAYS)]
    return month, [shop.draw(number, size) for number in (REFERENCE_DAYS, REFERENCE_DAYS + 1)]


def _mixed(both: Pool, usual: Pool, drawn: Drawn, share: float, seed: int) -> Profile:
    """A day of which a share is replaced by photos that only `both` has."""
    rows, light = drawn
    changed = round(share * len(rows))
    others = np.random.default_rng(seed).choice(len(both.labels) - len(usual.labels), changed)
    return both.profile(np.concatenate([rows[changed:], len(usual.labels) + others]), light)


def _alarms(days: Sequence[Profile], before: Sequence[Profile], seed: int) -> list[set[Measure]]:
    """What alarms on each of these days."""
    alarms: list[set[Measure]] = [set() for _ in days]
    for measure in Measure:
        kept, last = list(before), None
        for number, day in enumerate(days):
            finding = compare(day, kept[-REFERENCE_DAYS:], measure, seed=seed, before=last)
            if finding is None or not finding.unusual:
                kept.append(day)
            if finding is not None:
                last = finding.p_value
                if finding.alarm:
                    alarms[number].add(measure)
    return alarms


def _joined(one: Pool, other: Pool) -> Pool:
    return Pool(
        labels=np.concatenate([one.labels, other.labels]),
        scores=np.concatenate([one.scores, other.scores]),
        pixels=np.concatenate([one.pixels, other.pixels]),
        formats=one.formats + other.formats,
        measured=np.concatenate([one.measured, other.measured]),
        points=np.concatenate([one.points, other.points]),
        features=np.concatenate([one.features, other.features]),
    )


def pool_of(photos: Sequence[bytes], classifier: Classifier, looker: PhotoLooker, *, named: str = "jpeg") -> Pool:
    """Look at photos as the job does, and classify them."""
    began = time.process_time()
    look = looker.look((str(number), data) for number, data in enumerate(photos))
    spent = time.process_time() - began
    assert look.points is not None
    names = {label.name: at for at, label in enumerate(classifier.bundle.labels)}
    pictures = [decode(data, limits=Limits(), short_side=256) for data in photos]
    answers = [answer for (answer,) in (classifier.classify([classifier.prepare([each])]) for each in pictures)]
    predictions = [answer.prediction.top for answer in answers if not isinstance(answer, Exception)]
    print(
        f"  looked at {len(photos)} photos ({looker.space}): {spent / len(photos) * 1000:.1f} ms of CPU each",
        flush=True,
    )
    return Pool(
        labels=np.array([names[top.label] for top in predictions]),
        scores=np.array([top.score for top in predictions]),
        pixels=np.array([float(each.width * each.height) for each in pictures]),
        formats=(named,) * len(photos),
        measured=look.measured,
        points=look.points,
        features=kernel_features(look.points),
    )


def _encoded(pixels: Pixels) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90))


def _shifts(photos: Sequence[bytes], drawings: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    whole = [simplejpeg.decode_jpeg(data) for data in photos]
    yield "drawings in place of photos", list(drawings)
    yield "half as bright", [_encoded((each * 0.5).astype(np.uint8)) for each in whole]
    yield "a fifth darker", [_encoded((each * 0.8).astype(np.uint8)) for each in whole]
    yield "turned by 90 degrees", [_encoded(np.rot90(each)) for each in whole]
    yield "blurred, sigma 2", [_encoded(cv2.GaussianBlur(each, (0, 0), 2)) for each in whole]
    yield "blurred, sigma 1", [_encoded(cv2.GaussianBlur(each, (0, 0), 1)) for each in whole]


def _drawings(data: Path, count: int) -> list[bytes]:
    """Pictures of garments on black, enlarged to the size of the photos."""
    with np.load(data / "fashion-mnist" / "fashion-mnist.npz") as stored:
        images = stored["Xte"][np.random.default_rng(0).choice(10_000, count, replace=False)]
    enlarged = (cv2.resize(each, (400, 400), interpolation=cv2.INTER_CUBIC) for each in images)
    return [_encoded(np.repeat(each[:, :, None], 3, axis=2).astype(np.uint8)) for each in enlarged]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models-dir", type=Path, required=True)
    parser.add_argument("--model", default="clothing/1.0.1")
    parser.add_argument("--channels", type=int, default=10)
    options = parser.parse_args()
    classifier = Classifier(open_bundle(options.models_dir / options.model))
    looker = PhotoLooker(classifier, limits=Limits(), sandbox=shared_decoder())
    files = sorted((options.data / "clothing").glob("*/*/*.jpg"))
    order = np.random.default_rng(0).permutation(len(files))
    photos = [files[at].read_bytes() for at in order[: PHOTOS + SHIFTED]]
    usual = pool_of(photos[:PHOTOS], classifier, looker)
    false_alarms(usual, options.channels)
    shifts = _shifts(photos[PHOTOS:], _drawings(options.data, SHIFTED))
    power(usual, {name: pool_of(changed, classifier, looker) for name, changed in shifts})


if __name__ == "__main__":
    main()
