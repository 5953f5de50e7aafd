"""Moderation in the words of pages: why a photo waits, what was decided, and the bars of its signals."""

from __future__ import annotations

from dataclasses import dataclass

from shoplens.messages import gettext, known, localised, marked, ngettext, whole_number
from shoplens.moderation.entities import DecisionKind, ModerationPhoto, PhotoDecision, PhotoState, QueueReason
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.service import Progress
from shoplens.moderation.reasons import Reason
from shoplens.moderation.repository import MOST_COUNTED

STATE_WORDS = {
    PhotoState.HELD: marked("Held"),
    PhotoState.PUBLISHED: marked("Published"),
    PhotoState.REFUSED: marked("Refused"),
}
QUEUE_WORDS = {
    QueueReason.HELD: marked("Held"),
    QueueReason.REPORTED: marked("Reported"),
    QueueReason.APPEAL: marked("Appeal"),
    QueueReason.SECOND_OPINION: marked("Second opinion"),
    QueueReason.ESCALATED: marked("Escalated"),
    QueueReason.CHECK: marked("Random check"),
}
_REASON_TITLES = {
    "nudity": marked("Nudity"),
    "violence": marked("Violence"),
    "hate": marked("Hate"),
    "personal_data": marked("Personal data"),
    "not_the_product": marked("Not the product"),
    "advertising": marked("Advertising"),
    "copyright": marked("Copyright"),
    "unusable": marked("Unusable"),
    "other": marked("Other"),
}
_ENTRY_WORDS = {
    DecisionKind.ESCALATION: marked("Escalated by %(by_name)s"),
    DecisionKind.UNDO: marked("Taken back by %(by_name)s"),
    DecisionKind.POLICY: marked("%(done)s by the policy"),
    DecisionKind.REPORT: marked("Hidden after reports by shoppers"),
    DecisionKind.SECOND_OPINION: marked("%(done)s as a second opinion by %(by_name)s"),
    DecisionKind.APPEAL: marked("%(done)s on appeal by %(by_name)s"),
}
_SIGNAL_TITLES = {
    "nsfw": marked("Nudity"),
    "not_product": marked("Not the product"),
    "blur": marked("Blurred"),
    "dark": marked("Too dark"),
    "overexposed": marked("Overexposed"),
    "small": marked("Too small"),
    "text": marked("Text in the photo"),
    "border": marked("Even border"),
    "near_refused": marked("Like a refused photo"),
    "near_accepted": marked("Like an accepted photo"),
    "strikes": marked("Refused before"),
    "duplicate": marked("Sent before"),
}
"""The signals of Shoplens and of its own settings in a word or two; those of a shop's models are as they are named."""
_OUTCOMES = {PhotoState.HELD: "review", PhotoState.PUBLISHED: "accept", PhotoState.REFUSED: "reject"}


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
            detail=None if each.detail is None else known(each.detail),
            review_at=bands[each.name].review_at if each.name in bands else None,
            reject_at=bands[each.name].reject_at if each.name in bands else None,
        )
        for each in photo.signals
    ]
    order = ("reject", "review", "accept")
    return sorted(bars, key=lambda bar: (order.index(bar.band), bar.name not in bands, -bar.score))


def signal_title(name: str) -> str:
    """A signal in words, or its name where it is not one of ours."""
    return gettext(_SIGNAL_TITLES[name]) if name in _SIGNAL_TITLES else name


def why(photo: ModerationPhoto) -> str:
    """Why a photo waits, or what was decided, in a sentence."""
    rule = _sentence(photo.rule)
    if photo.queue is QueueReason.REPORTED:
        reported = ngettext("Reported by %(number)s shopper.", "Reported by %(number)s shoppers.", photo.reports)
        return f"{reported} {rule}".strip()
    if photo.queue is QueueReason.APPEAL:
        return gettext("The shopper appealed. %(rule)s", rule=rule).strip()
    if photo.queue is QueueReason.ESCALATED:
        return gettext("Passed on to the next person. %(rule)s", rule=rule).strip()
    return rule or gettext("Waits for a person.")


def reason_title(reason: Reason) -> str:
    """A reason for a refusal in a word or two; in the language of the page where it is one of ours."""
    return gettext(_REASON_TITLES[reason.code]) if reason.code in _REASON_TITLES else reason.title


def refusal_words(code: str) -> str:
    """The same of the code that a decision keeps, also of one that the shop has removed since."""
    return reason_title(Reason(code=code, sentence=""))


def queue_word(reason: QueueReason) -> str:
    """Why it waits, in a word."""
    return gettext(QUEUE_WORDS[reason])


def photo_state_word(state: PhotoState) -> str:
    """What the public sees, in a word."""
    return gettext(STATE_WORDS[state])


def photo_outcome(state: PhotoState) -> str:
    """The colour of the state's badge."""
    return _OUTCOMES[state]


def entry_words(entry: PhotoDecision) -> str:
    """One entry of the history in a sentence."""
    words = _ENTRY_WORDS.get(entry.kind, marked("%(done)s by %(by_name)s"))
    return gettext(words, done=gettext(STATE_WORDS[entry.to_state]), by_name=entry.by_name)


def counted(number: int) -> str:
    """A count that ends at its bound: "10,000+"."""
    return f"{whole_number(number)}+" if number >= MOST_COUNTED else whole_number(number)


def pace_words(progress: Progress) -> str:
    """Decisions per minute, a dash before there is a pace."""
    return "–" if progress.per_minute is None else localised(f"{progress.per_minute:.1f}")


def agreement_words(progress: Progress) -> str:
    """How often two people decided the same, a dash before any second opinion."""
    return "–" if not progress.compared else localised(f"{progress.agreed / progress.compared:.0%}")


def _sentence(rule: str | None) -> str:
    said = known(rule or "")
    return "" if not said else f"{said[0].upper()}{said[1:].removesuffix('.')}."
