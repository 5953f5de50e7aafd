"""The gate: equal models never pass, a clearly better one does, and one that collapses on a class does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.retraining.gate import Answers, GateResult, GateRules, bootstrap_gain, judge, mcnemar

CLASSES = ("dress", "hat", "shoes", "shirt")
RULES = GateRules(most_calibration_error=1.0, calibration_loss=1.0)


def model(truth: Sequence[str], right: Sequence[bool], *, name: str = "new", score: float = 0.9) -> Answers:
    """Right where `right` says so, and the next class elsewhere."""
    wrong = {label: CLASSES[(number + 1) % len(CLASSES)] for number, label in enumerate(CLASSES)}
    labels = [label if hit else wrong[label] for label, hit in zip(truth, right, strict=True)]
    return Answers(model=name, labels=labels, scores=[score] * len(labels))


def samples(count: int) -> list[str]:
    """Right labels, in turn."""
    return [CLASSES[number % len(CLASSES)] for number in range(count)]


def check(result: GateResult, code: str) -> bool:
    """Whether this check passed."""
    return next(each.passed for each in result.checks if each.code == code)


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(0, 1_000))
def test_equal_models_never_pass(right: list[bool], seed: int) -> None:
    """Whatever the answers are, and also with a margin of nothing."""
    truth = samples(len(right))
    result = judge(truth, model(truth, right), model(truth, right, name="old"), RULES, seed=seed)
    assert not check(result, "better")
    assert not result.passed


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=40, max_size=300), st.integers(0, 1_000))
def test_of_two_models_at_most_one_is_better(right: list[tuple[bool, bool]], seed: int) -> None:
    """And it is the one that is right more often."""
    truth = samples(len(right))
    one, other = (model(truth, [pair[side] for pair in right]) for side in (0, 1))
    forth, back = judge(truth, one, other, RULES, seed=seed), judge(truth, other, one, RULES, seed=seed)
    assert not (check(forth, "better") and check(back, "better"))
    if check(forth, "better"):
        assert forth.gain is not None
        assert forth.gain > 0


@given(st.integers(200, 2_000), st.floats(0.1, 0.8), st.integers(0, 1_000))
def test_a_clearly_better_model_passes(count: int, share: float, seed: int) -> None:
    """It repairs every tenth sample and breaks none."""
    truth = samples(count)
    old = np.random.default_rng(seed).random(count) < share
    new = old | (np.arange(count) % 10 == np.flatnonzero(~old)[0] % 10)
    result = judge(truth, model(truth, new.tolist()), model(truth, old.tolist(), name="old"), RULES, seed=seed)
    if result.only_new >= 10:
        assert result.passed, [each.sentence for each in result.checks]


@pytest.mark.parametrize("fallen", CLASSES)
def test_a_class_that_collapses_is_refused(fallen: str) -> None:
    """Also if all other classes gain much more."""
    truth = samples(400)
    old = [number % 8 < 6 or label == fallen for number, label in enumerate(truth)]
    new = [label != fallen for label in truth]
    rules = replace(RULES, margin=-1.0)
    result = judge(truth, model(truth, new), model(truth, old, name="old"), rules)
    assert not check(result, "no_class_worse")
    assert not result.passed
    assert fallen in next(each.sentence for each in result.checks if each.code == "no_class_worse")


def test_a_class_with_few_samples_is_not_judged() -> None:
    """One wrong answer of three says nothing."""
    truth = ["hat"] * 3 + ["dress"] * 400
    old = [True] * 3 + [number % 4 > 0 for number in range(400)]
    new = [False, *[True] * 402]
    result = judge(truth, model(truth, new), model(truth, old, name="old"), RULES)
    assert result.passed
    assert "not judged" in next(each.sentence for each in result.checks if each.code == "no_class_worse")


def test_a_gain_below_the_margin_is_refused() -> None:
    """It is better beyond chance, but the shop asks for more."""
    truth = samples(1_000)
    old, new = [number >= 30 for number in range(1_000)], [True] * 1_000
    pair = model(truth, new), model(truth, old, name="old")
    assert judge(truth, *pair, RULES).passed
    result = judge(truth, *pair, replace(RULES, margin=0.05))
    assert not result.passed
    assert "by too little" in next(each.sentence for each in result.checks if each.code == "better")


def test_a_model_that_is_too_sure_slow_or_large_is_refused() -> None:
    """Each for itself."""
    truth, random = samples(400), np.random.default_rng(3)
    was_right = random.random(400) < 0.75
    is_right = was_right | (random.random(400) < 0.6)
    old, new = (
        replace(
            model(truth, right.tolist(), name=name, score=float(right.mean())),
            ms_per_sample=10.0,
            size_bytes=10_000_000,
        )
        for name, right in (("old", was_right), ("new", is_right))
    )
    rules = GateRules()
    assert judge(truth, new, old, rules).passed
    for changed, code in (
        (replace(new, scores=[1.0] * 400), "calibrated"),
        (replace(new, ms_per_sample=16.0), "fast_enough"),
        (replace(new, size_bytes=21 * 10**6), "small_enough"),
    ):
        result = judge(truth, changed, old, rules)
        assert not result.passed
        assert [code] == [each.code for each in result.checks if not each.passed]


@pytest.mark.parametrize("broken", [0, 40])
def test_new_labels_do_not_hide_a_loss_on_those_that_the_present_model_knows(broken: int) -> None:
    """It cannot be right where it does not know the label, so the others are compared by themselves, too."""
    truth = samples(800)
    known = frozenset(CLASSES[:3])
    old = [label in known for label in truth]
    new = [index >= 4 * broken or label not in known for index, label in enumerate(truth)]
    present = replace(model(truth, old, name="old"), known=known)
    rules = replace(RULES, worst_class_loss=1.0)
    result = judge(truth, model(truth, new), present, rules)
    assert check(result, "better")
    assert (not broken) == check(result, "not_worse_where_both_answer") == result.passed
    sentence = next(each.sentence for each in result.checks if each.code == "not_worse_where_both_answer")
    assert (
        "200 of the samples have labels that the present model does not know; the new one is right on 200" in sentence
    )
    assert f"Of the 600 others the new model has {600 - 3 * broken:,} right, the present one 600" in sentence
    everything = judge(truth, model(truth, new), model(truth, old, name="old"), rules)
    assert "not_worse_where_both_answer" not in {each.code for each in everything.checks}


def test_the_first_model_of_a_channel_has_nothing_to_beat() -> None:
    """It must be calibrated, on enough samples."""
    truth = samples(100)
    right = [number % 10 > 0 for number in range(100)]
    assert judge(truth, model(truth, right), None, GateRules()).passed
    assert not judge(truth, model(truth, right, score=0.5), None, GateRules()).passed
    assert not judge(truth[:20], model(truth[:20], right[:20]), None, GateRules()).passed


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_p_value_is_the_tail_of_the_binomial_distribution(only_new: int, only_old: int) -> None:
    """Computed here with whole numbers."""
    total = only_new + only_old
    expected = sum(comb(total, k) for k in range(only_new, total + 1)) / 2**total
    assert mcnemar(only_new, only_old) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_bounds_of_the_gain_hold_it_as_often_as_they_say() -> None:
    """Of 400 test sets from a world where the gain is 5 %, the lower bound is above it in about 5 %."""
    random, missed = np.random.default_rng(1), 0
    for seed in range(400):
        kind = random.choice(3, size=500, p=[0.10, 0.05, 0.85])
        low, _ = bootstrap_gain(kind == 0, kind == 1, confidence=0.95, seed=seed)
        missed += low > 0.05
    assert 8 <= missed <= 34
