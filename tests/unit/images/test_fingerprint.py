"""Fingerprints: a copy of a photo that was changed a little is near it, another photo is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shoplens.images.fingerprint import CROPS, LENGTH, crop_hashes, distance, fingerprint, hash_of, mirrored
from shoplens.images.pixels import Pixels
from tests.conftest import colourful


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """As detailed as a real one at this size."""
    return colourful(7, width=400, height=300)


def bits(one: int, other: int) -> int:
    """How many differ."""
    return (one ^ other).bit_count()


def test_a_copy_of_poor_quality_or_of_another_size_is_near(photo: Pixels) -> None:
    """Two bits of 64 at most."""
    known = fingerprint(photo)
    encoded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    poor = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    small = np.asarray(cv2.resize(photo, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), np.uint8)
    assert LENGTH == len(known)
    assert distance(known, known) == pytest.approx(0.0, abs=0.1)
    assert distance(known, fingerprint(poor)) < 2
    assert distance(known, fingerprint(small)) < 2


def test_the_fingerprint_of_the_mirrored_photo_follows_from_that_of_the_photo(photo: Pixels) -> None:
    """Without its pixels."""
    other = np.ascontiguousarray(photo[:, ::-1])
    assert distance(mirrored(fingerprint(photo)), fingerprint(other)) < 0.5
    assert fingerprint(photo) == mirrored(mirrored(fingerprint(photo)))


@pytest.mark.parametrize("crop", range(1, len(CROPS)))
def test_the_hash_and_the_distance_of_a_crop_follow_from_the_fingerprint_of_the_whole(photo: Pixels, crop: int) -> None:
    """So that a cropped copy is found after the photo itself was deleted."""
    top, bottom, left, right = CROPS[crop]
    height, width = photo.shape[:2]
    cut = photo[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    known, seen = fingerprint(photo), fingerprint(np.ascontiguousarray(cut))
    assert bits(int(crop_hashes(known)[crop]), hash_of(seen)) <= 8
    assert distance(known, seen, crop) < 2.5


def test_other_photos_are_far() -> None:
    """About half of 64, as two that have nothing in common."""
    known = fingerprint(colourful(1))
    assert 12 < min(distance(known, fingerprint(colourful(seed))) for seed in range(2, 12))


def test_a_picture_of_one_colour_has_a_fingerprint() -> None:
    """All frequencies are zero: it is like no other picture, and nothing is divided by zero."""
    plain = fingerprint(np.full((40, 60, 3), 128, np.uint8))
    assert LENGTH == len(plain)
    assert distance(plain, fingerprint(colourful(1))) == pytest.approx(32)
