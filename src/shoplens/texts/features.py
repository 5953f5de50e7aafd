"""The features of a text: hashed n-grams of its words and of the characters of each word, with a weight.

The same text gives the same bytes on every machine: tokens come from CRC-32, and weights from square roots, which
IEEE 754 rounds exactly. Nothing is learned here; a bundle's graph has a row of numbers for every token.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoplens.texts.spec import TextSpec

_WORD: Final = re.compile(
    r"(?:[^\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0dff\u0e00-\u109f\u1780-\u17ff\u200c\u200d])+"
    r"|[\u2600-\u27bf\U0001f300-\U0001faff]"
)
"""Letters and digits of any script with their marks, or one emoji."""
_PLAIN: Final = str.maketrans(
    {
        **dict.fromkeys((*range(0x0300, 0x0370), 0x200C, 0x200D)),
        "ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i",
    }
)  # fmt: skip
"""Letters without their accents. Marks of other scripts stay: there they are vowels."""
_PIECE: Final = 40
"""Longer words, as in scripts without blanks, are read in pieces of this many characters."""
_DESCRIPTION_WEIGHT: Final = 0.5
"""What an n-gram after the first line counts, beside one in the title."""
_CACHED_WORDS: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextFeatures:
    """`tokens` is (k,) int64, ascending and distinct; `weights` is (k,) float32, the roots of how often they occur."""

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word as it stands in a text: `text[start:end]`."""

    text: str
    start: int
    end: int


def words_of(text: str, most: int = 4_000) -> tuple[Word, ...]:
    """The words of the first `most` characters, with their places: what a person sees marked as a reason."""
    return tuple(Word(text=each[0], start=each.start(), end=each.end()) for each in _WORD.finditer(text[:most]))


def features(text: str, spec: TextSpec) -> TextFeatures:
    """The tokens of `text`, a title and, after the first line break, a description. None for a text without words.

    Words are compared in compatibility form (NFKC), without case and accents.
    """
    title, _, description = text[: spec.max_characters].partition("\n")
    title_parts, more_parts = _line_tokens(title, spec), _line_tokens(description, spec)
    if not title_parts and not more_parts:
        return TextFeatures(tokens=np.empty(0, np.int64), weights=np.empty(0, np.float32))
    hashes = np.concatenate([*title_parts, *more_parts])
    share = np.ones(len(hashes))
    share[sum(map(len, title_parts)) :] = _DESCRIPTION_WEIGHT
    tokens, first, which = np.unique(hashes % np.uint32(spec.buckets), return_index=True, return_inverse=True)
    weights = np.sqrt(np.bincount(which, share, len(tokens)))
    if len(tokens) > spec.max_features:
        kept = np.sort(np.argsort(first, kind="stable")[: spec.max_features])
        tokens, weights = tokens[kept], weights[kept]
    return TextFeatures(tokens=tokens.astype(np.int64), weights=weights.astype(np.float32))


def _line_tokens(line: str, spec: TextSpec) -> list[NDArray[np.uint32]]:
    """The hashes of the n-grams of one line: those of words, then those of the characters of each word."""
    words: list[bytes] = []
    parts: list[NDArray[np.uint32]] = []
    for word in _WORD.findall(line):
        for piece in (word[at : at + _PIECE] for at in range(0, len(word), _PIECE)):
            folded, hashes = _word_tokens(piece, spec.characters)
            words += folded
            parts.append(hashes)
    low, high = spec.words
    grams = [
        zlib.crc32(b"\x01".join(words[at : at + size]), size)
        for at in range(len(words))
        for size in range(low, min(high, len(words) - at) + 1)
    ]
    if grams:
        parts.insert(0, np.array(grams, np.uint32))
    return parts


@lru_cache(maxsize=_CACHED_WORDS)
def _word_tokens(word: str, characters: tuple[int, int]) -> tuple[tuple[bytes, ...], NDArray[np.uint32]]:
    """The folded words that `word` consists of (one, but for letters such as "½"), and the hashes of their characters.

    A blank stands before and after a word, so that its beginning and its end differ from its middle.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", word).casefold()).translate(_PLAIN)
    folded = _WORD.findall(unicodedata.normalize("NFC", plain))
    low, high = characters
    hashes = [
        zlib.crc32(padded[at : at + size].encode())
        for padded in (f" {each} " for each in folded)
        for size in range(low, high + 1)
        for at in range(len(padded) - size + 1)
    ]
    return tuple(each.encode() for each in folded), np.array(hashes, np.uint32)
