"""Drift as arithmetic: noise does not alarm, shifts do, and what a profile keeps adds up."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from shoplens.monitoring.drift.comparison import (
    ALARM_BELOW,
    LEAST_DAYS,
    REFERENCE_DAYS,
    Finding,
    compare,
    squared_distance,
)
from shoplens.monitoring.drift.profile import (
    BINS,
    MOST_NAMES,
    OTHERS,
    MeanVector,
    Measure,
    Profile,
    binned,
    counted,
    from_json,
    pooled,
    to_json,
)
from shoplens.monitoring.drift.sketch import DIMENSIONS, kernel_features, reduced, strangeness, vectors_of


def a_day(random: np.random.Generator, *, count: int = 100, darker: float = 0.0, moved: float = 0.0) -> Profile:
    """A day of a channel with three classes, whose light differs a little from day to day."""
    light = random.normal(130 + random.normal(0, 3) - darker, 30, count)
    points = reduced(random.normal(size=(count, 16)) + np.eye(16)[0] * (2 + moved))
    return Profile(
        rows=count,
        photos=count,
        names={Measure.CLASSES: dict(zip("abc", random.multinomial(count, [0.6, 0.3, 0.1]).tolist(), strict=True))},
        scales={Measure.BRIGHTNESS: binned(Measure.BRIGHTNESS, light)},
        vectors=vectors_of(points, kernel_features(points)),
    )


WATCHED = (Measure.CLASSES, Measure.BRIGHTNESS, Measure.EMBEDDING_MEAN, Measure.EMBEDDING_MMD)


def test_noise_and_days_that_differ_a_little_do_not_alarm() -> None:
    """Two months of such days, compared in four measures: 0.07 alarms are expected, and one is let pass."""
    random = np.random.default_rng(1)
    days = [a_day(random) for _ in range(67)]
    found = [
        compare(day, days[max(0, at - REFERENCE_DAYS) : at], measure, seed=at)
        for at, day in enumerate(days)
        for measure in WATCHED
    ]
    known = [finding for finding in found if finding is not None]
    assert 4 * (67 - LEAST_DAYS) == len(known)
    assert sum(finding.alarm for finding in known) <= 1
    # The p-values are those of chance: about half of them lie below a half.
    assert 0.25 < np.mean([finding.p_value < 0.5 for finding in known]) < 0.75


@pytest.mark.parametrize(
    ("change", "alarms"),
    [
        ({"darker": 30.0}, {Measure.BRIGHTNESS}),
        ({"moved": 2.0}, {Measure.EMBEDDING_MEAN, Measure.EMBEDDING_MMD}),
    ],
)
def test_a_shift_alarms_in_its_own_measures_only(change: dict[str, float], alarms: set[Measure]) -> None:
    """Darker photos are no other classes."""
    random = np.random.default_rng(2)
    before = [a_day(random) for _ in range(REFERENCE_DAYS)]
    day = a_day(random, darker=change.get("darker", 0.0), moved=change.get("moved", 0.0))
    found = {measure: compare(day, before, measure, seed=1) for measure in WATCHED}
    assert alarms == {measure for measure, finding in found.items() if finding is not None and finding.alarm}
    finding = found[min(alarms)]
    assert finding is not None
    assert finding.distance > finding.limit > finding.usual
    assert finding.p_value < ALARM_BELOW


def test_days_that_differ_much_raise_the_limit() -> None:
    """Where light changes from day to day, a dark day is nothing new."""
    random = np.random.default_rng(3)
    steady = [a_day(random) for _ in range(REFERENCE_DAYS)]
    moody = [a_day(random, darker=random.normal(0, 25)) for _ in range(REFERENCE_DAYS)]
    dark = a_day(random, darker=30)
    calm, used = (compare(dark, before, Measure.BRIGHTNESS, seed=1) for before in (steady, moody))
    assert calm is not None
    assert used is not None
    assert (True, False) == (calm.alarm, used.alarm)
    assert used.limit > 2 * calm.limit


def test_too_few_samples_or_days_give_no_figure() -> None:
    """Nothing is claimed of 29 photos, nor of six days."""
    random = np.random.default_rng(4)
    before = [a_day(random) for _ in range(LEAST_DAYS)]
    assert compare(a_day(random, count=29), before, Measure.CLASSES, seed=1) is None
    assert compare(a_day(random), before[1:], Measure.CLASSES, seed=1) is None
    assert compare(a_day(random), [*before[1:], a_day(random, count=29)], Measure.CLASSES, seed=1) is None
    assert compare(a_day(random), before, Measure.CLASSES, seed=1) is not None
    assert compare(a_day(random), before, Measure.SIZE, seed=1) is None


def test_the_same_seed_gives_the_same_finding() -> None:
    """A day that is computed again says the same."""
    random = np.random.default_rng(5)
    before, day = [a_day(random) for _ in range(10)], a_day(random)
    assert compare(day, before, Measure.CLASSES, seed=7) == compare(day, before, Measure.CLASSES, seed=7)


def test_distances_are_those_of_the_textbooks() -> None:
    """Jensen-Shannon: 1 for other classes; Kolmogorov-Smirnov: the greatest step; vectors: the length between them."""

    def of(names: dict[str, int], light: list[float], mean: list[float]) -> Profile:
        vector = MeanVector(count=40, mean=np.array(mean), trace=1.0, square=1.0)
        return Profile(
            rows=40, photos=40, names={Measure.CLASSES: names},
            scales={Measure.BRIGHTNESS: binned(Measure.BRIGHTNESS, light)}, vectors={Measure.EMBEDDING_MEAN: vector},
        )  # fmt: skip

    one, other = of({"a": 40}, [10.0, 10.0, 200.0, 200.0], [0, 0]), of({"b": 40}, [10.0, 200.0, 200.0, 200.0], [3, 4])
    assert 1.0 == pytest.approx(squared_distance(one, other, Measure.CLASSES))
    assert 0.25**2 == pytest.approx(squared_distance(one, other, Measure.BRIGHTNESS))
    assert 25.0 == pytest.approx(squared_distance(one, other, Measure.EMBEDDING_MEAN))
    half = of({"a": 20, "b": 20}, [1.0], [0, 0])
    expected = 0.5 * math.log2(1 / 0.75) + 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25))
    assert expected == pytest.approx(squared_distance(one, half, Measure.CLASSES))


def test_a_stored_profile_is_the_same_and_small() -> None:
    """What JSON keeps of it compares as before."""
    day = a_day(np.random.default_rng(6), count=512)
    again = from_json(to_json(day))
    assert (day.rows, day.photos, dict(day.names)) == (again.rows, again.photos, dict(again.names))
    for measure in WATCHED:
        assert squared_distance(day, again, measure) < 1e-8
    assert len(str(to_json(day))) < 8_000


def test_pooled_days_are_as_one_day_with_all_photos() -> None:
    """Counts add up, and means weigh by photos."""
    random = np.random.default_rng(7)
    points = [random.normal(size=(count, 4)) for count in (30, 90)]
    days = [
        Profile(rows=len(each), photos=len(each), names={Measure.CLASSES: {"a": len(each)}}, scales={},
                vectors={Measure.EMBEDDING_MEAN: MeanVector.of(each)})
        for each in points
    ]  # fmt: skip
    together, whole = pooled(days), MeanVector.of(np.concatenate(points))
    assert {"a": 120} == together.names[Measure.CLASSES]
    np.testing.assert_allclose(together.vectors[Measure.EMBEDDING_MEAN].mean, whole.mean)
    assert 120 == together.vectors[Measure.EMBEDDING_MEAN].count


def test_many_labels_are_counted_in_bounded_room() -> None:
    """The rarest share one name."""
    counts = counted({f"label {at}": 1 + at for at in range(MOST_NAMES + 50)})
    assert MOST_NAMES + 1 == len(counts)
    assert sum(range(1, 51)) == counts[OTHERS]


def test_values_outside_of_a_scale_count_at_its_ends() -> None:
    """A photo without any light, and one of a gigapixel, are counted."""
    assert (1.0, 1.0) == (binned(Measure.BRIGHTNESS, [-3.0])[0], binned(Measure.SIZE, [1e12])[BINS - 1])
    assert 1.0 == binned(Measure.CONFIDENCE, [1.0])[BINS - 1]
    assert 1.0 == binned(Measure.SHARPNESS, [0.0])[0]


def test_kernel_features_stand_for_the_kernel() -> None:
    """Their scalar product is near the mean of the Gaussian kernels, and the mean's distance near the exact MMD."""
    random = np.random.default_rng(8)
    one = reduced(random.normal(size=(200, DIMENSIONS)) + 1.0)
    other = reduced(random.normal(size=(200, DIMENSIONS)) - 0.5)
    between = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
    exact = np.mean([np.exp(-between / (2 * width**2)) for width in (0.3, 0.6, 1.2)], axis=0)
    np.testing.assert_allclose(kernel_features(one) @ kernel_features(other).T, exact, atol=0.3)
    assert exact.mean() == pytest.approx(float((kernel_features(one) @ kernel_features(other).T).mean()), abs=0.05)


def test_long_embeddings_keep_their_distances() -> None:
    """After the projection to 64 dimensions they are as far apart as before, about."""
    random = np.random.default_rng(9)
    vectors = random.normal(size=(40, 1280)) + random.normal(size=1280) * 2
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    before = np.linalg.norm(unit[:20] - unit[20:], axis=1)
    after = np.linalg.norm(reduced(vectors)[:20] - reduced(vectors)[20:], axis=1)
    np.testing.assert_allclose(after, before, rtol=0.35)
    assert after.mean() == pytest.approx(before.mean(), rel=0.1)


def test_the_strangest_photo_is_the_one_that_is_not_like_the_others() -> None:
    """One of another kind among a hundred is found."""
    random = np.random.default_rng(10)
    usual = reduced(random.normal(size=(100, 32)) * 0.3 + np.eye(32)[0])
    reference = MeanVector.of(kernel_features(usual))
    day = reduced(np.vstack([random.normal(size=(99, 32)) * 0.3 + np.eye(32)[0], -np.eye(32)[:1]]))
    assert 99 == int(np.argmax(strangeness(kernel_features(day), reference)))


def test_one_unusual_day_is_an_alarm_only_beyond_doubt_or_after_another() -> None:
    """Chance seldom strikes twice in a row, and a change stays."""
    finding = Finding(
        measure=Measure.SIZE, distance=0.3, usual=0.1, limit=0.2, p_value=1e-4, samples=100, reference_samples=2_000
    )
    assert (True, False) == (finding.unusual, finding.alarm)
    assert not replace(finding, before=0.4).alarm
    assert replace(finding, before=0.005).alarm
    assert replace(finding, p_value=1e-6).alarm
    assert not replace(finding, p_value=0.005, before=1e-9).alarm
