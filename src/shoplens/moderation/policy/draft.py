"""A policy while somebody edits it in a form, and the drawings beside its fields."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from shoplens.errors import RequestInvalid
from shoplens.messages import gettext, localised, marked
from shoplens.moderation.entities import PhotoState
from shoplens.moderation.policy.dry_run import BINS, MAX_PHOTOS, DryRun, Histogram
from shoplens.moderation.policy.entities import QUALITY_SIGNALS, ModerationPolicy
from shoplens.moderation.policy.service import AppliedPolicy
from shoplens.moderation.policy.source import TABLES, format_policy, from_fields, place_of, to_fields
from shoplens.moderation.service import Moderation

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_USUAL_PHOTOS: Final = 1_000
_HEIGHT: Final = 28.0
_CHANGES: Final = {
    (PhotoState.HELD, PhotoState.PUBLISHED): marked("Held now, would be published"),
    (PhotoState.REFUSED, PhotoState.PUBLISHED): marked("Refused now, would be published"),
    (PhotoState.PUBLISHED, PhotoState.HELD): marked("Published now, would be held"),
    (PhotoState.REFUSED, PhotoState.HELD): marked("Refused now, would be held"),
    (PhotoState.PUBLISHED, PhotoState.REFUSED): marked("Published now, would be refused"),
    (PhotoState.HELD, PhotoState.REFUSED): marked("Held now, would be refused"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is in the form. `as_toml`: the text counts, and not the fields."""

    channel: str
    based_on: int
    fields: Mapping[str, str]
    source: str
    as_toml: bool = False
    note: str = ""
    photos: int = _USUAL_PHOTOS

    def completed(self, policy: ModerationPolicy) -> Draft:
        """The same, with the part of the form that does not count filled from `policy`, which the other part means."""
        if self.as_toml:
            return replace(self, fields=to_fields(policy))
        return replace(self, source=format_policy(policy))


def draft_in_use(applied: AppliedPolicy) -> Draft:
    """The form as it is first shown."""
    return Draft(
        channel=applied.channel, based_on=applied.version, fields=to_fields(applied.policy), source=applied.source
    )


def read_draft(form: Mapping[str, object], moderation: Moderation) -> Draft:
    """What was sent. Raises RequestInvalid."""
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    based_on, photos = texts.get("based_on", ""), texts.get("photos", "")
    if not all(each.isascii() and each.isdecimal() and len(each) < 10 for each in (based_on, photos)):
        raise RequestInvalid("The form is not complete. Open the page again.")
    fields = {name: text for name, text in texts.items() if name.partition(".")[0] in TABLES}
    as_toml = texts.get("as") == "toml"
    return Draft(
        channel=moderation.channel(texts.get("channel")).name,
        based_on=int(based_on),
        fields=fields,
        source=texts.get("source", "") if as_toml else from_fields(fields),
        as_toml=as_toml,
        note=texts.get("note", ""),
        photos=max(1, min(MAX_PHOTOS, int(photos))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRow:
    """One signal of the page: its two thresholds as they are typed, and how the scores are spread.

    `bars` are x, y and height of each part that has photos, in a drawing of 100 × 28.
    """

    name: str
    review_at: str
    reject_at: str
    may_reject: bool
    bars: tuple[tuple[float, float, float], ...]
    photos: int
    missing: int

    @property
    def review_place(self) -> str:
        """The name of the field."""
        return place_of(self.name, "review_at")

    @property
    def reject_place(self) -> str:
        """The name of the field."""
        return place_of(self.name, "reject_at")


def typed(text: str) -> str:
    """What is in a field: a number as the language of the page writes it, anything else as it is."""
    return localised(text) if _NUMBER.fullmatch(text) else text


def all_typed(fields: Mapping[str, str]) -> dict[str, str]:
    """The same of a whole form."""
    return {place: typed(text) for place, text in fields.items()}


def signal_rows(signals: Sequence[str], policy: ModerationPolicy, draft: Draft, result: DryRun) -> list[SignalRow]:
    """One for each signal of the channel or of its policy; those with thresholds first, quality after the rest."""
    spread = {each.signal: each for each in result.histograms}
    used = {band.signal for band in policy.bands}
    rows = []
    for name in sorted({*signals, *used}, key=lambda each: (each not in used, each in QUALITY_SIGNALS, each)):
        histogram = spread.get(name, Histogram(signal=name, counts=(0,) * BINS, missing=result.examined))
        row = SignalRow(
            name=name,
            review_at=draft.fields.get(place_of(name, "review_at"), ""),
            reject_at=draft.fields.get(place_of(name, "reject_at"), ""),
            may_reject=name not in QUALITY_SIGNALS,
            bars=_bars(histogram.counts),
            photos=sum(histogram.counts),
            missing=histogram.missing,
        )
        rows.append(row)
    return rows


def _bars(counts: tuple[int, ...]) -> tuple[tuple[float, float, float], ...]:
    """Heights by the square root, so that few photos beside many can still be seen."""
    most = max(counts, default=0)
    heights = [_HEIGHT * math.sqrt(count / most) if most else 0.0 for count in counts]
    return tuple(
        (round(at * 100 / len(counts), 2), round(_HEIGHT - height, 2), round(height, 2))
        for at, height in enumerate(heights)
        if height
    )


def state_change(before: PhotoState, after: PhotoState) -> str:
    """What would happen to photos, as a heading."""
    return gettext(_CHANGES[before, after])
