"""Groups of a label set: the same photo, nearly the same photo, and the same title are one sample to a split."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from shoplens.labels.groups import Groups, same_words


def leaders(*samples: tuple[str, int | None, str | None]) -> list[int]:
    """Of samples with a content, a hash and a title."""
    groups = Groups()
    for content, phash, title in samples:
        sha256 = hashlib.sha256(content.encode()).hexdigest() if content else ""
        groups.add(sha256=sha256, phash=None if phash is None else f"{phash:016x}", title=title)
    return groups.leaders()


def test_equal_content_similar_hashes_and_equal_titles_are_one_group() -> None:
    """In chains, too: the last one belongs to the first by way of two others."""
    assert [0, 1, 0, 0, 0, 5] == leaders(
        ("a", 0, None),
        ("b", 0xFFFF, None),
        ("c", 0b1111, None),
        ("c", None, "Blue dress, size M"),
        ("", None, "size m – blue DRESS"),
        ("", None, "Blue dress, size L"),
    )


def test_what_is_not_known_connects_nothing() -> None:
    """No photo, no hash, no title; and five bits are too many."""
    assert [0, 1, 2, 3] == leaders(("", None, None), ("", None, ""), ("x", 0, None), ("y", 0b11111, "!!"))


@given(st.permutations(["red", "Évasé", "dress", "38"]))
def test_the_order_of_words_does_not_matter(words: list[str]) -> None:
    """Nor do accents and case."""
    assert "38 dress evase red" == same_words(" ".join(words))
