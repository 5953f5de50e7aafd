"""What a model wants to know of a text. Importing this module loads no third-party package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """The features that a model needs of a text (see `features.py`). It is stored in the bundle.

    `buckets` is the number of different tokens. `words` and `characters` are the least and the greatest length of
    n-grams of words and of characters within a word. Only the first `max_characters` of a text are read, and at most
    `max_features` tokens are kept, the first of the text.
    """

    algorithm: Literal["hashed-ngrams-1"] = "hashed-ngrams-1"
    buckets: int = 1 << 18
    words: tuple[int, int] = (1, 2)
    characters: tuple[int, int] = (2, 5)
    max_characters: int = 4_000
    max_features: int = 2_000
