"""What is left of a damaged photo is shown to people, within limits, and nothing else is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from shoplens.images.decoder import salvage
from shoplens.images.picture import Limits
from shoplens.testing.hostile import corpus, progressive_bomb
from tests.conftest import colourful, jpeg_of

LIMITS = Limits()


def size_of(small: bytes | None) -> tuple[int, int]:
    """Width and height of the JPEG that came out."""
    assert small is not None
    return Image.open(io.BytesIO(small)).size


@pytest.mark.parametrize("percent", [30, 60, 90])
def test_a_photo_that_was_cut_off_is_shown_as_far_as_it_came(percent: int) -> None:
    """Its upper part is what it was."""
    pixels = colourful(3, width=640, height=480)
    data = jpeg_of(pixels)
    small = salvage(data[: len(data) * percent // 100], limits=LIMITS)
    assert (256, 192) == size_of(small)
    shown = np.asarray(Image.open(io.BytesIO(small or b"")))
    top = np.asarray(Image.fromarray(pixels).resize((256, 192)))
    assert np.abs(shown[:20].astype(int) - top[:20]).mean() < 12


def test_a_photo_is_shown_upright() -> None:
    """As the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg_of(colourful(3, width=640, height=480), exif=exif)
    assert (192, 256) == size_of(salvage(data[: len(data) // 2], limits=LIMITS))


@pytest.mark.parametrize("limits", [Limits(max_bytes=1_000), Limits(max_pixels=1_000)])
def test_what_is_too_large_is_not_decoded(limits: Limits) -> None:
    """The header says so before any memory is taken."""
    data = jpeg_of(colourful(3, width=640, height=480))
    assert salvage(data[: len(data) // 2], limits=limits) is None


def test_an_enormous_one_is_not_decoded_whatever_the_limits_are() -> None:
    """A progressive file takes memory for all of its pixels."""
    assert salvage(progressive_bomb(), limits=Limits(max_pixels=10**9)) is None


def test_a_header_alone_shows_nothing() -> None:
    """A grey picture would tell nobody anything."""
    data = jpeg_of(colourful(3))
    assert salvage(data[: data.index(b"\xff\xda") + 20], limits=LIMITS) is None


def test_hostile_files_do_no_harm() -> None:
    """A small JPEG or nothing, for each of them."""
    for file in corpus():
        small = salvage(file.data, limits=LIMITS)
        assert small is None or max(size_of(small)) <= 256, file.name
