"""Near-duplicates are found, all of them and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoplens.training.groups import NEAR_BITS, close_pairs, group_samples
from shoplens.training.samples import read_dataset
from tests.conftest import colourful, jpeg_of
from tests.unit.training.conftest import made_up


def flipped(number: int, bits: set[int]) -> int:
    """`number` with these bits turned over."""
    for bit in bits:
        number ^= 1 << bit
    return number


@st.composite
def neighbourly_hashes(draw: st.DrawFn) -> list[int]:
    """Hashes of which many lie within a few bits of each other, wherever in the 64 those bits are."""
    seeds = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    changes = st.tuples(st.sampled_from(seeds), st.sets(st.integers(0, 63), max_size=7))
    return [flipped(number, bits) for number, bits in draw(st.lists(changes, max_size=25))]


def components(count: int, pairs: set[tuple[int, int]]) -> list[int]:
    """The least index that each one is joined with, by plain repetition."""
    label = list(range(count))
    for _ in range(count):
        for one, other in pairs:
            label[one] = label[other] = min(label[one], label[other])
    return label


@given(hashes=neighbourly_hashes(), distance=st.integers(0, 6))
def test_the_same_groups_come_out_as_by_comparing_all_with_all(hashes: list[int], distance: int) -> None:
    """The bands lose no pair and invent none."""
    every = {
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if (hashes[one] ^ hashes[other]).bit_count() <= distance
    }
    found = set(close_pairs(np.array(hashes, np.uint64), distance=distance))
    assert {tuple(sorted(pair)) for pair in found} <= every
    assert components(len(hashes), every) == components(len(hashes), found)


@given(hashes=neighbourly_hashes())
def test_samples_are_joined_by_chains(hashes: list[int]) -> None:
    """A group is numbered by its first sample, so that the same data always has the same groups."""
    samples = [made_up(str(index), 0, phash=f"{number:016x}") for index, number in enumerate(hashes)]
    pairs = {
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if (hashes[one] ^ hashes[other]).bit_count() <= NEAR_BITS
    }
    assert components(len(hashes), pairs) == group_samples(samples)


def test_the_same_content_is_one_group_without_a_perceptual_hash() -> None:
    """Small pictures from archives have none."""
    samples = [made_up(name, 0, content=content) for name, content in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert [0, 1, 0] == group_samples(samples)


def test_nothing_has_no_groups() -> None:
    """An empty part is not a mistake here."""
    assert [] == group_samples([])


def test_a_photo_that_was_encoded_again_or_made_smaller_is_found(tmp_path: Path) -> None:
    """Real files: five photos, and of each two versions that differ in every byte."""
    (tmp_path / "all" / "photos").mkdir(parents=True)
    for seed in range(5):
        photo = Image.fromarray(colourful(seed))
        versions = {
            "a": jpeg_of(np.asarray(photo), quality=95),
            "b": jpeg_of(np.asarray(photo), quality=50),
            "c": _png(photo.resize((160, 120), Image.Resampling.BICUBIC)),
        }
        for name, data in versions.items():
            (tmp_path / "all" / "photos" / f"{seed}{name}").write_bytes(data)
    groups = group_samples(read_dataset(tmp_path / "all").samples)
    assert [index - index % 3 for index in range(15)] == groups


def _png(photo: Image.Image) -> bytes:
    with io.BytesIO() as file:
        photo.save(file, "PNG")
        return file.getvalue()
