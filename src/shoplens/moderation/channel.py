"""The moderation side of a channel, as its settings and its models give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ModerationChannel:
    """What is there once per channel with a moderation side.

    `model` is the moderation model; `general_model` is another one whose labels are added up by `groups`.
    `signals` are the names of all signals that a policy can set a band for, `reasons` those of refusals.
    `default_policy` applies until a version is stored. `audit_share` of what the policy publishes or refuses goes to a
    person nevertheless, chosen at random.
    """

    name: str
    title: str
    model: str
    general_model: str | None
    groups: Mapping[str, tuple[str, ...]]
    signals: tuple[str, ...]
    reasons: tuple[Reason, ...]
    default_policy: ModerationPolicy
    audit_share: float = 0.0
