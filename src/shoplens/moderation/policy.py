"""Decide whether a shopper's photo may be shown: signals in, decision out. No clock, no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from shoplens.moderation.entities import PhotoState, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """From which score on one signal sends a photo to a person, or refuses it. None switches that step off."""

    signal: str
    review_at: float | None = None
    reject_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModerationPolicy:
    """A channel's rules. The same rules have the same `version` on every machine.

    `refuse_distance` and `accept_distance` are the most unequal bits of the perceptual hash (of 64) to a photo that was
    refused, or that a person accepted; None switches that memory off.
    """

    bands: tuple[Band, ...] = ()
    refuse_distance: int | None = 6
    accept_distance: int | None = 4
    strikes: int | None = 3
    strike_days: int = 30
    version: str = field(init=False)

    def __post_init__(self) -> None:
        facts = [
            [asdict(band) for band in self.bands],
            [self.refuse_distance, self.accept_distance, self.strikes, self.strike_days],
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        object.__setattr__(self, "version", digest[:12])


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision:
    """The state that the policy gives a photo; `rule` is a sentence, `signal` the one that decided, if any."""

    state: PhotoState
    rule: str
    signal: str | None = None


def evaluate(signals: Sequence[Signal], policy: ModerationPolicy) -> PolicyDecision:
    """Refusal wins over review, review over publishing; a signal that the policy needs and that is missing holds."""
    scores: Mapping[str, float] = {signal.name: signal.score for signal in signals}
    for band in policy.bands:
        if band.reject_at is not None and scores.get(band.signal, 0.0) >= band.reject_at:
            rule = f"{band.signal} {scores[band.signal]:.2f} is at least {band.reject_at:g}"
            return PolicyDecision(state=PhotoState.REFUSED, rule=rule, signal=band.signal)
    for band in policy.bands:
        if band.signal not in scores:
            return PolicyDecision(state=PhotoState.HELD, rule=f"{band.signal} is missing", signal=band.signal)
        if band.review_at is not None and scores[band.signal] >= band.review_at:
            rule = f"{band.signal} {scores[band.signal]:.2f} is at least {band.review_at:g}"
            return PolicyDecision(state=PhotoState.HELD, rule=rule, signal=band.signal)
    return PolicyDecision(state=PhotoState.PUBLISHED, rule="no rule speaks against it")
