"""The accuracy in production from the answers of people, and the threshold for a goal, against a known truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from shoplens.monitoring.accuracy.estimates import STEPS, Answered, Stratum, accuracy, naive, place, wilson
from shoplens.monitoring.accuracy.threshold import answers_needed, choose, curve, upper_bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A channel whose truth is known: what people are asked, and how often the model is really right."""

    checked: Stratum
    reviewed: Stratum
    truth: float
    truth_automatic: float
    scores: Any
    right: Any


def counted(scores: Any) -> Any:
    """Samples by hundredths of their score."""
    return np.bincount([place(score) for score in scores], minlength=STEPS + 1).astype(float)


def a_shop(seed: int, *, samples: int, share: float, sure: float, answered: float = 1.0) -> Shop:
    """Sure samples are right more often. People answer the least sure ones first where they do not answer all."""
    random = np.random.default_rng(seed)
    scores = np.clip(random.beta(8, 1.2, samples), 0.05, 1)
    right = random.random(samples) < sure * scores**0.5
    accepted = scores >= 0.8
    checked = accepted & (random.random(samples) < share)
    doubtful = np.flatnonzero(~accepted)
    chance = np.ones(len(doubtful)) if answered == 1 else answered * (1.2 - scores[doubtful]) / 0.55
    seen = doubtful[random.random(len(doubtful)) < chance]
    return Shop(
        checked=Stratum(
            scores=counted(scores[accepted]),
            answers=tuple(
                Answered(score=float(scores[at]), right=bool(right[at]), chance=share) for at in np.flatnonzero(checked)
            ),
            at_random=True,
        ),
        reviewed=Stratum(
            scores=counted(scores[~accepted]),
            answers=tuple(Answered(score=float(scores[at]), right=bool(right[at])) for at in seen),
        ),
        truth=float(right.mean()),
        truth_automatic=float(right[accepted].mean()),
        scores=scores,
        right=right,
    )


@pytest.mark.parametrize(
    ("samples", "share", "sure", "answered"),
    [(4_000, 0.01, 0.95, 1.0), (1_500, 0.05, 0.85, 0.6)],
)
def test_the_interval_holds_the_truth_and_the_plain_share_does_not(
    samples: int, share: float, sure: float, answered: float
) -> None:
    """In at least 93 % of 200 shops, for all samples and for automatic ones; without the weights hardly ever."""
    held = held_automatic = held_plain = 0
    plain, corrected = [], []
    shops = [a_shop(seed, samples=samples, share=share, sure=sure, answered=answered) for seed in range(200)]
    for shop in shops:
        strata = [shop.checked, shop.reviewed]
        whole, automatic, share_right = accuracy(strata), accuracy([shop.checked]), naive(strata)
        assert whole is not None
        assert automatic is not None
        assert share_right is not None
        held += whole.low <= shop.truth <= whole.high
        held_automatic += automatic.low <= shop.truth_automatic <= automatic.high
        low, high = wilson(share_right, whole.answers)
        held_plain += low <= shop.truth <= high
        plain.append(share_right - shop.truth)
        corrected.append(whole.value - shop.truth)
    assert held >= 0.93 * len(shops)
    assert held_automatic >= 0.93 * len(shops)
    assert held_plain < 0.5 * len(shops)
    assert np.mean(plain) < -0.04
    assert abs(np.mean(corrected)) < 0.006


def test_answers_of_unequal_chance_weigh_by_it() -> None:
    """Checked while the share was 1 %, an answer stands for ten times as many samples as at 10 %."""
    rare = [Answered(score=0.9, right=False, chance=0.01)] * 10
    often = [Answered(score=0.9, right=True, chance=0.1)] * 100
    found = accuracy([Stratum(scores=counted([0.9] * 2_000), answers=(*rare, *often), at_random=True)])
    assert found is not None
    assert 0.5 == pytest.approx(found.value)
    assert found.effective < found.answers


def test_people_who_answer_the_least_sure_first_do_not_lower_the_estimate() -> None:
    """Half of the doubtful samples, the less sure ones more often: ranges of score are weighed by their samples."""
    shop = a_shop(3, samples=40_000, share=0.02, sure=0.9, answered=0.5)
    answers = shop.reviewed.answers
    plain = sum(each.right for each in answers) / len(answers)
    truth = float(shop.right[shop.scores < 0.8].mean())
    found = accuracy([shop.reviewed])
    assert found is not None
    assert abs(found.value - truth) < 0.003 < truth - plain


def test_too_few_answers_give_no_estimate() -> None:
    """Nine answers, or none in a stratum that has samples."""
    nine = Stratum(scores=counted([0.9] * 500), answers=(Answered(score=0.9, right=True),) * 9, at_random=True)
    ten = Stratum(scores=counted([0.9] * 500), answers=(Answered(score=0.9, right=True),) * 10, at_random=True)
    unasked = Stratum(scores=counted([0.5]), answers=())
    assert accuracy([nine]) is None
    assert accuracy([ten]) is not None
    assert accuracy([ten, unasked]) is None
    assert accuracy([]) is None
    assert naive([unasked]) is None


def test_all_right_is_not_certainty() -> None:
    """100 right answers leave an interval down to 96.3 %."""
    found = accuracy(
        [Stratum(scores=counted([0.9] * 9_000), answers=(Answered(score=0.9, right=True),) * 100, at_random=True)]
    )
    assert found is not None
    assert (1.0, 1.0) == (found.value, found.high)
    assert 0.963 == pytest.approx(found.low, abs=0.001)


def test_a_goal_takes_as_many_answers_as_arithmetic_says() -> None:
    """299 for one percent: the "rule of three"."""
    assert (299, 59, 29) == (answers_needed(0.01), answers_needed(0.05), answers_needed(0.1))
    assert upper_bound(0.0, 299) <= 0.01 < upper_bound(0.0, 298)
    assert 1.0 == upper_bound(0.0, 0)


def test_a_threshold_that_is_chosen_keeps_its_goal() -> None:
    """Of 60 shops at most 5 % get a threshold with which more is wrong than the goal; most get one at all."""
    chosen = broken = 0
    for seed in range(60):
        shop = a_shop(seed, samples=4_000, share=0.2, sure=1.0)
        found = choose(curve([shop.checked, shop.reviewed]), 0.05)
        if found.point is None:
            continue
        chosen += 1
        broken += float((~shop.right[shop.scores >= found.point.at]).mean()) > 0.05
    assert chosen > 20
    assert broken <= 0.05 * 60


def test_a_goal_that_cannot_be_shown_gets_no_threshold() -> None:
    """A model that is wrong too often, and one with too few answers; `needed` says how many it takes."""
    wrong = a_shop(1, samples=6_000, share=0.1, sure=0.8)
    assert choose(curve([wrong.checked, wrong.reviewed]), 0.05).point is None
    few = a_shop(1, samples=1_000, share=0.02, sure=1.0)
    choice = choose(curve([few.checked, few.reviewed]), 0.01)
    assert (None, 299) == (choice.point, choice.needed)
    assert () == curve([])


def test_nothing_is_said_of_thresholds_below_which_nobody_answered() -> None:
    """Without answers on doubtful samples only thresholds above them are known."""
    shop = a_shop(2, samples=6_000, share=0.1, sure=1.0)
    points = curve([shop.checked, Stratum(scores=shop.reviewed.scores, answers=())])
    assert {True} == {point.wrong is None for point in points if point.at < 0.79}
    assert any(point.wrong is not None for point in points if point.at >= 0.8)
