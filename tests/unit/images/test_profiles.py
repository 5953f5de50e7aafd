"""Colour profiles are applied, remembered and, if broken, ignored."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.pixels import find_transform
from shoplens.testing.hostile import encoded, photo


def wide_profile() -> bytes:
    """Return a profile whose red and green are swapped, so that nobody can overlook it being applied."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {
        bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    red, green = table[b"rXYZ"] + 4, table[b"gXYZ"] + 4
    profile[red : red + 4], profile[green : green + 4] = profile[green : green + 4], profile[red : red + 4]
    return bytes(profile)


def srgb_profile() -> bytes:
    """Return the profile that changes nothing."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


RED = Image.new("RGB", (32, 32), (250, 5, 5))


@pytest.fixture(autouse=True)
def _forget_profiles() -> None:
    find_transform.cache_clear()


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff"])
def test_a_profile_is_applied_on_every_path(name: str, limits: Limits) -> None:
    """With red and green swapped, red is green."""
    options = {"lossless": True} if name == "webp" else {"quality": 95} if name == "jpeg" else {}
    picture = decode(encoded(RED, name, icc_profile=wide_profile(), **options), limits=limits)
    red, green, blue = picture.pixels[16, 16].tolist()
    assert green > 230
    assert max(red, blue) < 40


def test_a_profile_in_several_segments_is_put_together(limits: Limits) -> None:
    """A JPEG segment holds 64 KB; press profiles are larger."""
    profile = wide_profile()
    padded = bytearray(profile + bytes(100_000))
    padded[0:4] = len(padded).to_bytes(4, "big")
    data = encoded(RED, "jpeg", quality=95, icc_profile=bytes(padded))
    assert 2 == data.count(b"ICC_PROFILE\x00")
    assert decode(data, limits=limits).pixels[16, 16, 1] > 230


def test_the_srgb_profile_costs_no_transform(limits: Limits) -> None:
    """Most photos carry it; it is recognised by what it does, not by its name."""
    assert find_transform(srgb_profile(), "RGB") is None
    plain, tagged = (
        decode(encoded(photo(), "jpeg", **extra), limits=limits) for extra in ({}, {"icc_profile": srgb_profile()})
    )
    np.testing.assert_array_equal(plain.pixels, tagged.pixels)


@pytest.mark.parametrize("profile", [b"rubbish" * 40, srgb_profile()[:150], bytes(200), wide_profile()[:-900]])
def test_a_broken_profile_is_ignored(profile: bytes, limits: Limits) -> None:
    """The photo is still a photo."""
    picture = decode(encoded(RED, "jpeg", quality=95, icc_profile=profile), limits=limits)
    assert np.abs(picture.pixels[16, 16].astype(int) - (250, 5, 5)).max() < 6


def test_a_profile_for_another_kind_of_colour_is_ignored(limits: Limits) -> None:
    """An RGB profile says nothing about a grey picture."""
    grey = Image.new("L", (16, 16), 77)
    picture = decode(encoded(grey, "png", icc_profile=wide_profile()), limits=limits)
    assert [77] * 3 == picture.pixels[0, 0].tolist()


def test_a_transform_is_built_once_per_profile_and_only_a_few_are_kept() -> None:
    """Shops meet few profiles; attackers send as many as they like."""
    profile = wide_profile()  # one made in the next second differs: a profile has a time
    first = find_transform(profile, "RGB")
    assert first is not None
    assert first is find_transform(profile, "RGB")
    for number in range(50):
        find_transform(b"rubbish %d" % number, "RGB")
    assert 16 == find_transform.cache_info().currsize


def test_alpha_and_profile_go_together(limits: Limits) -> None:
    """White stays white under any profile."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", icc_profile=wide_profile())
    assert decode(buffer.getvalue(), limits=limits).pixels.min() >= 250
