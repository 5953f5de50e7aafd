"""Identifiers that sort by time: 48 bits of milliseconds and 80 random bits, as in the ULID specification.

Source of the layout: github.com/ulid/spec.
"""

from __future__ import annotations

from typing import Final

ID_LENGTH: Final = 26
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def make_id(unix_ms: int, entropy: bytes) -> str:
    """26 characters of lower-case Crockford base 32; `entropy` is 10 random bytes. Raises ValueError otherwise."""
    if len(entropy) != 10 or not 0 <= unix_ms < 1 << 48:
        raise ValueError("an id needs a time in milliseconds of 48 bits and 10 random bytes")
    number = unix_ms << 80 | int.from_bytes(entropy)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return len(text) == ID_LENGTH and all(character in _ALPHABET for character in text)
