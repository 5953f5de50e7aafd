"""A picture becomes the tensor that its model was trained on, wherever it comes from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from shoplens.images.picture import ImageSpec, Picture
from shoplens.images.preprocess import arrange, preprocess

SPEC = ImageSpec(resize=256, crop=224, dtype="uint8")


def picture(pixels: NDArray[np.uint8]) -> Picture:
    """A picture of these pixels."""
    return Picture(pixels=pixels, format="png", width=pixels.shape[1], height=pixels.shape[0])


def photo(height: int, width: int) -> NDArray[np.uint8]:
    """Something with edges, slopes and detail, like a photo."""
    row, column = np.mgrid[0:height, 0:width]
    wave = 90 * np.sin(row / 9) * np.cos(column / 13) + 60 * ((row // 20 + column // 31) % 2)
    planes = [np.clip(wave + 50 + shift, 0, 255) for shift in (0, 20, 40)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def reference(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize all of it with Pillow, then cut the centre out: what training pipelines do."""
    height, width = pixels.shape[:2]
    scale = 256 / min(height, width)
    size = round(width * scale), round(height * scale)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize(("height", "width"), [(433, 578), (511, 300), (256, 256), (300, 260), (100, 90), (40, 500)])
def test_the_crop_equals_that_of_resizing_the_whole_picture_first(height: int, width: int) -> None:
    """Only rounding may differ, by one step of 255."""
    pixels = photo(height, width)

    difference = np.abs(preprocess(picture(pixels), SPEC).astype(int) - reference(pixels))

    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_a_large_picture_is_close_to_the_reference_too() -> None:
    """Halving by averaging before the filter leaves what a model sees nearly unchanged."""
    pixels = photo(1200, 1700)

    difference = np.abs(preprocess(picture(pixels), SPEC).astype(int) - reference(pixels))

    assert difference.mean() < 2


def test_a_picture_that_the_decoder_has_halved_gives_the_same_tensor() -> None:
    """Scaled decoding and full decoding meet the same filters."""
    full = photo(1024, 1536)
    halved = np.asarray(Image.fromarray(full).reduce(2))

    difference = np.abs(preprocess(picture(full), SPEC).astype(int) - preprocess(picture(halved), SPEC))

    assert difference.max() <= 1


def test_the_fast_crop_shows_the_same_part_of_the_picture() -> None:
    """Without averaging the pixels differ a little, never the place."""
    pixels = photo(433, 578)
    fast = replace(SPEC, resampling="fast", interpolation="bilinear")

    difference = np.abs(preprocess(picture(pixels), fast).astype(int) - reference(pixels))

    assert difference.mean() < 8


def test_squashing_shows_the_middle_of_both_sides() -> None:
    """Both sides are scaled on their own, so a wide picture loses as much left and right as a square one."""
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, 32:480] = 255

    sample = preprocess(picture(pixels), replace(SPEC, fit="squash", interpolation="bilinear"))

    assert sample[:, 3:-3].min() == 255


def test_mean_and_scale_are_applied_per_channel_in_the_order_of_the_model() -> None:
    """BGR models have their mean in BGR."""
    pixels = np.zeros((224, 224, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    spec = ImageSpec(resize=224, crop=224, colour="bgr", mean=(1.0, 2.0, 3.0), scale=(1.0, 2.0, 7.0))

    assert [29.0, 9.0, 1.0] == preprocess(picture(pixels), spec)[100, 100].tolist()


def test_planes_come_first_where_the_model_wants_them_so() -> None:
    """The same numbers in another order, packed without gaps."""
    sample, planes = (preprocess(picture(photo(300, 300)), replace(SPEC, layout=layout)) for layout in ("nhwc", "nchw"))

    assert planes.flags.c_contiguous
    assert np.array_equal(sample.transpose(2, 0, 1), planes)


def test_the_way_through_jpeg_leaves_its_marks() -> None:
    """A model that was trained on such pixels gets them."""
    plain = preprocess(picture(photo(300, 300)), SPEC)
    lossy = preprocess(picture(photo(300, 300)), replace(SPEC, jpeg_quality=75))

    assert 0 < np.abs(plain.astype(int) - lossy).mean() < 10


def test_the_tensor_is_a_copy() -> None:
    """Who changes the tensor leaves the picture alone, also where nothing had to be resized."""
    pixels = photo(224, 224)

    sample = preprocess(picture(pixels), ImageSpec(resize=224, crop=224, dtype="uint8", resampling="fast"))

    assert not np.shares_memory(sample, pixels)


def test_arranging_the_pixels_is_the_second_half_of_encoding() -> None:
    """Training that crops for itself uses the same numbers."""
    spec = ImageSpec(resize=256, crop=224, layout="nchw", mean=(9.0, 8.0, 7.0), scale=(2.0, 3.0, 4.0))
    source = picture(photo(400, 300))

    expected = arrange(preprocess(source, replace(SPEC)), spec)

    assert np.array_equal(expected, preprocess(source, spec))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 700), width=st.integers(1, 700), resampling=st.sampled_from(["exact", "fast"]),
    fit=st.sampled_from(["short_side", "squash"]), interpolation=st.sampled_from(["bicubic", "bilinear"]),
)  # fmt: skip
def test_every_size_of_picture_gives_the_size_that_the_model_wants(
    height: int, width: int, resampling: str, fit: str, interpolation: str
) -> None:
    """Single pixels, stripes and everything else; a picture of one colour keeps it."""
    spec = ImageSpec(
        resize=72, crop=64, dtype="uint8", resampling=resampling, fit=fit, interpolation=interpolation,  # type: ignore[arg-type]
    )  # fmt: skip

    sample = preprocess(picture(np.full((height, width, 3), 77, np.uint8)), spec)

    assert (64, 64, 3) == sample.shape
    assert {77} == set(np.unique(sample).tolist())
