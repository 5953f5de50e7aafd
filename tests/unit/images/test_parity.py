"""Wherever a photo is decoded, its pixels are the same: here, in the sandbox, and by the library alone."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.testing.hostile import encoded, photo, valid_pictures

LIMITS = Limits()
LARGE = photo(1_155, 867)
# Of the pixels of `photo(1_155, 867)` and of the same at a quarter of its size.
WHOLE_DIGEST = "03f01bcabe9859604fac4ee2e82cb7f3da69aa4183dac86998a8dd1c88f930a8"
QUARTER_DIGEST = "3c5e7d338aae9b8219b9c096b1d557b01a13aa8720600ce473030ed5125c2e37"


def digest(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """The SHA-256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("png", {}),
        ("bmp", {}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("tiff", {"compression": "tiff_adobe_deflate"}),
        ("webp", {"lossless": True}),
    ],
)
def test_a_lossless_format_gives_the_recorded_pixels(
    name: str, options: dict[str, object], sandbox: SandboxedDecoder
) -> None:
    """Recorded with the decoder of the first release, which did all of this in one process."""
    data = encoded(LARGE, name, **options)
    assert WHOLE_DIGEST == digest(decode(data, limits=LIMITS, sandbox=sandbox).pixels)
    assert QUARTER_DIGEST == digest(decode(data, limits=LIMITS, short_side=200, sandbox=sandbox).pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": "4:4:4"}])
def test_a_jpeg_gives_the_pixels_of_its_library(options: dict[str, object]) -> None:
    """At full size and at an eighth."""
    data = encoded(LARGE, "jpeg", **options)
    expected = simplejpeg.decode_jpeg(data, "RGB")
    np.testing.assert_array_equal(expected, decode(data, limits=LIMITS).pixels)
    expected = simplejpeg.decode_jpeg(data, "RGB", min_height=109, min_width=145, min_factor=1)
    np.testing.assert_array_equal(expected, decode(data, limits=LIMITS, short_side=100).pixels)


@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"lossless": True}])
def test_a_webp_gives_the_pixels_of_pillow(options: dict[str, object]) -> None:
    """OpenCV reads it, in a third of the memory."""
    data = encoded(LARGE, "webp", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(expected, decode(data, limits=LIMITS).pixels)


@pytest.mark.parametrize("name", [each for each in valid_pictures() if each.split("-")[0] in ("jpeg", "png", "webp")])
@pytest.mark.parametrize("short_side", [None, 16])
def test_the_sandbox_gives_the_pixels_of_this_process(
    name: str, short_side: int | None, sandbox: SandboxedDecoder
) -> None:
    """A photo that is a little too odd for this process looks no different."""
    data = valid_pictures()[name]
    here = decode(data, limits=LIMITS, short_side=short_side).pixels
    apart = sandbox.decode(data, name=name.split("-", maxsplit=1)[0], limits=LIMITS, short_side=short_side).pixels
    np.testing.assert_array_equal(here, apart)
