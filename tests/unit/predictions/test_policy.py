"""Policies: thresholds in, outcomes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import Misconfigured
from shoplens.predictions.policy import LabelRule, Outcome, Policy, decide
from shoplens.serving.engine import LabelScore, Prediction

REVIEWS = Policy(rules=(LabelRule(label="nsfw", review_at=0.2, reject_at=0.85),))


def predicted(**scores: float) -> Prediction:
    """A prediction with these scores, best first."""
    ranked = sorted(scores.items(), key=lambda entry: -entry[1])
    return Prediction(
        model=ModelRef(name="m", version="1"), labels=tuple(LabelScore(label, score) for label, score in ranked)
    )


@pytest.mark.parametrize(
    ("score", "outcome", "threshold"),
    [
        (0.0, Outcome.ACCEPT, None),
        (0.1999, Outcome.ACCEPT, None),
        (0.2, Outcome.REVIEW, 0.2),
        (0.8499, Outcome.REVIEW, 0.2),
        (0.85, Outcome.REJECT, 0.85),
        (1.0, Outcome.REJECT, 0.85),
    ],
)
def test_a_score_at_the_threshold_already_counts(score: float, outcome: Outcome, threshold: float | None) -> None:
    """The threshold belongs to the stricter side, and the decision names it."""
    decision = decide(predicted(safe=1 - score, nsfw=score), REVIEWS)
    assert (outcome, threshold) == (decision.outcome, decision.threshold)
    assert decision.label == (None if threshold is None else "nsfw")


def test_refusal_wins_over_review_whatever_the_order_of_the_rules() -> None:
    """A photo that one rule refuses is not saved by another rule that only wants to look."""
    policy = Policy(rules=(LabelRule(label="text", review_at=0.3), LabelRule(label="weapon", reject_at=0.3)))
    decision = decide(predicted(text=0.6, weapon=0.4), policy)
    assert (Outcome.REJECT, "weapon") == (decision.outcome, decision.label)


def test_a_doubtful_best_label_goes_to_a_person() -> None:
    """With accept_at only a sure best label is accepted."""
    policy = Policy(accept_at=0.7)
    assert Outcome.ACCEPT is decide(predicted(shirt=0.7, dress=0.3), policy).outcome
    decision = decide(predicted(shirt=0.69, dress=0.31), policy)
    assert (Outcome.REVIEW, "shirt", 0.7) == (decision.outcome, decision.label, decision.threshold)


def test_a_label_that_the_model_does_not_have_never_decides() -> None:
    """Its score is zero, and thresholds begin above that."""
    policy = Policy(rules=(LabelRule(label="unicorn", reject_at=0.05),))
    assert Outcome.ACCEPT is decide(predicted(horse=1.0), policy).outcome


def test_any_change_of_a_threshold_gives_another_version_and_none_gives_the_same() -> None:
    """The version is a digest of the thresholds, so it is the same on every machine."""
    same = Policy(rules=(LabelRule(label="nsfw", review_at=0.2, reject_at=0.85),))
    others = {
        Policy().version,
        Policy(accept_at=0.5).version,
        Policy(rules=(LabelRule(label="nsfw", review_at=0.2),)).version,
        Policy(rules=(LabelRule(label="nsfw", review_at=0.21, reject_at=0.85),)).version,
    }
    assert same.version == REVIEWS.version
    assert len(others | {REVIEWS.version}) == 5


@pytest.mark.parametrize("thresholds", [{"review_at": 0.9, "reject_at": 0.5}, {"review_at": 1.5}, {"reject_at": 0.0}])
def test_thresholds_that_make_no_sense_are_refused(thresholds: dict[str, float]) -> None:
    """Before anything is decided with them."""
    with pytest.raises(Misconfigured, match="nsfw"):
        LabelRule(label="nsfw", **thresholds)


@given(st.floats(0, 1), st.floats(0.05, 1), st.floats(0.05, 1))
def test_a_higher_score_is_never_treated_more_kindly(score: float, one: float, other: float) -> None:
    """Outcomes are monotonic in the score of the watched label."""
    order = [Outcome.ACCEPT, Outcome.REVIEW, Outcome.REJECT]
    policy = Policy(rules=(LabelRule(label="nsfw", review_at=min(one, other), reject_at=max(one, other)),))
    lower, higher = (decide(predicted(nsfw=s, safe=1 - s), policy).outcome for s in (score * 0.9, score))
    assert order.index(lower) <= order.index(higher)


def test_a_share_of_what_is_accepted_goes_to_a_person_by_chance() -> None:
    """The draw decides, and the decision says with which probability: the weight of the answer."""
    policy = Policy(accept_at=0.7, audit_share=0.02)
    checked = decide(predicted(shirt=0.9, dress=0.1), policy, draw=0.0199)
    assert (Outcome.REVIEW, 0.02, True) == (checked.outcome, checked.check_share, checked.random_check)
    passed = decide(predicted(shirt=0.9, dress=0.1), policy, draw=0.02)
    assert (Outcome.ACCEPT, None, False) == (passed.outcome, passed.check_share, passed.random_check)


def test_what_a_threshold_sends_to_a_person_is_no_random_check() -> None:
    """Its answer stands for itself alone, so it must not get the weight of a check."""
    decision = decide(predicted(shirt=0.6, dress=0.4), Policy(accept_at=0.7, audit_share=1.0), draw=0.0)
    assert (Outcome.REVIEW, None) == (decision.outcome, decision.check_share)


def test_a_policy_without_random_checks_keeps_its_version() -> None:
    """Versions are stored with every prediction; another share is another policy."""
    assert Policy(accept_at=0.7).version == Policy(accept_at=0.7, audit_share=0.0).version
    assert Policy(accept_at=0.7).version != Policy(accept_at=0.7, audit_share=0.01).version


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_checks_lies_between_none_and_all(share: float) -> None:
    """Anything else is a mistake in the settings."""
    with pytest.raises(Misconfigured, match="audit_share"):
        Policy(audit_share=share)
