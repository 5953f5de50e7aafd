"""Decide whether a shopper's photo may be shown: signals in, decision out. No clock, no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from shoplens.messages import marked
from shoplens.moderation.entities import PhotoState, Signal

HASH_BITS: Final = 64
"""The greatest distance of two photos (`images/fingerprint.py`)."""
NEAR_REFUSED: Final = "near_refused"
"""The signal of the nearest known photo that was refused; `near` gives its score."""
NEAR_ACCEPTED: Final = "near_accepted"
"""The same for a photo that a person accepted: the only signal that speaks for showing a photo."""
STRIKES: Final = "strikes"
"""The signal of the refusals that a customer has; `of_strikes` gives its score."""
MOST_STRIKES: Final = 100
_MOST_DIGITS: Final = 17
OWN_RULES: Final = frozenset({NEAR_REFUSED, NEAR_ACCEPTED, STRIKES})
"""Signals that have rules of their own in place of bands."""

QUALITY_SIGNALS: Final = frozenset({"blur", "dark", "overexposed", "small", "text", "border"})
"""How well a photo was taken. A policy cannot refuse a photo for it, only send it to a person."""

HARMLESS: Final = frozenset({"safe", "sfw", "neutral", "normal"})
"""Labels of moderation models whose high scores speak for a photo. They are signals only where the settings of the
channel have thresholds for them."""

DEFAULT_REVIEW: Final[Mapping[str, float]] = {
    "screenshot": 0.5,
    "document": 0.5,
    "weapon": 0.5,
    "blur": 0.9,
    "dark": 0.9,
    "text": 0.8,
    "border": 0.8,
}
"""From which scores a person decides, where the settings of a channel say nothing of a signal that it has."""


def near(distance: int) -> float:
    """The score of a memory signal: 1 for the same photo, 0 for its negative."""
    return 1 - distance / HASH_BITS


def distance_of(score: float) -> int:
    """The distance, from the score of a memory signal."""
    return round((1 - score) * HASH_BITS)


def of_strikes(count: int) -> float:
    """The score of the signal `strikes`."""
    return min(count, MOST_STRIKES) / MOST_STRIKES


def strikes_of(score: float) -> int:
    """How many strikes the score of the signal stands for."""
    return round(score * MOST_STRIKES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """From which score on one signal sends a photo to a person, or refuses it. None switches that step off."""

    signal: str
    review_at: float | None = None
    reject_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModerationPolicy:
    """A channel's rules. The same rules have the same `version` on every machine. None switches a rule off.

    `refuse_distance` and `accept_distance` are the greatest distances (of 64) to a photo that was refused, or that a
    person accepted; bench/results.md says what they find. With `strikes` refusals within `strike_days` all photos of a
    customer are held. `hide_after_reports` reports hide a published photo again. `second_opinion_share` of what people
    decide is decided by a second one too.
    """

    bands: tuple[Band, ...] = ()
    refuse_distance: int | None = 5
    accept_distance: int | None = 4
    strikes: int | None = 3
    strike_days: int = 30
    hide_after_reports: int | None = 3
    second_opinion_share: float = 0.0
    version: str = field(init=False)

    def __post_init__(self) -> None:
        facts = [
            sorted((asdict(band) for band in self.bands), key=lambda band: str(band["signal"])),
            [self.refuse_distance, self.accept_distance, self.strikes, self.strike_days],
            [self.hide_after_reports, self.second_opinion_share],
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        object.__setattr__(self, "version", digest[:12])


def dropped_signals(before: ModerationPolicy, after: ModerationPolicy) -> tuple[str, ...]:
    """The signals that `before` has a threshold for and `after` has none for: they no longer hold or refuse photos."""
    return tuple(sorted(_with_thresholds(before) - _with_thresholds(after)))


def _with_thresholds(policy: ModerationPolicy) -> set[str]:
    return {band.signal for band in policy.bands if (band.review_at, band.reject_at) != (None, None)}


def usual_bands(given: Sequence[Band], signals: Collection[str]) -> tuple[Band, ...]:
    """`given`, the bands of a channel's settings, and the usual ones of its other signals."""
    without = set(signals) - {band.signal for band in given}
    return (*given, *(Band(signal=name, review_at=at) for name, at in DEFAULT_REVIEW.items() if name in without))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision:
    """The state that the policy gives a photo; `rule` is a sentence, `signal` the one that decided, if any."""

    state: PhotoState
    rule: str
    signal: str | None = None


def evaluate(signals: Sequence[Signal], policy: ModerationPolicy, *, failed: Collection[str] = ()) -> PolicyDecision:
    """Refusal wins over holding, holding over publishing; what the policy needs and does not have is a reason to hold.

    A signal with a band is needed. Memory and strikes may be absent, which means that nothing is known; name them in
    `failed` if they could not be looked up.
    """
    scores = {signal.name: signal.score for signal in signals}
    return (
        _rejected(scores, policy)
        or _near_refused(scores, policy)
        or _missing(scores, policy, failed)
        or _struck(scores, policy)
        or _near_accepted(scores, policy)
        or _in_review(scores, policy)
        or PolicyDecision(state=PhotoState.PUBLISHED, rule=_why_published(scores, policy))
    )


def _rejected(scores: Mapping[str, float], policy: ModerationPolicy) -> PolicyDecision | None:
    for band in policy.bands:
        score = scores.get(band.signal)
        if score is not None and band.reject_at is not None and score >= band.reject_at:
            digits = _digits(score, band)
            rule = marked(
                f"The score of {band.signal} is {score:.{digits}f}; photos are refused from {band.reject_at:g}."
            )
            return PolicyDecision(state=PhotoState.REFUSED, rule=rule, signal=band.signal)
    return None


def _near_refused(scores: Mapping[str, float], policy: ModerationPolicy) -> PolicyDecision | None:
    """A photo that is as near to an accepted one is a person's to decide: the memory contradicts itself."""
    refused = _distance(scores, NEAR_REFUSED, policy.refuse_distance)
    if refused is None:
        return None
    accepted = _distance(scores, NEAR_ACCEPTED, policy.accept_distance)
    like = marked(f"It is like a photo that was refused (distance {refused} of {HASH_BITS})")
    if accepted is not None and accepted <= refused:
        rule = marked(f"{like}, and as near to one that a person accepted (distance {accepted}): a person decides.")
        return PolicyDecision(state=PhotoState.HELD, rule=rule, signal=NEAR_REFUSED)
    rule = marked(f"{like}; photos are refused up to distance {policy.refuse_distance}.")
    return PolicyDecision(state=PhotoState.REFUSED, rule=rule, signal=NEAR_REFUSED)


def _missing(scores: Mapping[str, float], policy: ModerationPolicy, failed: Collection[str]) -> PolicyDecision | None:
    needed = [(band.signal, band.signal not in scores) for band in policy.bands]
    needed += [
        (NEAR_REFUSED, policy.refuse_distance is not None and NEAR_REFUSED in failed),
        (NEAR_ACCEPTED, policy.accept_distance is not None and NEAR_ACCEPTED in failed),
        (STRIKES, policy.strikes is not None and STRIKES in failed),
    ]
    for signal, is_missing in needed:
        if is_missing:
            rule = marked(f"The score of {signal} is missing; no photo is shown without it.")
            return PolicyDecision(state=PhotoState.HELD, rule=rule, signal=signal)
    return None


def _struck(scores: Mapping[str, float], policy: ModerationPolicy) -> PolicyDecision | None:
    count = strikes_of(scores.get(STRIKES, 0.0))
    if policy.strikes is None or count < policy.strikes:
        return None
    days, strikes = policy.strike_days, policy.strikes
    rule = marked(
        f"The customer has {count} refused photos within {days} days; from {strikes} on, all photos are held."
    )
    return PolicyDecision(state=PhotoState.HELD, rule=rule, signal=STRIKES)


def _near_accepted(scores: Mapping[str, float], policy: ModerationPolicy) -> PolicyDecision | None:
    accepted = _distance(scores, NEAR_ACCEPTED, policy.accept_distance)
    if accepted is None:
        return None
    like = marked(f"It is like a photo that a person accepted (distance {accepted} of {HASH_BITS})")
    rule = marked(f"{like}; photos are published up to distance {policy.accept_distance}.")
    return PolicyDecision(state=PhotoState.PUBLISHED, rule=rule, signal=NEAR_ACCEPTED)


def _in_review(scores: Mapping[str, float], policy: ModerationPolicy) -> PolicyDecision | None:
    for band in policy.bands:
        score = scores.get(band.signal)
        if score is not None and band.review_at is not None and score >= band.review_at:
            digits = _digits(score, band)
            rule = marked(f"The score of {band.signal} is {score:.{digits}f}; photos are held from {band.review_at:g}.")
            return PolicyDecision(state=PhotoState.HELD, rule=rule, signal=band.signal)
    return None


def _why_published(scores: Mapping[str, float], policy: ModerationPolicy) -> str:
    """Names the signal that came nearest to its threshold."""
    first = [
        (min(each for each in (band.review_at, band.reject_at) if each is not None), band)
        for band in policy.bands
        if (band.review_at, band.reject_at) != (None, None)
    ]
    if not first:
        return marked("The policy has no thresholds, so the photo is published.")
    threshold, band = min(first, key=lambda each: each[0] - scores[each[1].signal])
    score = scores[band.signal]
    digits = _digits(score, band)
    shown = marked(f"{band.signal} with {score:.{digits}f} below {threshold:g}")
    return marked(f"All scores are below their thresholds; the nearest is {shown}.")


def _distance(scores: Mapping[str, float], signal: str, most: int | None) -> int | None:
    """The distance if it counts by the policy."""
    if most is None or signal not in scores:
        return None
    distance = distance_of(scores[signal])
    return distance if distance <= most else None


def _digits(score: float, band: Band) -> int:
    """Two digits of a score, or as many as it takes to show on which side of both thresholds it lies."""
    thresholds = [each for each in (band.review_at, band.reject_at) if each is not None]
    for digits in range(2, _MOST_DIGITS):
        shown = float(f"{score:.{digits}f}")
        if all((shown >= each) is (score >= each) for each in thresholds):
            return digits
    return _MOST_DIGITS
