"""What is measured of a picture tells blurred, dark, written and framed ones from ordinary ones."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from shoplens.images.fingerprint import LENGTH
from shoplens.images.measuring import measure
from tests.conftest import colourful

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def sharp() -> Pixels:
    """A picture with edges everywhere and no lines of text."""
    noise = np.random.default_rng(5).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (640, 480), interpolation=cv2.INTER_NEAREST), np.uint8)


def page(rows: int, *, ink: int = 20, paper: int = 245) -> Pixels:
    """A page with so many lines of letters."""
    sheet = np.full((700, 500, 3), paper, np.uint8)
    for row in range(rows):
        cv2.putText(sheet, "The parcel came late and torn", (20, 40 + 30 * row), 0, 0.9, (ink,) * 3, 2)
    return sheet


def test_blur_lowers_the_sharpness(sharp: Pixels) -> None:
    """The more the lower, at every size of the same picture."""
    measured = [measure(np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma), np.uint8)).sharpness for sigma in (1, 3, 9)]
    assert measured == sorted(measured, reverse=True)
    assert measure(sharp).sharpness > 20 * measured[1]
    enlarged = np.asarray(cv2.resize(sharp, (2560, 1920), interpolation=cv2.INTER_NEAREST), np.uint8)
    assert measure(enlarged).sharpness == pytest.approx(measure(sharp).sharpness, rel=0.2)


def test_light_is_measured_as_it_is(sharp: Pixels) -> None:
    """Black, white, and what lies between."""
    dark, bright = measure((sharp // 20).astype(np.uint8)), measure(np.full_like(sharp, 255))
    assert (1.0, 0.0) == (dark.dark_share, dark.bright_share)
    assert (0.0, 1.0, 255.0, 0.0) == (bright.dark_share, bright.bright_share, bright.brightness, bright.contrast)
    assert dark.brightness < 15


@pytest.mark.parametrize("colours", [(20, 245), (230, 25)], ids=["paper", "dark mode"])
def test_lines_of_text_are_told_from_a_picture(sharp: Pixels, colours: tuple[int, int]) -> None:
    """A written page has a quarter and more of them, ordinary pictures next to none."""
    ink, paper = colours
    assert measure(page(22, ink=ink, paper=paper)).text_share > 0.25
    assert measure(page(4, ink=ink, paper=paper)).text_share < 0.2
    assert 0.05 > max(measure(picture).text_share for picture in (sharp, colourful(3)))


def test_bars_and_frames_count_by_their_area(sharp: Pixels) -> None:
    """A quarter above and below is half of the picture."""
    barred = np.zeros((960, 640, 3), np.uint8)
    barred[240:720] = sharp
    assert measure(barred).border_share == pytest.approx(0.5, abs=0.02)
    assert 0.0 == measure(sharp).border_share
    assert 1.0 == measure(np.zeros_like(sharp)).border_share


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2), (17, 9)])
def test_pictures_of_any_shape_are_measured(shape: tuple[int, int]) -> None:
    """Without an error, within the bounds."""
    found = measure(np.full((*shape, 3), 90, np.uint8))
    assert (0.0, 1.0, LENGTH) == (found.text_share, found.border_share, len(found.fingerprint))
