"""Clean what people and feeds write: no markup, no hidden characters, one space between words, a bounded length.

Every step takes time in proportion to the length of the text, whatever the text is.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

TITLE_CHARACTERS: Final = 1_000
DESCRIPTION_CHARACTERS: Final = 20_000

_READ_PER_KEPT: Final = 8
"""How many characters are read for each that may be kept: markup can be longer than its text."""

_HIDDEN_BLOCKS: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b[^<>]*>.*?(?:</\1[^<>]*>|\Z)", re.DOTALL | re.IGNORECASE
)
"""Comments, scripts and styles with what they contain; up to the end of the text where they are not closed."""
_TAGS: Final = re.compile(r"</?[a-zA-Z][^<>]*>|<[!?][^<>]*>")
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, marks of the writing direction, characters without width, halves of surrogate pairs. Those
that join or part letters (U+200C, U+200D) stay: Persian, Indic scripts and emoji need them."""
_TOO_MANY_MARKS: Final = re.compile("([\u0300-\u036f]{3})[\u0300-\u036f]+")


def clean(text: str, most: int) -> str:
    """`text` for storage and display, at most `most` characters.

    Composed Unicode (NFC) without markup, entities, control characters and marks of the writing direction. White space
    is one blank. The result is stable: cleaning it again changes nothing but what looks like markup or an entity.
    """
    text = text[: _READ_PER_KEPT * most + _READ_PER_KEPT]
    if "<" in text:
        text = _without_markup(text)
    if "&" in text:
        text = html.unescape(text)
        if "<" in text:  # feeds often escape their markup
            text = _without_markup(text)
    text = _TOO_MANY_MARKS.sub(r"\1", visible(text))
    return unicodedata.normalize("NFC", " ".join(text.split()))[:most].rstrip()


def visible(text: str) -> str:
    """`text` without control characters, marks of the writing direction and characters without width; line breaks and
    tabs stay.
    """
    return _INVISIBLE.sub("", text)


def _without_markup(text: str) -> str:
    return _TAGS.sub(" ", _HIDDEN_BLOCKS.sub(" ", text))
