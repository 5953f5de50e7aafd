"""What is refused, with which code and which sentence, before it can cost anything."""

from __future__ import annotations

import contextlib
import io
import pathlib
import resource
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shoplens.errors import (
    ImageCorrupt,
    ImageMissing,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageTooSmall,
    ImageUnsupported,
    SampleError,
)
from shoplens.images import headers
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.testing.hostile import (
    HostileFile,
    bodies,
    corpus,
    encoded,
    photo,
    png_bomb,
    progressive_bomb,
    scan_bomb,
    valid_pictures,
)

CORPUS = list(corpus())
VALID = valid_pictures()
MEGABYTE = 1_000_000


def resident_bytes() -> int:
    """Return the memory of this process that is really in use."""
    pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def outcome(data: bytes, sandbox: SandboxedDecoder, limits: Limits) -> Picture | SampleError:
    """Decode, and return the error instead of raising it; anything that is not ours goes through."""
    try:
        return decode(data, limits=limits, sandbox=sandbox)
    except SampleError as error:
        return error


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_every_file_of_the_corpus_gets_the_verdict_it_deserves(
    file: HostileFile, sandbox: SandboxedDecoder, limits: Limits
) -> None:
    """Refused with a code and a sentence, or decoded; never another exception."""
    result = outcome(file.data, sandbox, limits)
    if isinstance(result, SampleError):
        assert file.expected in ("refused", "either")
        assert result.code.startswith("image_")
        assert str(result).endswith(".")
    else:
        assert file.expected in ("decoded", "either")
        assert 3 == result.pixels.shape[2]
        assert np.uint8 == result.pixels.dtype


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (b"", ImageMissing, "file is empty"),
        (b"<!DOCTYPE html><html>", ImageUnsupported, "an HTML page"),
        (b"<svg xmlns='x'/>", ImageUnsupported, "an SVG drawing"),
        (b"%PDF-1.7", ImageUnsupported, "a PDF document"),
        (b'{"a": 1}', ImageUnsupported, "JSON text"),
        (b"\xff\x0a....", ImageUnsupported, "a JPEG XL picture"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp42isom", ImageUnsupported, "a video"),
        (png_bomb(), ImageTooManyPixels, r"12,000 × 12,000 px \(144 MP\)\. The limit is 50 MP"),
        (progressive_bomb(), ImageTooManyPixels, "16,000 × 16,000"),
        (scan_bomb(), ImageCorrupt, "header"),
        (bytes(21 * MEGABYTE), ImageTooLarge, r"21\.0 MB\. The limit is 20 MB"),
        (VALID["png"][:100], ImageCorrupt, "PNG file is damaged or incomplete"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_refusal_says_what_is_wrong(data: bytes, error: type[SampleError], sentence: str, limits: Limits) -> None:
    """In words for the person who sent it."""
    with pytest.raises(error, match=sentence):
        decode(data, limits=limits)


@pytest.mark.parametrize("name", [*VALID, "heic"])
def test_both_limits_hold_for_every_format_and_are_the_callers(
    name: str, sandbox: SandboxedDecoder, request: pytest.FixtureRequest
) -> None:
    """One pixel or one byte too much is too much."""
    data = request.getfixturevalue("heic")(photo()) if name == "heic" else VALID[name]
    exact = Limits(max_bytes=len(data), max_pixels=96 * 64)
    assert (96, 64) == (decode(data, limits=exact, sandbox=sandbox).width, 64)
    with pytest.raises(ImageTooManyPixels):
        decode(data, limits=Limits(max_pixels=96 * 64 - 1), sandbox=sandbox)
    with pytest.raises(ImageTooLarge):
        decode(data, limits=Limits(max_bytes=len(data) - 1), sandbox=sandbox)


def test_a_limit_above_pillows_own_is_obeyed_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, sandbox: SandboxedDecoder
) -> None:
    """Pillow warns and refuses by a limit of the whole process; ours counts."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    for name in ("png", "webp"):
        assert 96 == decode(VALID[name], limits=Limits()).width
    large = encoded(Image.new("1", (14_000, 14_000)), "tiff", compression="group4")
    limits = Limits(max_pixels=200 * MEGABYTE, max_whole_pixels=200 * MEGABYTE)
    with SandboxedDecoder(processes=1, memory_bytes=1_000 * MEGABYTE, cpu_s=20) as roomy:
        assert 14_000 == decode(large, limits=limits, short_side=100, sandbox=roomy).width


@pytest.mark.parametrize("name", ["png", "webp", "gif", "bmp", "tiff", "avif", "jpeg-progressive"])
def test_a_picture_that_must_be_decoded_whole_has_a_limit_of_its_own(name: str, sandbox: SandboxedDecoder) -> None:
    """It takes memory for all of its pixels, whatever size is wanted; the message says what helps."""
    with pytest.raises(ImageTooManyPixels, match="in this format"):
        decode(VALID[name], limits=Limits(max_whole_pixels=96 * 64 - 1), sandbox=sandbox)
    assert 96 == decode(VALID["jpeg"], limits=Limits(max_whole_pixels=1), sandbox=sandbox).width


def test_bombs_cost_neither_memory_nor_time(sandbox: SandboxedDecoder, limits: Limits) -> None:
    """The worst of them together stay below what one photo needs."""
    bombs = [file.data for file in CORPUS if "bomb" in file.name or "huge" in file.name]
    assert len(bombs) > 8
    outcome(VALID["png"], sandbox, limits)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    assert all(isinstance(outcome(data, sandbox, limits), SampleError) for data in bombs)
    assert time.process_time() - started < 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1_024 < 20 * MEGABYTE


def test_hundreds_of_hostile_bodies_leave_no_memory_behind(sandbox: SandboxedDecoder, limits: Limits) -> None:
    """Memory after the second half is what it was after the first."""
    for data in bodies(600, seed=1):
        outcome(data, sandbox, limits)
    before = resident_bytes()
    for data in bodies(600, seed=2):
        outcome(data, sandbox, limits)
    assert resident_bytes() - before < 5 * MEGABYTE


@pytest.mark.parametrize("name", sorted(VALID))
def test_a_cut_file_is_an_error_or_lost_nothing_that_is_seen(
    name: str, sandbox: SandboxedDecoder, limits: Limits
) -> None:
    """Never half a picture: whatever is decoded from a part equals the whole."""
    data = VALID[name]
    whole = decode(data, limits=limits, sandbox=sandbox).pixels
    step = max(1, len(data) // 40)
    for length in (*range(0, len(data), step), *range(len(data) - 12, len(data))):
        result = outcome(data[:length], sandbox, limits)
        if isinstance(result, Picture):
            np.testing.assert_array_equal(whole, result.pixels)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    name=st.sampled_from(sorted(set(VALID) - {"avif"})),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6),
    short_side=st.one_of(st.none(), st.integers(1, 64)),
)
def test_a_changed_picture_gives_a_picture_or_our_own_error(
    name: str, edits: list[tuple[float, bytes]], short_side: int | None, limits: Limits
) -> None:
    """Whatever bytes are overwritten wherever."""
    data = bytearray(VALID[name])
    for place, patch in edits:
        at = int(place * len(data))
        data[at : at + len(patch)] = patch
    with contextlib.suppress(SampleError):
        picture = decode(bytes(data), limits=limits, short_side=short_side)
        assert picture.width * picture.height <= limits.max_pixels
        assert picture.pixels.flags.c_contiguous


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes, limits: Limits) -> None:
    """No few hundred random bytes are a photo."""
    with pytest.raises(SampleError):
        decode(data, limits=limits)


def test_a_picture_without_pixels_is_too_small(limits: Limits) -> None:
    """Zero columns."""
    data = bytearray(VALID["png"])
    data[16:20] = bytes(4)
    with pytest.raises(ImageTooSmall, match="0 × 64"):
        decode(bytes(data), limits=limits)


def test_many_pages_and_tags_of_a_tiff_are_not_followed(limits: Limits) -> None:
    """A chain of pages is cut after the first, so its length costs nothing."""
    buffer = io.BytesIO()
    photo().save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    directory = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[directory : directory + 2], "little")
    link = directory + 2 + 12 * count
    data[link : link + 4] = len(data).to_bytes(4, "little")
    page = b"".join((len(data) + 6 * number + 6).to_bytes(4, "little") for number in range(1))
    chain = b"".join(b"\x00\x00" + (len(data) + 6 * number).to_bytes(4, "little") for number in range(1, 300_000))
    started = time.process_time()
    assert (64, 96, 3) == decode(bytes(data) + chain + page, limits=limits).pixels.shape
    assert time.process_time() - started < 1


def test_the_boxes_of_a_picture_are_walked_in_bounded_time_at_any_depth() -> None:
    """A few thousand here and there add up; the bound is on all of them together."""
    free = b"\x00\x00\x00\x08free"

    def box(kind: bytes, *content: bytes) -> bytes:
        return (8 + sum(map(len, content))).to_bytes(4, "big") + kind + b"".join(content)

    extent = box(b"ispe", bytes(4), (96).to_bytes(4, "big"), (64).to_bytes(4, "big"))
    sized = box(b"meta", bytes(4), box(b"iprp", box(b"ipco", extent)))
    crowded = box(b"meta", bytes(4), free * 900)
    start = box(b"ftyp", b"avif", bytes(4), b"avif")
    assert (96, 64) == headers.read_size("avif", start + crowded + sized)
    with pytest.raises(ImageCorrupt, match="header"):
        headers.read_size("avif", start + crowded * 20 + sized)
