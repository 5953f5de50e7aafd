"""The fast path: tolerant of quirks, strict on missing data, and never fooled by a header."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from shoplens.errors import ImageCorrupt, ImageTooSmall
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.testing.hostile import encoded, exif_block, photo

PLAIN = encoded(photo(320, 240), "jpeg", quality=90)
PROGRESSIVE = encoded(photo(320, 240), "jpeg", quality=90, progressive=True)
WITH_RESTARTS = encoded(photo(320, 240), "jpeg", quality=90, restart_marker_rows=2)
ENDS = b"\xff\xd9"

both = pytest.mark.parametrize("data", [PLAIN, PROGRESSIVE, WITH_RESTARTS], ids=["plain", "progressive", "restarts"])


@both
@pytest.mark.parametrize(
    "quirk",
    [
        lambda data: data + b"trailing rubbish" * 50,
        lambda data: data + data,
        lambda data: data + bytes(4_096),
        lambda data: data[:-2] + bytes(64) + ENDS,
        lambda data: data[:2] + b"\xff\xff\xff\xff" + data[2:],
        lambda data: data[:2] + b"\xff\xfe\x00\x05abc" + data[2:],
    ],
    ids=["rubbish", "twice", "padding", "bytes-before-end", "fill-bytes", "comment"],
)
def test_quirks_of_real_cameras_leave_the_picture_whole(data: bytes, quirk: object, limits: Limits) -> None:
    """Phones append previews, motion clips and padding."""
    expected = decode(data, limits=limits).pixels
    np.testing.assert_array_equal(expected, decode(quirk(data), limits=limits).pixels)  # type: ignore[operator]


@both
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("ending", [b"", ENDS], ids=["open", "closed"])
@pytest.mark.parametrize("short_side", [None, 60])
def test_half_a_picture_is_an_error(
    data: bytes, kept: float, ending: bytes, short_side: int | None, limits: Limits
) -> None:
    """An upload that broke off must not be judged by its upper half, even if something closed the file."""
    with pytest.raises(ImageCorrupt):
        decode(data[: int(len(data) * kept)] + ending, limits=limits, short_side=short_side)


@both
def test_a_missing_end_marker_is_an_error(data: bytes, limits: Limits) -> None:
    """Then nobody knows what else is missing."""
    with pytest.raises(ImageCorrupt):
        decode(data[:-2], limits=limits)


def test_a_truncated_cmyk_jpeg_is_an_error_too(limits: Limits) -> None:
    """The other path is as strict."""
    data = encoded(photo(320, 240).convert("CMYK"), "jpeg")
    with pytest.raises(ImageCorrupt):
        decode(data[: len(data) // 2], limits=limits)


def test_an_unusual_subsampling_is_read_by_the_other_path(limits: Limits) -> None:
    """Three samples to one is allowed, though the fast decoder has no name for it."""
    data = bytearray(encoded(photo(), "jpeg", subsampling="4:4:4"))
    frame = data.index(b"\xff\xc0")
    luma, blue, red = (frame + 11 + 3 * number for number in range(3))
    data[luma], data[blue], data[red] = 0x11, 0x11, 0x11
    assert (64, 96, 3) == decode(bytes(data), limits=limits).pixels.shape


def test_a_frame_without_rows_is_too_small(limits: Limits) -> None:
    """Zero rows mean "given later", which no camera does."""
    data = bytearray(PLAIN)
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = b"\x00\x00"
    with pytest.raises(ImageTooSmall, match="320 × 0"):
        decode(bytes(data), limits=limits)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(exif_block(6), exif_block(1), (64, 96)), (exif_block(1), exif_block(6), (64, 96)), (b"", exif_block(6), (64, 96)),
     (exif_block(6), exif_block(3), (64, 96)), (exif_block(3), exif_block(6), (96, 64))],
    ids=["first", "second", "second alone", "first of two", "first of two, the other way"],
)  # fmt: skip
def test_the_first_exif_block_with_an_orientation_counts(
    first: bytes, second: bytes, expected: tuple[int, int], limits: Limits
) -> None:
    """A later block is another program's leftover; one that says upright says nothing."""
    data = encoded(photo(), "jpeg")
    blocks = b"".join(
        struct.pack(">BBH", 0xFF, 0xE1, len(block) + 2) + block
        for block in (b"Exif\x00\x00" + each.removeprefix(b"Exif\x00\x00") for each in (first, second))
    )
    with_both = data[:2] + blocks + data[2:]
    assert 2 == with_both.count(b"Exif\x00\x00")
    picture = decode(with_both, limits=limits)
    assert expected == (picture.width, picture.height)


def test_any_buffer_length_of_the_header_is_refused_with_the_same_error(limits: Limits) -> None:
    """Cut anywhere in the header, the walk over the markers must end in our own error."""
    for length in range(3, PLAIN.index(b"\xff\xda") + 8):
        with pytest.raises(ImageCorrupt):
            decode(PLAIN[:length], limits=limits)
