"""What the page of a model says of its preprocessing, and of a built-in model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoplens.images.picture import ImageSpec
from shoplens.messages import known, speaking
from shoplens.registry.pages import preprocessing
from tools.messages import CARDS


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


@pytest.mark.parametrize("card", sorted(CARDS.glob("*-card.json")), ids=lambda each: each.stem)
def test_what_the_card_of_a_built_in_model_says_is_german_on_a_german_page(card: Path) -> None:
    """The description and each limit."""
    said = json.loads(card.read_text("utf-8"))
    with speaking("de"):
        assert [text for text in (said["description"], *said["limits"]) if known(text) == text] == []
