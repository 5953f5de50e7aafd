"""Turn values into the words and numbers that people read on the pages. Pure functions, used as template filters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from shoplens.images.picture import ImageSpec
from shoplens.predictions.entities import Channel, Feedback, Keep, PredictionRecord
from shoplens.predictions.policy import Outcome, Policy
from shoplens.serving.prediction import LabelScore

QUESTIONS: Final = {"look": "What is on this photo?", "reviews": "May this photo be shown in public?"}
"""What the channels of the default settings are asked."""

OUTCOME_WORDS: Final = {Outcome.ACCEPT: "Accepted", Outcome.REVIEW: "Needs review", Outcome.REJECT: "Rejected"}

KEEP_WORDS: Final = {
    Keep.ORIGINAL: "The photo is kept as it was sent",
    Keep.THUMBNAIL: "Only a small copy of the photo is kept",
    Keep.NOTHING: "The photo is not kept",
}

SURE_FROM: Final = 0.8
FAIRLY_SURE_FROM: Final = 0.5
NOT_SURE_BELOW: Final = 0.3


def percent(score: float) -> str:
    """0.834 is "83.4%"; what would read as nothing at all is "<0.1%"."""
    if 0 < score < 0.001:
        return "<0.1%"
    return f"{score * 100:.1f}%"


def bar_width(score: float) -> str:
    """The length of a bar as an SVG percentage."""
    return f"{min(max(score, 0.0), 1.0) * 100:.2f}%"


def certainty(score: float) -> str:
    """How sure a best score of that size is, said plainly."""
    if score < NOT_SURE_BELOW:
        return "Not sure; the best guess is"
    if score < FAIRLY_SURE_FROM:
        return "A guess"
    return "Fairly sure" if score < SURE_FROM else "Sure"


def comparison(score: float, threshold: float) -> str:
    """Like "0.91 ≥ 0.85". Where rounding would contradict the sign, the score is cut instead."""
    decimals = max(2, len(f"{threshold:.6f}".rstrip("0").partition(".")[2]))
    shown = round(score, decimals)
    if (shown >= threshold) is not (score >= threshold):
        shown = math.floor(score * 10**decimals + 1e-9) / 10**decimals
    sign = "≥" if score >= threshold else "<"
    return f"{shown:.{decimals}f} {sign} {threshold:.{max(2, decimals)}f}"


def reason(record: PredictionRecord) -> str:
    """Why the record's decision is what it is; "" where no threshold decided."""
    label, threshold = record.decision.label, record.decision.threshold
    if label is None or threshold is None:
        return ""
    score = next((entry.score for entry in record.labels if entry.label == label), 0.0)
    return f"{label} {comparison(score, threshold)}"


def thresholds(policy: Policy) -> list[str]:
    """The policy in words, a phrase per threshold; empty where everything is accepted."""
    phrases = [
        f"{rule.label}: " + ", ".join(f"{verb} from {at:.2f}" for verb, at in steps)
        for rule in policy.rules
        if (steps := [(v, at) for v, at in (("review", rule.review_at), ("reject", rule.reject_at)) if at is not None])
    ]
    if policy.accept_at is not None:
        phrases.append(f"best label: review below {policy.accept_at:.2f}")
    return phrases


def question(channel: Channel) -> str:
    """What a channel is for, in a few words."""
    return QUESTIONS.get(channel.name, f"Answered by {channel.model}")


def title_case(name: str) -> str:
    """A channel's name as a heading: `night-run` is "Night run"."""
    spaced = name.replace("-", " ").replace("_", " ").strip()
    return spaced[:1].upper() + spaced[1:]


def size(byte_count: int) -> str:
    """Bytes in decimal units: 1_234_567 is "1.2 MB"."""
    if byte_count < 1000:
        return f"{byte_count} B"
    if byte_count < 1_000_000:
        return f"{byte_count / 1000:.0f} kB"
    return f"{byte_count / 1_000_000:.1f}".removesuffix(".0") + " MB"


def milliseconds(value: float) -> str:
    """12.345 is "12 ms"; below ten with one decimal."""
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms"


def instant(when: datetime) -> str:
    """UTC in ISO 8601, for the `datetime` of a <time> and for addresses."""
    moment = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def plain_time(when: datetime) -> str:
    """What is read where no script turns it into local time."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def preprocessing(spec: ImageSpec) -> list[str]:
    """What happens to a photo before the model sees it, step by step."""
    side = f"{spec.resize} px"
    fit = f"The shorter side becomes {side}" if spec.fit == "short_side" else f"Both sides become {side}"
    steps = [f"{fit} ({spec.interpolation})."]
    if spec.jpeg_quality is not None:
        steps.append(f"It is encoded as JPEG again, quality {spec.jpeg_quality}, as in the model's training.")
    if spec.crop != spec.resize or spec.fit == "short_side":
        steps.append(f"The centre of {spec.crop} × {spec.crop} px is cut out.")
    order = "red, green, blue" if spec.colour == "rgb" else "blue, green, red"
    steps.append(f"Colours in the order {order}; memory layout {spec.layout.upper()}.")
    if spec.dtype == "uint8":
        steps.append("Raw 8-bit values go in; the model maps them itself.")
    else:
        steps.append(f"Each value becomes (x − {_triple(spec.mean)}) ÷ {_triple(spec.scale)}.")
    return steps


def condensed(remarks: Sequence[Feedback]) -> list[Feedback]:
    """Without bare verdicts that the same verdict with more to say follows: one click, then its explanation."""
    return [
        remark
        for index, remark in enumerate(remarks)
        if remark.label or remark.comment or not _explained_later(remark, remarks[index + 1 :])
    ]


def top_labels(labels: Iterable[LabelScore], count: int = 10) -> list[LabelScore]:
    """The labels that the pages list first."""
    return list(labels)[:count]


def _explained_later(remark: Feedback, later: Sequence[Feedback]) -> bool:
    return any(other.verdict is remark.verdict and (other.label or other.comment) for other in later[:1])


def _triple(values: tuple[float, float, float]) -> str:
    first, *others = (f"{value:g}" for value in values)
    return first if all(other == first for other in others) else f"({', '.join([first, *others])})"
