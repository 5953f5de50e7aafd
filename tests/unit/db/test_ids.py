"""Identifiers that sort by time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.db.tables import ID_LENGTH, is_id, make_id, new_id

MOMENTS = st.integers(0, (1 << 48) - 1)
ENTROPY = st.binary(min_size=10, max_size=10)


@given(MOMENTS, ENTROPY, MOMENTS, ENTROPY)
def test_ids_sort_by_time_whatever_their_random_part(one: int, salt: bytes, other: int, pepper: bytes) -> None:
    """That is what paging by id rests on."""
    if one < other:
        assert make_id(one, salt) < make_id(other, pepper)


@given(MOMENTS, ENTROPY)
def test_an_id_is_recognised(moment: int, entropy: bytes) -> None:
    """Every id has the form of an id."""
    assert is_id(make_id(moment, entropy))


@pytest.mark.parametrize("text", ["", "0" * 25, "0" * 27, "u" * 26, "../" + "0" * 23, "0" * 25 + "O"])
def test_other_texts_are_not_ids(text: str) -> None:
    """Neither other lengths nor other letters."""
    assert not is_id(text)


def test_the_published_example_of_the_layout_comes_out() -> None:
    """The time part of the specification's own example: 1469918176385 ms is 01ARYZ6S41."""
    assert "01aryz6s41" == make_id(1469918176385, bytes(10))[:10]
    assert ID_LENGTH == len(make_id(0, bytes(10)))


@pytest.mark.parametrize(("moment", "entropy"), [(-1, bytes(10)), (1 << 48, bytes(10)), (0, bytes(9))])
def test_impossible_parts_are_refused(moment: int, entropy: bytes) -> None:
    """An id that could not be sorted is never made."""
    with pytest.raises(ValueError, match="48 bits"):
        make_id(moment, entropy)


def test_new_ids_of_one_millisecond_sort_as_they_were_made() -> None:
    """Two entries of a history, or two events, may be that close; the next id still cannot be guessed."""
    now = datetime(2026, 5, 4, tzinfo=UTC)
    ids = [new_id(now) for _ in range(1_000)]
    assert sorted(set(ids)) == ids
    assert 1_000 == len({each[-8:] for each in ids})
