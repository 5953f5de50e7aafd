"""Moderation in the words of pages: why a photo waits, what was decided, and the bars of its signals."""

from __future__ import annotations

from dataclasses import dataclass

from shoplens.moderation.entities import DecisionKind, ModerationPhoto, PhotoDecision, PhotoState, QueueReason
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.service import Progress
from shoplens.moderation.repository import MOST_COUNTED

STATE_WORDS = {PhotoState.HELD: "Held", PhotoState.PUBLISHED: "Published", PhotoState.REFUSED: "Refused"}
QUEUE_WORDS = {
    QueueReason.HELD: "Held",
    QueueReason.REPORTED: "Reported",
    QueueReason.APPEAL: "Appeal",
    QueueReason.SECOND_OPINION: "Second opinion",
    QueueReason.ESCALATED: "Escalated",
}
_OUTCOMES = {PhotoState.HELD: "review", PhotoState.PUBLISHED: "accept", PhotoState.REFUSED: "reject"}
_DONE = {PhotoState.HELD: "Held", PhotoState.PUBLISHED: "Published", PhotoState.REFUSED: "Refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalBar:
    """One signal with its thresholds, where the policy has some."""

    name: str
    score: float
    detail: str | None
    review_at: float | None
    reject_at: float | None

    @property
    def band(self) -> str:
        """`reject`, `review` or `accept`: in which band of the policy the score lies."""
        if self.reject_at is not None and self.score >= self.reject_at:
            return "reject"
        return "review" if self.review_at is not None and self.score >= self.review_at else "accept"


def signal_bars(photo: ModerationPhoto, policy: ModerationPolicy) -> list[SignalBar]:
    """The signals of a photo: first those that speak against it, then those that the policy looks at, then the rest."""
    bands = {band.signal: band for band in policy.bands}
    bars = [
        SignalBar(
            name=each.name,
            score=each.score,
            detail=each.detail,
            review_at=bands[each.name].review_at if each.name in bands else None,
            reject_at=bands[each.name].reject_at if each.name in bands else None,
        )
        for each in photo.signals
    ]
    order = ("reject", "review", "accept")
    return sorted(bars, key=lambda bar: (order.index(bar.band), bar.name not in bands, -bar.score))


def why(photo: ModerationPhoto) -> str:
    """Why a photo waits, or what was decided, in a sentence."""
    rule = _sentence(photo.rule)
    if photo.queue is QueueReason.REPORTED:
        return f"Reported by {photo.reports} shopper{'s' if photo.reports != 1 else ''}. {rule}".strip()
    if photo.queue is QueueReason.APPEAL:
        return f"The shopper appealed. {rule}".strip()
    if photo.queue is QueueReason.ESCALATED:
        return f"Escalated: another person decides. {rule}".strip()
    return rule or "Waits for a person."


def queue_word(reason: QueueReason) -> str:
    """Why it waits, in a word."""
    return QUEUE_WORDS[reason]


def photo_state_word(state: PhotoState) -> str:
    """What the public sees, in a word."""
    return STATE_WORDS[state]


def photo_outcome(state: PhotoState) -> str:
    """The colour of the state's badge."""
    return _OUTCOMES[state]


def entry_words(entry: PhotoDecision) -> str:
    """One entry of the history in a sentence."""
    if entry.kind is DecisionKind.ESCALATION:
        return f"Escalated by {entry.by_name}"
    if entry.kind is DecisionKind.UNDO:
        return f"Taken back by {entry.by_name}"
    if entry.kind is DecisionKind.POLICY:
        return f"{_DONE[entry.to_state]} by the policy"
    if entry.kind is DecisionKind.REPORT:
        return "Hidden after reports by shoppers"
    what = {DecisionKind.SECOND_OPINION: " as a second opinion", DecisionKind.APPEAL: " on appeal"}.get(entry.kind, "")
    return f"{_DONE[entry.to_state]}{what} by {entry.by_name}"


def counted(number: int) -> str:
    """A count that ends at its bound: "10,000+"."""
    return f"{number:,}+" if number >= MOST_COUNTED else f"{number:,}"


def pace_words(progress: Progress) -> str:
    """Decisions per minute, a dash before there is a pace."""
    return "–" if progress.per_minute is None else f"{progress.per_minute:.1f}"


def agreement_words(progress: Progress) -> str:
    """How often two people decided the same, a dash before any second opinion."""
    return "–" if not progress.compared else f"{progress.agreed / progress.compared:.0%}"


def _sentence(rule: str | None) -> str:
    return "" if not rule else f"{rule[0].upper()}{rule[1:].removesuffix('.')}."
