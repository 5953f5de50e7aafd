"""Perceptual hashes, and thumbnails without metadata."""

from __future__ import annotations

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from shoplens.images.decoder import decode
from shoplens.images.picture import Limits, Picture
from shoplens.images.thumbnails import halved, perceptual_hash, thumbnail
from shoplens.testing.hostile import encoded, exif_block, photo


def distance(first: Image.Image, second: Image.Image) -> int:
    """Return the number of unequal bits of two pictures' hashes."""
    return (hash_of(first) ^ hash_of(second)).bit_count()


def hash_of(image: Image.Image) -> int:
    """Return the perceptual hash of a picture's thumbnail, as the engine computes it."""
    pixels = np.asarray(image.convert("RGB"))
    return int(perceptual_hash(halved(pixels)), 16)


def encoded_again(image: Image.Image, quality: int) -> Image.Image:
    """Return what is left of a picture after JPEG."""
    return Image.open(io.BytesIO(encoded(image, "jpeg", quality=quality)))


@pytest.mark.parametrize("seed", range(12))
def test_a_copy_has_nearly_the_same_perceptual_hash(seed: int) -> None:
    """Encoded again, scaled, and brightened."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    image = Image.fromarray(patches).resize((640, 480), Image.Resampling.BICUBIC)
    assert distance(image, encoded_again(image, 40)) <= 8
    assert distance(image, image.resize((320, 240))) <= 8
    assert distance(image, image.resize((200, 150))) <= 8
    assert distance(image, image.point(lambda value: min(255, value + 12))) <= 8


def test_real_photos_keep_their_hash_and_differ_from_each_other(shared_data: pathlib.Path) -> None:
    """Copies within ten bits, unrelated photos beyond."""
    files = sorted((shared_data / "imagenet-samples").glob("*.JPEG"))[::5]
    photos = [Image.open(file).convert("RGB") for file in files]
    copies = [encoded_again(image.resize((image.width * 2 // 3, image.height * 2 // 3)), 60) for image in photos]
    hashes = [hash_of(image) for image in photos]
    far = [(one ^ other).bit_count() for at, one in enumerate(hashes) for other in hashes[:at]]
    near = [distance(image, copy) for image, copy in zip(photos, copies, strict=True)]
    assert max(near) <= 10
    assert min(far) > 10


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 400), (400, 1), (31, 33), (32, 32), (255, 257)])
def test_every_size_has_a_hash_of_sixteen_digits(width: int, height: int) -> None:
    """Even one pixel."""
    digits = perceptual_hash(np.asarray(photo(width, height)))
    assert 16 == len(digits)
    assert 0 <= int(digits, 16) < 2**64


def test_a_picture_of_one_colour_has_the_same_hash_in_every_size() -> None:
    """Rounding errors do not decide its bits."""
    assert 0 == distance(Image.new("RGB", (50, 50), "teal"), Image.new("RGB", (300, 301), "teal"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1_000, 500), (256, 128)), ((500, 1_000), (128, 256)), ((90, 60), (90, 60)), ((5_000, 1), (256, 1))],
)
def test_a_thumbnail_fits_and_is_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int], limits: Limits
) -> None:
    """The longer side counts; no side vanishes."""
    small = Image.open(io.BytesIO(thumbnail(decode(encoded(photo(*size), "png"), limits=limits))))
    assert ("JPEG", expected) == (small.format, small.size)


def test_a_thumbnail_looks_like_its_photo(limits: Limits) -> None:
    """Right colours, upright."""
    image = photo(640, 480)
    small = Image.open(io.BytesIO(thumbnail(decode(encoded(image, "png"), limits=limits), max_side=160)))
    difference = np.asarray(image.resize((160, 120), Image.Resampling.BOX), int) - np.asarray(small, int)
    assert np.abs(difference).mean() < 5


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff"])
def test_nothing_of_the_metadata_survives(name: str, limits: Limits) -> None:
    """Not the place, not the camera, not a comment."""
    secret = b"Camera of a shopper"
    data = encoded(photo(640, 480), name, exif=exif_block(6), comment=b"taken at home")
    assert secret in data
    small = thumbnail(decode(data, limits=limits))
    image = Image.open(io.BytesIO(small))
    assert {} == dict(image.getexif())
    assert not image.info.keys() - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert not [trace for trace in (secret, b"Exif", b"ICC_PROFILE", b"http", b"home") if trace in small]


def test_a_thumbnail_of_one_pixel_is_possible() -> None:
    """The smallest picture there is."""
    picture = Picture(pixels=np.zeros((1, 1, 3), np.uint8), format="png", width=1, height=1)
    assert (1, 1) == Image.open(io.BytesIO(thumbnail(picture))).size
