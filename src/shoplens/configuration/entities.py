"""The thresholds of a channel as people edit them, and what they make of its policy. Values and rules only.

A threshold is called as in the settings of its channel: `accept_at`, `labels.hat.review_at`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from shoplens.configuration.errors import ThresholdsInvalid
from shoplens.errors import Misconfigured
from shoplens.predictions.entities import Channel
from shoplens.predictions.policy import LabelRule, Policy
from shoplens.setting_sources import Source

ACCEPT_AT: Final = "accept_at"
STEPS: Final = ("review_at", "reject_at")
Thresholds: TypeAlias = Mapping[str, float | None]
"""Thresholds by name. None switches one off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdVersion:
    """A save: all thresholds that are edited from then on. `version` counts up by channel, from 1."""

    id: str
    created_at: datetime
    channel: str
    version: int
    thresholds: dict[str, float | None]
    created_by: str
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChannel:
    """A channel with the policy of its settings, and where each of its thresholds comes from.

    `answer_at` is set for one with a catalogue side: a suggestion with this score needs no person where `accept_at` is
    not set. Such a channel has no thresholds of labels.
    """

    channel: Channel
    source_of: Callable[[str], Source]
    answer_at: float | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.channel.name

    def is_fixed(self, name: str) -> bool:
        """Whether the operator wrote this threshold, so that it cannot be edited."""
        return self.source_of(name).is_fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedThresholds:
    """What applies to a channel now.

    `edited` are the thresholds that were saved on the page, also those in `overruled`, which the operator fixed since.
    `fault` says why none of them applies: with the settings of now they would contradict each other.
    """

    channel: ThresholdChannel
    policy: Policy
    version: int = 0
    edited: Thresholds
    overruled: tuple[str, ...] = ()
    fault: str | None = None
    created_at: datetime | None = None
    created_by: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One threshold before and after a save."""

    name: str
    before: float | None
    after: float | None


def thresholds_of(policy: Policy) -> dict[str, float | None]:
    """All thresholds of a policy by name."""
    found: dict[str, float | None] = {ACCEPT_AT: policy.accept_at}
    for rule in policy.rules:
        found |= {f"labels.{rule.label}.{step}": getattr(rule, step) for step in STEPS}
    return found


def with_thresholds(policy: Policy, wanted: Thresholds) -> Policy:
    """The policy with other thresholds. Raises ThresholdsInvalid for what is no threshold or contradicts another."""
    rules = {rule.label: {step: getattr(rule, step) for step in STEPS} for rule in policy.rules}
    accept_at = policy.accept_at
    for name, value in wanted.items():
        if value is not None and not math.isfinite(value):
            raise ThresholdsInvalid(f"{name} must be a number from 0 to 1.")
        if name == ACCEPT_AT:
            accept_at = value
        else:
            label, step = label_of(name)
            rules.setdefault(label, {})[step] = value
    try:
        kept = [LabelRule(label=label, **steps) for label, steps in rules.items() if any(steps.values())]
        return Policy(rules=tuple(kept), accept_at=accept_at, audit_share=policy.audit_share)
    except Misconfigured as error:
        raise ThresholdsInvalid(str(error)) from error


def label_of(name: str) -> tuple[str, str]:
    """Label and step of a threshold such as `labels.hat.review_at`. Raises ThresholdsInvalid for any other name."""
    table, _, rest = name.partition(".")
    label, _, step = rest.rpartition(".")
    if table != "labels" or not label or step not in STEPS:
        raise ThresholdsInvalid(f"{name[:100]!r} is no threshold of a channel.")
    return label, step


def changes_between(before: Policy, after: Policy) -> tuple[Change, ...]:
    """The thresholds that differ, `accept_at` first."""
    old, new = thresholds_of(before), thresholds_of(after)
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        Change(name=name, before=old.get(name), after=new.get(name)) for name in names if old.get(name) != new.get(name)
    )
