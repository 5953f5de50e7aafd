"""Which samples of a label set are the same or nearly: they must never be on both sides of a split.

Two samples belong together if their photos have equal content or perceptual hashes that differ in at most 4 of 64 bits,
or if their designations have the same words; groups are the connected components. A sample takes 24 bytes here.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from shoplens.images.near import NEAR_BITS, close_pairs
from shoplens.labels.entities import Label

_WORD: Final = re.compile(r"\w+")


def same_words(text: str) -> str:
    """A text without case, accents, punctuation and the order of its words: a title that was copied stays the same."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(each for each in plain if not unicodedata.combining(each))
    return " ".join(sorted(_WORD.findall(plain)))


class Groups:
    """Numbers the groups of samples. `watch` each sample once, in order; then `leaders` has the numbers."""

    def __init__(self) -> None:
        self._contents = array("Q")
        self._phashes = array("Q")
        self._hashed = array("Q")
        self._titles = array("Q")

    def watch(self, labels: Iterable[Label]) -> Iterator[Label]:
        """The same labels, seen."""
        for label in labels:
            self.add(sha256=label.image_sha256, phash=label.image_phash, title=label.designation)
            yield label

    def add(self, *, sha256: str, phash: str | None, title: str | None) -> None:
        """The next sample; what it does not have is empty."""
        if phash:
            self._hashed.append(len(self._contents))
            self._phashes.append(int(phash, 16))
        words = same_words(title) if title else ""
        self._contents.append(_digest(sha256))
        self._titles.append(_digest(words))

    def leaders(self, *, distance: int = NEAR_BITS) -> list[int]:
        """For each sample the number of the first one of its group."""
        parents = list(range(len(self._contents)))

        def leader(number: int) -> int:
            while parents[number] != number:
                parents[number] = number = parents[parents[number]]
            return number

        for one, other in self._pairs(distance):
            first, second = sorted((leader(one), leader(other)))
            parents[second] = first
        return [leader(number) for number in range(len(parents))]

    def _pairs(self, distance: int) -> Iterator[tuple[int, int]]:
        for values in (self._contents, self._titles):
            first: dict[int, int] = {}
            for number, value in enumerate(values):
                if value and first.setdefault(value, number) != number:
                    yield first[value], number
        hashes = np.frombuffer(self._phashes, np.uint64) if self._phashes else np.empty(0, np.uint64)
        for one, other in close_pairs(hashes, distance=distance):
            yield self._hashed[one], self._hashed[other]


def _digest(text: str) -> int:
    """64 bits of a hash; 0 for nothing."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) if text else 0
