"""The words by which products are found: the same on every database, since they are folded here.

A column of the table holds the folded words, with a blank between. The databases only look words up by their
beginnings, so nothing that a user writes is read as syntax.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from sqlalchemy import TextClause, text

_MOST_STORED: Final = 8_000
_MOST_ASKED: Final = 16
_LONGEST_WORD: Final = 40
_ACCENTS: Final = re.compile("[\u0300-\u036f]+")
_WORD: Final = re.compile(
    "[\u2e80-\u303f\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|"
    "(?:(?![\u2e80-\u303f\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])[^\\W_])+"
)
"""A word; or one character of a script without blanks between words."""

_MATCHES: Final = {
    "sqlite": ("catalogue_products.seq IN (SELECT rowid FROM catalogue_search WHERE catalogue_search MATCH :words)"),
    "postgresql": ("array_to_tsvector(string_to_array(catalogue_products.search, ' ')) @@ CAST(:words AS tsquery)"),
}


def folded(*texts: str) -> str:
    """The words of `texts` without case and accents, with one blank between, as far as they are searched."""
    return " ".join(_words(" ".join(each[:_MOST_STORED] for each in texts)))[:_MOST_STORED]


def matching(query: str, dialect: str) -> TextClause | None:
    """The condition for products in which every word of `query` begins a word; None for a query without words."""
    words = _words(query[:_MOST_STORED])[:_MOST_ASKED]
    if not words:
        return None
    if dialect == "postgresql":
        value = " & ".join(f"'{word}':*" for word in words)
    else:
        value = " ".join(f'"{word}"*' for word in words)
    return text(_MATCHES[dialect]).bindparams(words=value)


def _words(value: str) -> list[str]:
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", value).casefold())
    return [each[:_LONGEST_WORD] for each in _WORD.findall(unicodedata.normalize("NFC", plain))]
