"""The gate: may a new model replace the present one? Pure functions of what both answered on the same test samples.

Both models answer every sample of a test set that neither was trained on, so the answers are compared in pairs, which
takes the difficulty of the samples out of the comparison. "Better" must hold twice:

- McNemar's test, exact (McNemar 1947; Dietterich, "Approximate Statistical Tests for Comparing Supervised
  Classification Learning Algorithms", 1998, recommends it for models that are trained once): of the samples on which
  only one of the two is right, the new model must have more than chance gives it.
- The paired bootstrap (Efron and Tibshirani 1993, chapter 13; Koehn, "Statistical Significance Tests for Machine
  Translation Evaluation", 2004): the gain in accuracy, at the lower end of its confidence interval, must be more than
  the margin that the shop asks for.

Both are one-sided: a model that is worse never passes, and of two equal models none passes. Where the present model
does not know a label, for example after a change of the category tree, it cannot be right. So that this does not hide a
loss, the new model must then also not be worse, by McNemar's test, on the samples whose labels the present model knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.messages import marked

RESAMPLES: Final = 4_000
_BINS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model answered on the samples of a test set, in their order.

    `labels` are the first labels and `scores` their scores, from 0 to 1. `ms_per_sample` is the time for one sample,
    `size_bytes` that of the bundle; None where they were not measured. `known` are the labels that it can answer; None
    for all.
    """

    model: str
    labels: Sequence[str]
    scores: Sequence[float]
    ms_per_sample: float | None = None
    size_bytes: int | None = None
    known: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """What the gate asks for; shares are between 0 and 1.

    `margin` is the least gain in accuracy, `confidence` that of both tests, `worst_class_loss` the most that the F1 of
    a class with at least `class_samples` test samples may fall. `most_calibration_error` is the highest; it may rise
    by `calibration_loss`. The time per sample and the size may be `slower` and `larger` times those of the present
    model.
    """

    margin: float = 0.0
    confidence: float = 0.95
    worst_class_loss: float = 0.05
    class_samples: int = 20
    most_calibration_error: float = 0.1
    calibration_loss: float = 0.03
    slower: float = 1.5
    larger: float = 2.0
    least_samples: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """One class: how many test samples it has, and the F1 of both models."""

    label: str
    samples: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        """Negative for a loss."""
        return self.after - self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that the gate asks for, whether it holds, and the sentence with the figures."""

    code: str
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What the gate says of a new model. `before` is None where there was no model to compare with.

    `only_new` and `only_old` count the samples on which only one of the two is right.
    """

    passed: bool
    checks: tuple[Check, ...]
    classes: tuple[ClassChange, ...]
    samples: int
    before: float | None
    after: float
    macro_f1_before: float | None
    macro_f1_after: float
    calibration_before: float | None
    calibration_after: float
    only_new: int
    only_old: int
    p_value: float | None
    gain_low: float | None
    gain_high: float | None

    @property
    def gain(self) -> float | None:
        """In accuracy."""
        return None if self.before is None else self.after - self.before

    @property
    def figures(self) -> dict[str, float]:
        """The figures for the registry."""
        known = {
            "accuracy": self.after,
            "accuracy before": self.before,
            "macro F1": self.macro_f1_after,
            "macro F1 before": self.macro_f1_before,
            "calibration error": self.calibration_after,
            "test samples": float(self.samples),
            "p value": self.p_value,
            "gain, lower bound": self.gain_low,
        }
        return {name: round(value, 6) for name, value in known.items() if value is not None}


def judge(truth: Sequence[str], new: Answers, old: Answers | None, rules: GateRules, *, seed: int = 0) -> GateResult:
    """The result on `new` beside `old`, the present model; None if there is none. `truth` has the right labels.

    The same answers give the same result. Raises ValueError if the lengths differ.
    """
    right_new = _right(truth, new)
    right_old = None if old is None else _right(truth, old)
    classes = tuple(_class_changes(truth, new, old))
    checks = [_enough(truth, rules)]
    p_value = low = high = None
    only_new = only_old = 0
    if right_old is not None and old is not None:
        only_new, only_old = int((right_new & ~right_old).sum()), int((right_old & ~right_new).sum())
        p_value = mcnemar(only_new, only_old)
        low, high = bootstrap_gain(right_new, right_old, confidence=rules.confidence, seed=seed)
        checks.append(_better(p_value, low, only_new, only_old, rules))
        checks.extend(_not_worse_where_both_answer(truth, right_new, right_old, old, rules))
        checks.append(_no_class_worse(classes, rules))
    checks.append(_calibrated(truth, new, old, rules))
    checks.extend(_fast_and_small(new, old, rules))
    return GateResult(
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        classes=classes,
        samples=len(truth),
        before=None if right_old is None else _mean(right_old),
        after=_mean(right_new),
        macro_f1_before=None if old is None else _mean_of([each.before for each in classes]),
        macro_f1_after=_mean_of([each.after for each in classes]),
        calibration_before=None if old is None else calibration_error(truth, old),
        calibration_after=calibration_error(truth, new),
        only_new=only_new,
        only_old=only_old,
        p_value=p_value,
        gain_low=low,
        gain_high=high,
    )


def mcnemar(only_new: int, only_old: int) -> float:
    """The exact one-sided p value: how often chance alone gives the new model at least `only_new` of the differences.

    That is the upper tail of the binomial distribution with 1/2; 1 where the models never differ.
    """
    differences = only_new + only_old
    if not differences:
        return 1.0
    steps = np.arange(1, differences + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(differences - steps + 1) - np.log(steps))])
    tail = logs[only_new:] - differences * np.log(2)
    return float(min(1.0, np.exp(tail).sum()))


def bootstrap_gain(
    right_new: NDArray[np.bool_], right_old: NDArray[np.bool_], *, confidence: float, seed: int
) -> tuple[float, float]:
    """The one-sided lower and upper confidence bound of the gain in accuracy, from `RESAMPLES` samples of the pairs.

    Drawing samples with replacement is drawing the numbers of pairs that only one model has right, or neither, or both;
    so a resample costs one multinomial number whatever the size of the test set.
    """
    count = len(right_new)
    if not count:
        return 0.0, 0.0
    wins, losses = int((right_new & ~right_old).sum()), int((right_old & ~right_new).sum())
    shares = [wins / count, losses / count, (count - wins - losses) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=RESAMPLES)
    gains = (drawn[:, 0] - drawn[:, 1]) / count
    low, high = np.quantile(gains, [1 - confidence, confidence])
    return float(low), float(high)


def calibration_error(truth: Sequence[str], answers: Answers) -> float:
    """The expected calibration error of the first labels in 15 bins of equal width (Guo et al. 2017)."""
    right, scores = _right(truth, answers), np.asarray(answers.scores, np.float64)
    if not len(right):
        return 0.0
    bins = np.clip(np.ceil(scores * _BINS).astype(int) - 1, 0, _BINS - 1)
    return float(np.abs(np.bincount(bins, right - scores, _BINS)).sum() / len(right))


def _right(truth: Sequence[str], answers: Answers) -> NDArray[np.bool_]:
    pairs = zip(truth, answers.labels, answers.scores, strict=True)
    return np.array([label == answer for label, answer, _ in pairs], np.bool_)


def _class_changes(truth: Sequence[str], new: Answers, old: Answers | None) -> Iterator[ClassChange]:
    after, before = f1_by_class(truth, new.labels), {} if old is None else f1_by_class(truth, old.labels)
    for label, samples in sorted(Counter(truth).items()):
        yield ClassChange(label=label, samples=samples, before=before.get(label, 0.0), after=after[label])


def f1_by_class(truth: Sequence[str], answered: Sequence[str]) -> dict[str, float]:
    """The harmonic mean of precision and recall of each class that occurs; 0 where it is not defined."""
    hits = Counter(one for one, other in zip(truth, answered, strict=True) if one == other)
    totals = Counter(truth)
    totals.update(answered)
    return {label: 2 * hits[label] / total for label, total in totals.items()}


def _enough(truth: Sequence[str], rules: GateRules) -> Check:
    return Check(
        code="enough_samples",
        passed=len(truth) >= rules.least_samples,
        sentence=f"The test set has {len(truth):,} samples; at least {rules.least_samples:,} are needed.",
    )


def _better(p_value: float, low: float, only_new: int, only_old: int, rules: GateRules) -> Check:
    by_chance = p_value >= 1 - rules.confidence
    too_little = low <= 0 or low < rules.margin
    figures = marked(
        f"Only the new model is right on {only_new:,} samples, only the present one on {only_old:,} (McNemar p = "
        f"{p_value:.2g}); with {rules.confidence:.0%} confidence the gain in accuracy is at least {low:+.2%}"
    )
    asked = marked(f", and {rules.margin:+.2%} is asked for") if rules.margin > 0 else ""
    outcome = marked("not better beyond chance") if by_chance or low <= 0 else marked("better, but by too little")
    said = outcome if by_chance or too_little else marked("better beyond chance")
    return Check(code="better", passed=not by_chance and not too_little, sentence=f"It is {said}. {figures}{asked}.")


def _not_worse_where_both_answer(
    truth: Sequence[str], right_new: NDArray[np.bool_], right_old: NDArray[np.bool_], old: Answers, rules: GateRules
) -> Iterator[Check]:
    """Where the present model cannot answer some labels, what the new one gains by them must not hide a loss.

    None where it can answer all of them.
    """
    can = np.array([old.known is None or label in old.known for label in truth], np.bool_)
    if can.all():
        return
    only_new, only_old = int((right_new & ~right_old & can).sum()), int((right_old & ~right_new & can).sum())
    p_worse = mcnemar(only_old, only_new)
    both, others = int(can.sum()), int((~can).sum())
    yield Check(
        code="not_worse_where_both_answer",
        passed=p_worse >= 1 - rules.confidence,
        sentence=f"{others:,} of the samples have labels that the present model does not know; the new one is right on "
        f"{int((right_new & ~can).sum()):,} of them. Of the {both:,} others the new model has "
        f"{int((right_new & can).sum()):,} right, the present one {int((right_old & can).sum()):,} (McNemar p = "
        f"{p_worse:.2g} that it is not worse).",
    )


def _no_class_worse(classes: Sequence[ClassChange], rules: GateRules) -> Check:
    known = [each for each in classes if each.samples >= rules.class_samples]
    fallen = sorted((each for each in known if -each.gain > rules.worst_class_loss), key=lambda each: each.gain)
    few = len(classes) - len(known)
    left_out = marked(f" {few} with fewer than {rules.class_samples} test samples are not judged.") if few else ""
    if not fallen:
        sentence = marked(f"No class has lost more than {rules.worst_class_loss:.0%} of F1.{left_out}")
    else:
        named = ", ".join(f"{each.label} ({each.before:.1%} to {each.after:.1%})" for each in fallen[:5])
        more = marked(f" and {len(fallen) - 5} more") if len(fallen) > 5 else ""
        sentence = marked(
            f"These classes have lost more than {rules.worst_class_loss:.0%} of F1: {named}{more}.{left_out}"
        )
    return Check(code="no_class_worse", passed=not fallen, sentence=sentence)


def _calibrated(truth: Sequence[str], new: Answers, old: Answers | None, rules: GateRules) -> Check:
    after, bound = calibration_error(truth, new), rules.most_calibration_error
    if old is None:
        sentence = marked(f"Its calibration error is {after:.1%}; at most {bound:.1%} is allowed.")
    else:
        before = calibration_error(truth, old)
        # A present model that is badly calibrated must not stop a better one that is not worse in this.
        bound = max(min(bound, before + rules.calibration_loss), min(before, rules.most_calibration_error))
        sentence = marked(
            f"Its calibration error is {after:.1%}, that of the present model {before:.1%}; at most {bound:.1%} is "
            "allowed."
        )
    return Check(code="calibrated", passed=after <= bound, sentence=sentence)


def _fast_and_small(new: Answers, old: Answers | None, rules: GateRules) -> Iterator[Check]:
    if old is None:
        return
    if new.ms_per_sample is not None and old.ms_per_sample is not None:
        yield Check(
            code="fast_enough",
            passed=new.ms_per_sample <= rules.slower * old.ms_per_sample,
            sentence=f"A sample takes {new.ms_per_sample:.1f} ms, with the present model {old.ms_per_sample:.1f} ms; "
            f"at most {rules.slower:g} times as much is allowed.",
        )
    if new.size_bytes is not None and old.size_bytes is not None:
        yield Check(
            code="small_enough",
            passed=new.size_bytes <= rules.larger * old.size_bytes,
            sentence=f"It has {new.size_bytes / 1e6:.1f} MB, the present model {old.size_bytes / 1e6:.1f} MB; "
            f"at most {rules.larger:g} times as much is allowed.",
        )


def _mean(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0


def _mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
