"""Fill the morning report's template: facts in, one self-contained HTML page out, every text escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

import jinja2

from shoplens.batch.class_mix import METHOD, CategoryShare
from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.report_facts import ReportFacts

MOST_PICTURES: Final = 60
_MOST_CATEGORIES: Final = 40
_LONGEST_TEXT: Final = 160

_REASONS: Final = {
    "image_missing": "Empty file",
    "image_too_large": "Too large a file",
    "image_too_many_pixels": "Too many pixels",
    "image_too_small": "Too small a picture",
    "image_unsupported": "Not a photo",
    "image_needs_extra": "A format that this installation does not read",
    "image_corrupt": "Damaged photo",
    "image_decoder_failed": "The decoder failed",
    "image_gone": "The photo is gone",
    "internal_error": "An unexpected error",
}
"""Headings for the reasons; other codes are read as they are."""

Picture = Callable[[BatchItem], bytes | None]
"""A small JPEG of an item; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mix:
    """The categories that are shown, and how many more there are."""

    shown: Sequence[CategoryShare]
    more: int


def fill(facts: ReportFacts, picture: Picture, *, console: str, version: str) -> str:
    """The page. `console` is where the pages about returns lie, without a slash at its end.

    At most `MOST_PICTURES` pictures are taken in.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            facts=facts,
            run=facts.run,
            counts=facts.counts,
            sums=facts.accounting,
            mix=_shown(facts.mix),
            method=METHOD,
            picture=_Pictures(picture),
            console=console,
            version=version,
            states=ItemState,
        )
    )


class _Pictures:
    """Pictures as `data:` addresses, as long as there is room for them."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._left = MOST_PICTURES

    def __call__(self, item: BatchItem) -> str | None:
        if not self._left or (data := self._picture(item)) is None:
            return None
        self._left -= 1
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shoplens.batch", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        _count, _day, _duration, _instant, _moment, _percent, _rate, _reason_words, _short, _signed, _size, _width,
    )  # fmt: skip
    environment.filters.update({word.__name__.removeprefix("_"): word for word in words})
    return environment


def _shown(mix: Sequence[CategoryShare]) -> _Mix:
    """All that are marked, and of the others the most frequent."""
    marked = [each for each in mix if each.unusual]
    room = max(0, _MOST_CATEGORIES - len(marked))
    wanted = {each.label for each in [*marked[:_MOST_CATEGORIES], *[each for each in mix if not each.unusual][:room]]}
    shown = [each for each in mix if each.label in wanted]
    return _Mix(shown=shown, more=len(mix) - len(shown))


def _count(number: int, one: str, many: str | None = None) -> str:
    """1 is "1 item", 1234 is "1,234 items"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.001 else f"{share * 100:.1f}%"


def _width(share: float) -> str:
    """The length of a bar."""
    return f"{min(max(share, 0.0), 1.0) * 100:.2f}%"


def _signed(number: int) -> str:
    return f"−{-number:,}" if number < 0 else f"{number:,}"


def _size(byte_count: int) -> str:
    """Bytes in decimal units."""
    if byte_count < 1000:
        return f"{byte_count} B"
    return f"{byte_count / 1000:,.0f} kB" if byte_count < 1_000_000 else f"{byte_count / 1_000_000:.1f} MB"


def _reason_words(code: str) -> str:
    """A heading for an error's code."""
    return _REASONS.get(code) or code.replace("_", " ").capitalize()


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def _duration(seconds: float) -> str:
    """3725 is "1 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _instant(when: datetime) -> str:
    """For the `datetime` of a <time>."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(when: datetime) -> str:
    moment = when.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y}"


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _short(text: str) -> str:
    """No text of somebody else's makes the page long; signs that turn the reading direction round are left out."""
    shown = "".join(sign for sign in text if sign.isprintable())
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[: _LONGEST_TEXT - 1]}…"
