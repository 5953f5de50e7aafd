"""Texts for people in their language: English as the code has it, other languages from one file each.

`messages.pot` has all texts, and `de.po` beside it what they are in German; `python -m tools.messages write` brings
both up to date. A text names its values, `gettext("%(file)s is empty.", file=name)`; `%%` stands for a percent sign.
"""

from __future__ import annotations

import gettext as standard
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

DEFAULT: Final = "en"
LANGUAGES: Final = {"en": "English", "de": "Deutsch"}
"""The languages of the console by their tags, as those who speak them call them."""
FOLDER: Final = Path(__file__).parent
SENTENCE: Final = "a finished sentence"
"""The remark on messages with values that `known` finds in finished sentences."""
NUMBER: Final = "number"
WORDS: Final = "words"
"""Ends of the names of places in such messages: a number with marks of its format, and words of ours."""
UNENDED: Final = "sentence"
"""The name of a place with a sentence without its full stop."""
_DEEPEST: Final = 3
"""As many sentences may stand in each other."""
_SIZE: Final = re.compile(r"[\d,.]+ [kMGT]?B")
_DURATION: Final = re.compile(r"(an?|\d+) (second|minute|hour|day|month|year)s?")
_DAY: Final = re.compile(r"(\d{2} [A-Z][a-z]+ \d{4})(?:,? (\d{2}:\d{2}))?")
_DATE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?: (\d{2}:\d{2}(?::\d{2})?))?")
_PLACE: Final = re.compile(r"%\((\w+)\)s")

language: Final[ContextVar[str]] = ContextVar("language", default=DEFAULT)
"""The tag of the language in which texts are made now: that of the page that is being made, else English."""


@contextmanager
def speaking(tag: str) -> Iterator[None]:
    """Make texts in that language until the block ends."""
    token = language.set(tag)
    try:
        yield
    finally:
        language.reset(token)


def marked(text: str) -> str:
    """The same text, marked as a message that is translated where it is shown: a constant by `gettext`, an f-string by
    `known`.
    """
    return text


def gettext(text: str, /, **values: object) -> str:
    """The text in the language of the page, with `values` in the places that it names."""
    return translated(text) % values


def ngettext(one: str, many: str, number: int, /, **values: object) -> str:
    """The same of a text that depends on a number, which is its value `number` as people write it."""
    return translated_plural(one, many, number) % {"number": whole_number(number), **values}


def translated(text: str) -> str:
    """The text in the language of the page, without its values."""
    return "" if not text else _translations(language.get()).gettext(text)


def translated_plural(one: str, many: str, number: int) -> str:
    """The same of a text that depends on a number."""
    return _translations(language.get()).ngettext(one, many, number)


def known(text: str) -> str:
    """A finished English sentence, such as that of an error, in the language of the page; itself where it is unknown.

    Its message is found with what stands in the places of values: sentences are raised, logged and stored in English.
    """
    return text if language.get() == DEFAULT or not text else _known(text, _DEEPEST)


def whole_number(number: int) -> str:
    """12345 is "12,345" in English and "12.345" in German."""
    if language.get() == DEFAULT:
        return f"{number:,}"
    from babel.numbers import format_decimal  # with its data 60 ms, so only where it is needed

    return format_decimal(number, locale=language.get())


def localised(number: str) -> str:
    """A number that English has written, like "1,234.5" or "83.4%", as the language of the page writes it."""
    if language.get() == DEFAULT:
        return number
    from babel.numbers import get_decimal_symbol, get_group_symbol

    marks = {",": get_group_symbol(language.get()), ".": get_decimal_symbol(language.get()), "%": "\N{NO-BREAK SPACE}%"}
    return "".join(marks.get(each, each) for each in number)


def plain_time(moment: datetime) -> str:
    """A moment of UTC: "2026-11-22 13:05 UTC" in English, "22.11.2026, 13:05 UTC" in German."""
    if language.get() == DEFAULT:
        return f"{moment:%Y-%m-%d %H:%M} UTC"
    from babel.dates import format_date, format_time

    tag = language.get()
    return f"{format_date(moment, 'medium', locale=tag)}, {format_time(moment, 'short', locale=tag)} UTC"


def natural_duration(words: str) -> str:
    """A duration that `humanize.naturaldelta` has written, like "2 hours" or "an hour", in the language of the page."""
    found = _DURATION.fullmatch(words)
    if language.get() == DEFAULT or found is None:
        return words
    from babel.units import format_unit

    number = 1 if found[1] in ("a", "an") else int(found[1])
    return format_unit(number, f"duration-{found[2]}", locale=language.get())


def long_day(day: date) -> str:
    """A day in full: "22 November 2026" in English, "22. November 2026" in German."""
    if language.get() == DEFAULT:
        return f"{day.day} {day:%B %Y}"
    from babel.dates import format_date

    return format_date(day, "long", locale=language.get())


def medium_day(day: date) -> str:
    """A day in a table: "22 Nov 2026" in English, "22.11.2026" in German."""
    if language.get() == DEFAULT:
        return f"{day.day} {day:%b %Y}"
    from babel.dates import format_date

    return format_date(day, "medium", locale=language.get())


def short_day(day: date) -> str:
    """A day below a chart: "22 Nov" in English, "22. Nov." in German."""
    if language.get() == DEFAULT:
        return f"{day.day} {day:%b}"
    from babel.dates import format_skeleton

    return format_skeleton("dMMM", day, locale=language.get())


def script_texts(tag: str) -> dict[str, str | list[str]]:
    """What the scripts of pages show, by the English text; a list has one text for each plural form."""
    texts: dict[str, str | list[str]] = {}
    for message in _catalog(tag):
        if not message.id or not any(place.endswith(".js") for place, _ in message.locations):
            continue
        if isinstance(message.id, str):
            texts[message.id] = str(message.string)
        else:
            texts[message.id[0]] = [str(each) for each in message.string or ()]
    return texts


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A message that code fills before anybody asks for its language: its names, and what stands around them."""

    message: str
    names: tuple[str, ...]
    parts: tuple[str, ...]

    def values_in(self, text: str) -> dict[str, str] | None:
        """What stands in the places of `text`, each up to the first next part; None where it is another sentence."""
        first, *between, last = self.parts
        at, end = len(first), len(text) - len(last)
        if at > end or not text.startswith(first) or not text.endswith(last):
            return None
        values = []
        for part in between:
            found = text.find(part, at, end)
            if found < 0:
                return None
            values.append(text[at:found])
            at = found + len(part)
        return dict(zip(self.names, [*values, text[at:end]], strict=True))


def _known(text: str, depth: int) -> str:
    escaped = text.replace("%", "%%")
    found = translated(escaped)
    if found != escaped:
        return found % {}
    for sentence in _sentences(language.get()):
        values = sentence.values_in(text)
        if values is not None:
            return translated(sentence.message) % {
                name: _known_value(name, value, depth - 1) for name, value in values.items()
            }
    return text


def _known_value(name: str, value: str, depth: int) -> str:
    """A value in the language of the page: a figure, a moment, words of ours, or a sentence within the sentence."""
    if figure := _figure(name, value):
        return figure
    if depth == 0 or not (name.endswith(WORDS) or " " in value):
        return value
    if name == UNENDED:
        return _known(f"{value}.", depth).removesuffix(".")
    found = _known(value, depth)
    if found == value and name.endswith(WORDS):
        return ", ".join(_known(each, depth) for each in value.split(", "))
    return found


def _figure(name: str, value: str) -> str | None:
    """A number of a format, a duration or a moment as the language writes it; None for any other value."""
    if name.endswith(NUMBER) or _SIZE.fullmatch(value):
        return localised(value)
    return natural_duration(value) if _DURATION.fullmatch(value) else _moment(name, value)


def _moment(name: str, value: str) -> str | None:
    """A day, with a time or without, as the language writes it. A date alone may be what something is called."""
    written, digits = _DAY.fullmatch(value), _DATE.fullmatch(value)
    try:
        if written:
            day, time = long_day(datetime.strptime(written[1], "%d %B %Y").replace(tzinfo=UTC).date()), written[2]
        elif digits and (digits[2] or name.endswith("_at")):
            day, time = medium_day(date.fromisoformat(digits[1])), digits[2]
        else:
            return None
    except ValueError:
        return None
    return f"{day}, {time}" if time else day


@lru_cache(maxsize=len(LANGUAGES))
def _sentences(tag: str) -> tuple[_Sentence, ...]:
    """Those with values; first those with most words of their own."""
    found = []
    for message in _catalog(tag):
        if SENTENCE in message.auto_comments and isinstance(message.id, str):
            *pieces, last = _PLACE.split(message.id)
            parts = [each.replace("%%", "%") for each in (*pieces[::2], last)]
            found.append(_Sentence(message.id, tuple(pieces[1::2]), tuple(parts)))
    return tuple(sorted(found, key=lambda each: -sum(map(len, each.parts))))


@lru_cache(maxsize=len(LANGUAGES))
def _translations(tag: str) -> standard.NullTranslations:
    if tag == DEFAULT:
        return standard.NullTranslations()
    from babel.messages.mofile import write_mo

    compiled = BytesIO()
    write_mo(compiled, _catalog(tag))
    compiled.seek(0)
    return standard.GNUTranslations(compiled)


@lru_cache(maxsize=len(LANGUAGES))
def _catalog(tag: str) -> Catalog:
    from babel.messages.pofile import read_po

    with (FOLDER / f"{tag}.po").open("rb") as file:
        return read_po(file, locale=tag)
