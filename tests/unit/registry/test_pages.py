"""How the page of a model describes its preprocessing."""

from __future__ import annotations

from shoplens.images.picture import ImageSpec
from shoplens.registry.pages import preprocessing


def test_preprocessing_is_described_step_by_step() -> None:
    """Every field of the spec that changes pixels has its sentence."""
    steps = preprocessing(
        ImageSpec(
            resize=256,
            crop=224,
            fit="squash",
            interpolation="bilinear",
            colour="bgr",
            mean=(104, 117, 123),
            jpeg_quality=75,
        )
    )
    assert [
        "Both sides become 256 px (bilinear).",
        "The photo is encoded as JPEG again with quality 75, as in training.",
        "Centre crop of 224 × 224 px.",
        "Channels in the order blue, green, red, layout NHWC.",
        "Each value becomes (x − (104, 117, 123)) ÷ 1.",
    ] == steps
