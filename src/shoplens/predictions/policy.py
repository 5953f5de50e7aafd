"""Decide what happens to a classified photo: Prediction in, Decision out. No clock, no I/O."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shoplens.errors import Misconfigured
from shoplens.serving.engine import LEAST_THRESHOLD, Prediction


class Outcome(StrEnum):
    """What a policy makes of a photo."""

    ACCEPT = "accept"
    REVIEW = "review"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """From which score on a label sends a photo to a person, or refuses it. None switches that step off."""

    label: str
    review_at: float | None = None
    reject_at: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("review_at", self.review_at), ("reject_at", self.reject_at)):
            _require_score(value, f"{name} of label {self.label!r}")
        if self.review_at is not None and self.reject_at is not None and self.review_at > self.reject_at:
            raise Misconfigured(
                f"Label {self.label!r}: review_at ({self.review_at}) must not be above reject_at ({self.reject_at})."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A channel's thresholds. `accept_at` is the least score of the best label that needs no person.

    `audit_share` of what the thresholds accept goes to a person nevertheless, chosen at random: without such checks
    nobody learns how often accepted samples are wrong.
    """

    rules: tuple[LabelRule, ...] = ()
    accept_at: float | None = None
    audit_share: float = 0.0
    version: str = field(init=False)

    def __post_init__(self) -> None:
        _require_score(self.accept_at, "accept_at")
        if not 0 <= self.audit_share <= 1:
            raise Misconfigured(f"audit_share must lie between 0 and 1, not {self.audit_share}.")
        # The same thresholds have the same version on every machine, and any change gives another one.
        facts: list[object] = [[[rule.label, rule.review_at, rule.reject_at] for rule in self.rules], self.accept_at]
        if self.audit_share:
            facts.append(self.audit_share)
        object.__setattr__(self, "version", hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12])


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome with the label and the threshold that decided; both None where no threshold applied.

    `check_share` is set for a random check only: with this probability a sample that the thresholds accept went to a
    person at that time.
    """

    outcome: Outcome
    policy_version: str
    label: str | None = None
    threshold: float | None = None
    check_share: float | None = None

    @property
    def random_check(self) -> bool:
        """Whether chance sent the sample to a person, and no threshold."""
        return self.check_share is not None


def decide(prediction: Prediction, policy: Policy, *, draw: float = 1.0) -> Decision:
    """Refusal wins over review, review over acceptance; among equals the first rule in the policy wins.

    `draw` is a random number from 0 to 1 for what is accepted: below the policy's `audit_share` a person checks it.
    """
    decision = _by_thresholds(prediction, policy)
    if decision.outcome is Outcome.ACCEPT and draw < policy.audit_share:
        return replace(decision, outcome=Outcome.REVIEW, check_share=policy.audit_share)
    return decision


def _by_thresholds(prediction: Prediction, policy: Policy) -> Decision:
    rejects = [(Outcome.REJECT, rule.label, rule.reject_at) for rule in policy.rules]
    reviews = [(Outcome.REVIEW, rule.label, rule.review_at) for rule in policy.rules]
    for outcome, label, threshold in rejects + reviews:
        if threshold is not None and prediction.score_of(label) >= threshold:
            return Decision(outcome=outcome, policy_version=policy.version, label=label, threshold=threshold)
    if policy.accept_at is None:
        return Decision(outcome=Outcome.ACCEPT, policy_version=policy.version)
    sure = prediction.top.score >= policy.accept_at
    return Decision(
        outcome=Outcome.ACCEPT if sure else Outcome.REVIEW,
        policy_version=policy.version,
        label=prediction.top.label,
        threshold=policy.accept_at,
    )


def _require_score(value: float | None, name: str) -> None:
    # A label that scores less may have fallen out of the ranked ones, so the rule could not be exact.
    if value is not None and not LEAST_THRESHOLD <= value <= 1.0:
        raise Misconfigured(f"{name} must lie between {LEAST_THRESHOLD} and 1, not {value}.")
