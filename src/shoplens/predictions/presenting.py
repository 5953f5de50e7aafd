"""Predictions in the words that people read on the pages: confidence, thresholds, reasons.

Pure functions, used as template filters; `static/words.js` has the same rules for what a script shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from shoplens.messages import gettext, known, localised, marked, ngettext, whole_number
from shoplens.predictions.entities import Channel, Feedback, FeedbackValue, Keep, PredictionRecord
from shoplens.predictions.policy import Outcome, Policy

OUTCOME_WORDS: Final = {
    Outcome.ACCEPT: marked("Accepted"),
    Outcome.REVIEW: marked("Needs review"),
    Outcome.REJECT: marked("Rejected"),
}

VERDICT_WORDS: Final = {
    FeedbackValue.RIGHT: marked("Correct"),
    FeedbackValue.WRONG: marked("Incorrect"),
    FeedbackValue.NONE: marked("None of the labels"),
    FeedbackValue.UNUSABLE: marked("Not usable"),
}

KEEP_WORDS: Final = {
    Keep.ORIGINAL: marked("Original stored."),
    Keep.THUMBNAIL: marked("This channel stores thumbnails only."),
    Keep.NOTHING: marked("This channel stores no photos."),
}

HIGH_CONFIDENCE_FROM: Final = 0.8
MEDIUM_CONFIDENCE_FROM: Final = 0.5
BEST_GUESS_BELOW: Final = 0.3
"""A best score below this is shown as a guess and in amber."""

SHOWN_LABELS: Final = 10


def confidence(score: float) -> str:
    """How certain a best score of that size is, in words."""
    if score < BEST_GUESS_BELOW:
        return gettext("Low confidence. Best guess:")
    if score < MEDIUM_CONFIDENCE_FROM:
        return gettext("Low confidence")
    return gettext("Medium confidence") if score < HIGH_CONFIDENCE_FROM else gettext("High confidence")


def threshold_percent(threshold: float) -> str:
    """0.85 is "85%"; decimals only where the threshold has them: 0.125 is "12.5%"."""
    return f"{threshold * 100:.4f}".rstrip("0").rstrip(".") + "%"


def compared_percent(score: float, threshold: float) -> str:
    """`score` with a decimal, or as many as `threshold` has; rounded so that it does not contradict their order."""
    decimals = max(1, len(threshold_percent(threshold).rstrip("%").partition(".")[2]))
    shown = round(score * 100, decimals)
    if (shown >= round(threshold * 100, decimals)) is not (score >= threshold):
        shown = math.floor(score * 100 * 10**decimals) / 10**decimals
    return f"{shown:.{decimals}f}%"


def reason(record: PredictionRecord) -> str:
    """The score and threshold that decided, like "66.7% (needs 80%)"; "" where none did, "Random check" for a draw.

    The label stands before it where it is not the best one, which is shown anyway.
    """
    label, threshold = record.decision.label, record.decision.threshold
    if record.decision.random_check:
        return gettext("Random check")
    if label is None or threshold is None:
        return ""
    score = next((entry.score for entry in record.labels if entry.label == label), 0.0)
    shown, limit = localised(compared_percent(score, threshold)), localised(threshold_percent(threshold))
    comparison = (
        gettext("%(score)s (needs %(threshold)s)", score=shown, threshold=limit)
        if score < threshold
        else f"{shown} (≥ {limit})"
    )
    return comparison if label == record.labels[0].label else f"{label} {comparison}"


def thresholds(policy: Policy) -> list[str]:
    """One phrase per rule of the policy, like "nsfw: review ≥ 20%, reject ≥ 85%"; empty where all is accepted."""
    phrases = []
    for rule in policy.rules:
        steps = [(gettext("review"), rule.review_at), (gettext("reject"), rule.reject_at)]
        parts = [f"{verb} ≥ {localised(threshold_percent(at))}" for verb, at in steps if at is not None]
        if parts:
            phrases.append(f"{rule.label}: {', '.join(parts)}")
    if policy.accept_at is not None:
        phrases.append(f"{gettext('review')} < {localised(threshold_percent(policy.accept_at))}")
    return phrases


def label_name(label: str, channel: Channel | str) -> str:
    """What people call a label of the channel; the label itself where nothing is set."""
    return channel.label_names.get(label, label) if isinstance(channel, Channel) else label


def label_key(label: str, channel: Channel | str) -> str:
    """The label, where its name says it in other words; else ""."""
    return label if label_name(label, channel).casefold() != label.casefold() else ""


def total_words(total: int, is_exact: bool) -> str:
    """How many records a list has: "1 record", "3,104 records", "more than 10,000 records"."""
    if not is_exact:
        return gettext("more than %(total)s records", total=whole_number(total))
    return ngettext("%(number)s record", "%(number)s records", total)


def deleted_words(outcome: str) -> str:
    """What a deletion did, of the numbers in an address: deleted, kept, whether some are left. "" for other texts."""
    parts = outcome.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return ""
    deleted, kept, left = map(int, parts)
    sentences = [gettext("%(total_words)s deleted.", total_words=total_words(deleted, True))]
    if kept:
        sentences.append(
            gettext("%(total_words)s stayed: they belong to items of a run.", total_words=total_words(kept, True))
        )
    if left:
        sentences.append(gettext("Some are left. Delete again to go on."))
    return " ".join(sentences)


def channel_title(channel: Channel | str) -> str:
    """The title of a channel, or its name as a heading where it has no title or is no longer in the settings."""
    if isinstance(channel, Channel) and channel.title != channel.name:
        return known(channel.title)
    name = channel.name if isinstance(channel, Channel) else channel
    spaced = name.replace("-", " ").replace("_", " ").strip()
    return spaced[:1].upper() + spaced[1:]


def channel_question(channel: Channel) -> str:
    """What the channel answers, in a few words; the model where no question is set."""
    return (
        known(channel.question)
        if channel.question != channel.name
        else gettext("Classified by %(model)s", model=channel.model)
    )


def condensed(feedback: Sequence[Feedback]) -> list[Feedback]:
    """Without a bare click where the next entry repeats it with a label or a comment."""

    def repeated_with_more(index: int) -> bool:
        this, following = feedback[index], feedback[index + 1 : index + 2]
        return any(each.verdict is this.verdict and (each.label or each.comment) for each in following)

    return [each for i, each in enumerate(feedback) if each.label or each.comment or not repeated_with_more(i)]
