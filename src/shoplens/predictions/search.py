"""The search in records: by the beginning of a file name, of an order or item number, or by a label."""

from __future__ import annotations


def key_of(text: str | None) -> str | None:
    """How a file name is searched for: the same in upper and lower case."""
    return None if text is None else text.casefold()
