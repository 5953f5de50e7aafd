"""The bands of scores that charts show are computed of the thresholds of an evaluation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoplens.bundles.manifest import Threshold
from shoplens.registry.evaluation_charts import score_bands
from tests.unit.bundles.test_evaluation import PART


def test_the_bands_hold_every_photo_once_with_its_accuracy() -> None:
    """Of 100 photos 20 lie below 0.5 (10 right), 30 between (24 right), 50 from 0.9 on (all right)."""
    thresholds = (Threshold(at=0.9, share=0.5, accuracy=1.0), Threshold(at=0.5, share=0.8, accuracy=0.925))
    bands = score_bands(replace(PART, accuracy=0.84, thresholds=thresholds))
    assert [(0.0, 0.5), (0.5, 0.9), (0.9, 1.0)] == [(each.low, each.high) for each in bands]
    assert pytest.approx([0.2, 0.3, 0.5]) == [each.share for each in bands]
    assert pytest.approx([0.5, 0.8, 1.0]) == [each.accuracy for each in bands]


def test_a_band_without_photos_has_no_accuracy() -> None:
    """Rounded shares are no photos."""
    thresholds = (Threshold(at=0.5, share=1.0, accuracy=0.9), Threshold(at=0.9, share=0.0, accuracy=None))
    bands = score_bands(replace(PART, accuracy=0.9, thresholds=thresholds))
    assert [(0.0, None), (1.0, pytest.approx(0.9)), (0.0, None)] == [(each.share, each.accuracy) for each in bands]


def test_without_thresholds_there_is_one_band() -> None:
    """All photos, with the accuracy of the model."""
    (band,) = score_bands(replace(PART, accuracy=0.9, thresholds=()))
    assert pytest.approx((0.0, 1.0, 1.0, 0.9)) == (band.low, band.high, band.share, band.accuracy)
