"""Every format and pixel mode becomes the same upright sRGB pixels."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shoplens.errors import ImageCorrupt
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.testing.hostile import encoded, exif_block, photo

FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")
GREY = 128


def difference(expected: Image.Image | NDArray[np.uint8], picture: Picture) -> float:
    """Return the mean absolute difference of two pictures in steps of 255."""
    wanted = np.asarray(expected, np.int16)
    assert wanted.shape == picture.pixels.shape
    return float(np.abs(wanted - picture.pixels).mean())


def four_corners(width: int = 96, height: int = 64) -> Image.Image:
    """Return a picture whose quarters are red, green, blue and white, so that each turn is another picture."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("red", (0, 0, width // 2, height // 2))
    image.paste("lime", (width // 2, 0, width, height // 2))
    image.paste("blue", (0, height // 2, width // 2, height))
    return image


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_recognised_by_its_content_and_keeps_its_colours(
    name: str, limits: Limits, sandbox: SandboxedDecoder
) -> None:
    """No name and no MIME type is asked for."""
    picture = decode(encoded(four_corners(), name), limits=limits, sandbox=sandbox)
    assert (name, 96, 64) == (picture.format, picture.width, picture.height)
    assert picture.pixels.flags.c_contiguous
    assert difference(four_corners(), picture) < 4


def test_heic_is_decoded_when_its_extra_is_installed(
    heic: Callable[..., bytes], limits: Limits, sandbox: SandboxedDecoder
) -> None:
    """Phones send HEIC by default."""
    picture = decode(heic(four_corners()), limits=limits, sandbox=sandbox)
    assert ("heic", 96, 64) == (picture.format, picture.width, picture.height)
    assert difference(four_corners(), picture) < 4


def test_a_caller_without_a_sandboxed_decoder_shares_that_of_the_process(limits: Limits) -> None:
    """Scripts need not create one."""
    picture = decode(encoded(four_corners(), "avif"), limits=limits)
    assert difference(four_corners(), picture) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "avif"])
def test_all_orientations_are_undone(name: str, orientation: int, limits: Limits, sandbox: SandboxedDecoder) -> None:
    """The oracle is Pillow's own reading of the same EXIF block."""
    lying = four_corners()
    exif = Image.Exif()
    exif.load(exif_block(orientation))
    tagged = lying.copy()
    tagged.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(tagged)
    picture = decode(encoded(lying, name, exif=exif_block(orientation)), limits=limits, sandbox=sandbox)
    assert expected.size == (picture.width, picture.height)
    assert picture.pixels.flags.c_contiguous
    assert difference(expected.convert("RGB"), picture) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_turns_of_heic_are_applied_once(
    orientation: int, heic: Callable[..., bytes], limits: Limits, sandbox: SandboxedDecoder
) -> None:
    """In HEIC the container turns the picture; its EXIF block repeats it and must not turn it again."""
    tagged = four_corners()
    tagged.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(tagged)
    picture = decode(heic(four_corners(), exif=exif_block(orientation)), limits=limits, sandbox=sandbox)
    assert expected.size == (picture.width, picture.height)
    assert difference(expected.convert("RGB"), picture) < 4


def test_orientation_also_holds_on_the_slow_path_of_jpeg(limits: Limits) -> None:
    """CMYK files are read by another library and must not differ."""
    data = encoded(four_corners().convert("CMYK"), "jpeg", exif=exif_block(6))
    picture = decode(data, limits=limits)
    assert (64, 96) == (picture.width, picture.height)
    assert difference(four_corners().transpose(Image.Transpose.ROTATE_270), picture) < 5


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("short_side", "scale"), [(None, 1), (201, 1), (200, 2), (100, 4), (1, 8)])
def test_every_format_is_reduced_by_the_same_rule(
    name: str, short_side: int | None, scale: int, limits: Limits, sandbox: SandboxedDecoder
) -> None:
    """The largest power of two that leaves the short side long enough; a rest of a pixel counts as one."""
    image = photo(501, 401)
    options = {"speed": 10} if name == "avif" else {}
    picture = decode(encoded(image, name, **options), limits=limits, short_side=short_side, sandbox=sandbox)
    assert (501, 401) == (picture.width, picture.height)
    assert (-(-401 // scale), -(-501 // scale), 3) == picture.pixels.shape
    assert difference(image.reduce(scale), picture) < 10


def test_a_short_side_is_counted_after_reduction_not_before(limits: Limits) -> None:
    """With 448 pixels and 224 wanted, half the size is exactly enough."""
    picture = decode(encoded(photo(448, 600), "jpeg"), limits=limits, short_side=224)
    assert (300, 224, 3) == picture.pixels.shape


def test_large_pictures_are_assembled_from_bands_without_a_seam(limits: Limits) -> None:
    """More than one band, and a height that is no multiple of a band."""
    image = photo(1_201, 1_003)
    data = encoded(image, "bmp")
    for scale in (1, 8):
        picture = decode(data, limits=limits, short_side=1_003 // scale)
        np.testing.assert_array_equal(np.asarray(image.reduce(scale)), picture.pixels)


def test_a_grey_jpeg_becomes_rgb(limits: Limits) -> None:
    """Three equal channels."""
    grey = photo().convert("L")
    picture = decode(encoded(grey, "jpeg", quality=95), limits=limits)
    assert difference(grey.convert("RGB"), picture) < 3


def test_a_cmyk_jpeg_is_not_inverted(limits: Limits) -> None:
    """Adobe stores CMYK upside down."""
    picture = decode(encoded(four_corners().convert("CMYK"), "jpeg", quality=95), limits=limits)
    assert difference(four_corners(), picture) < 4


def test_a_cmyk_jpeg_is_reduced_like_any_other(limits: Limits) -> None:
    """The slow path obeys the same rule."""
    picture = decode(encoded(photo(501, 401).convert("CMYK"), "jpeg"), limits=limits, short_side=100)
    assert (101, 126, 3) == picture.pixels.shape
    assert (501, 401) == (picture.width, picture.height)


def test_a_cmyk_tiff_keeps_its_colours(limits: Limits) -> None:
    """TIFF stores CMYK the right way up."""
    picture = decode(encoded(four_corners().convert("CMYK"), "tiff"), limits=limits)
    assert difference(four_corners(), picture) < 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_show_white_and_never_hidden_colours(mode: str, limits: Limits) -> None:
    """A cut-out product often hides black or green under its transparency."""
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((GREY, GREY, GREY, 255), (0, 0, 16, 32))
    stored = image.convert("LA").convert("PA") if mode == "PA" else image.convert(mode)
    stored.putalpha(image.getchannel("A"))
    picture = decode(encoded(stored, "tiff" if mode == "PA" else "png"), limits=limits, short_side=16)
    assert [GREY] * 3 == picture.pixels[8, 2].tolist()
    assert [255] * 3 == picture.pixels[8, 14].tolist()


def test_half_transparent_pixels_are_blended_with_white(limits: Limits) -> None:
    """Black at half opacity is grey."""
    picture = decode(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "png"), limits=limits)
    assert [127] * 3 == picture.pixels[0, 0].tolist()


@pytest.mark.parametrize("name", ["png", "gif"])
def test_a_transparent_palette_colour_shows_white(name: str, limits: Limits) -> None:
    """Web graphics use one colour of the palette for nothing."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.paste(0, (0, 0, 4, 8))
    picture = decode(encoded(image, name, transparency=0), limits=limits)
    assert [255] * 3 == picture.pixels[0, 0].tolist()
    assert [200, 10, 10] == picture.pixels[0, 7].tolist()


def test_a_png_with_more_transparent_colours_than_colours_is_opaque(limits: Limits) -> None:
    """As in browsers. Found by mutated photos: the library's error was one of the server."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    whole = encoded(image, "png", transparency=bytes(2))
    surplus = with_chunk(whole, b"tRNS", bytes(500))
    assert [255] * 3 == decode(whole, limits=limits).pixels[0, 0].tolist()
    assert [200, 10, 10] == decode(surplus, limits=limits).pixels[0, 0].tolist()


def test_a_png_without_its_palette_is_damaged(limits: Limits) -> None:
    """Found in the same way."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    with pytest.raises(ImageCorrupt):
        decode(with_chunk(encoded(image, "png"), b"PLTE", None), limits=limits)


def with_chunk(png: bytes, name: bytes, content: bytes | None) -> bytes:
    """The PNG with another content of this chunk, or without it."""
    at = png.index(name) - 4
    after = at + 12 + int.from_bytes(png[at : at + 4])
    if content is None:
        return png[:at] + png[after:]
    checksum = zlib.crc32(name + content).to_bytes(4)
    return png[:at] + len(content).to_bytes(4) + name + content + checksum + png[after:]


def test_a_transparent_colour_of_an_rgb_png_shows_white(limits: Limits) -> None:
    """The oldest way to be transparent."""
    image = Image.new("RGB", (8, 8), (0, 255, 0))
    image.paste((9, 9, 9), (0, 0, 4, 8))
    picture = decode(encoded(image, "png", transparency=(0, 255, 0)), limits=limits)
    assert [255] * 3 == picture.pixels[0, 7].tolist()
    assert [9] * 3 == picture.pixels[0, 0].tolist()


def test_webp_with_alpha_is_blended(limits: Limits) -> None:
    """The same for the other format of the web."""
    picture = decode(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "webp", lossless=True), limits=limits)
    assert [255] * 3 == picture.pixels[0, 0].tolist()


@pytest.mark.parametrize(("name", "mode"), [("png", "I;16"), ("tiff", "I;16"), ("tiff", "I;16B")])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(name: str, mode: str, limits: Limits) -> None:
    """A clipped scan is a white page."""
    ramp = np.linspace(0, 65_535, 64).astype("<u2" if mode == "I;16" else ">u2").reshape(8, 8)
    image = Image.frombytes(mode, (8, 8), ramp.tobytes())
    picture = decode(encoded(image, name), limits=limits)
    expected = np.repeat((ramp >> 8).astype(np.uint8)[..., None], 3, -1)
    assert difference(expected, picture) <= 1


def test_sixteen_bit_rgb_is_scaled(limits: Limits) -> None:
    """Cameras and scanners write such PNG files."""
    picture = decode(encoded_rgb16(((0, 32_768, 65_535), (65_535, 0, 16_384))), limits=limits)
    assert [0, 128, 255] == picture.pixels[0, 0].tolist()
    assert [255, 0, 64] == picture.pixels[0, 1].tolist()


def encoded_rgb16(colours: tuple[tuple[int, int, int], ...]) -> bytes:
    """Return a PNG of one row with 16 bits per channel, which Pillow cannot write."""
    import struct
    import zlib

    from shoplens.testing.hostile import _png_file

    row = b"\x00" + b"".join(struct.pack(">HHH", *colour) for colour in colours)
    return _png_file(len(colours), 1, depth=16, colour=2, packed=zlib.compress(row))


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.float32, (0.0, 0.5, 1.0, -3.0), (0, 128, 255, 0)),
        (np.float32, (0.0, 127.0, 255.0, np.nan), (0, 127, 255, 0)),
        (np.float32, (0.0, 32_768.0, 65_535.0, 1.0), (0, 128, 255, 0)),
        (np.int32, (0, 100, 255, -5), (0, 100, 255, 0)),
        (np.int32, (0, 32_768, 65_535, 1), (0, 128, 255, 0)),
        (np.int32, (0, 1_000_000, 502_000, 1), (0, 255, 128, 0)),
    ],
)
def test_wide_grey_tiff_is_scaled_to_what_its_values_mean(
    dtype: type, values: tuple[float, ...], expected: tuple[int, ...], limits: Limits
) -> None:
    """Floats up to one, bytes, sixteen bits, or more."""
    image = Image.fromarray(np.array([values], dtype))
    picture = decode(encoded(image, "tiff"), limits=limits)
    assert list(expected) == picture.pixels[0, :, 0].tolist()


@pytest.mark.parametrize("name", ["png", "tiff", "bmp"])
def test_one_bit_pictures_are_black_and_white(name: str, limits: Limits) -> None:
    """Scanned text."""
    image = Image.new("1", (16, 16), 1)
    image.paste(0, (0, 0, 8, 16))
    picture = decode(encoded(image, name), limits=limits)
    assert ([0] * 3, [255] * 3) == (picture.pixels[0, 0].tolist(), picture.pixels[0, 15].tolist())


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_is_read_in_its_usual_compressions(compression: str, limits: Limits) -> None:
    """Scanners use all of them."""
    picture = decode(encoded(four_corners(), "tiff", compression=compression), limits=limits)
    assert difference(four_corners(), picture) < 4


def test_the_first_page_of_a_tiff_is_taken(limits: Limits) -> None:
    """The rest of the document is not a photo of it."""
    data = encoded(four_corners(), "tiff", save_all=True, append_images=[Image.new("RGB", (9, 9))] * 3)
    assert difference(four_corners(), decode(data, limits=limits)) == 0


@pytest.mark.parametrize("name", ["gif", "webp", "png", "avif"])
def test_of_an_animation_the_first_frame_is_taken(name: str, limits: Limits, sandbox: SandboxedDecoder) -> None:
    """What a person sees before anything moves."""
    data = encoded(four_corners(), name, save_all=True, append_images=[Image.new("RGB", (96, 64), "black")] * 2)
    assert difference(four_corners(), decode(data, limits=limits, sandbox=sandbox)) < 5


def test_the_hidden_default_picture_of_an_animated_png_is_not_taken(limits: Limits) -> None:
    """Every browser shows the animation, so it is the animation that is judged."""
    data = encoded(
        Image.new("RGB", (96, 64), "black"),
        "png",
        save_all=True,
        default_image=True,
        append_images=[four_corners()] * 2,
    )
    assert difference(four_corners(), decode(data, limits=limits)) == 0


def test_a_first_gif_frame_smaller_than_its_canvas_is_on_white(limits: Limits) -> None:
    """What no frame has painted is transparent."""
    data = bytearray(encoded(Image.new("RGB", (8, 8), (200, 10, 10)), "gif"))
    data[6:10] = (16).to_bytes(2, "little") * 2
    picture = decode(bytes(data), limits=limits)
    assert (16, 16, 3) == picture.pixels.shape
    assert ([200, 10, 10], [255] * 3) == (picture.pixels[0, 0].tolist(), picture.pixels[15, 15].tolist())


def test_a_bmp_may_be_stored_from_top_to_bottom(limits: Limits) -> None:
    """A negative height says so."""
    data = bytearray(encoded(four_corners(), "bmp"))
    data[22:26] = (-64).to_bytes(4, "little", signed=True)
    expected = four_corners().transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    assert difference(expected, decode(bytes(data), limits=limits)) == 0


def test_a_name_means_nothing(limits: Limits) -> None:
    """The bytes of a PNG are a PNG, whatever they are called; decode never gets a name."""
    buffer = io.BytesIO()
    four_corners().save(buffer, "PNG")
    assert "png" == decode(buffer.getvalue(), limits=limits).format
