"""Numbers and values become words that do not mislead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shoplens.images.picture import ImageSpec
from shoplens.predictions.entities import Feedback, Verdict
from shoplens.predictions.policy import LabelRule, Policy
from shoplens.web import presenting


@pytest.mark.parametrize(
    ("score", "words"), [(1.0, "100.0%"), (0.834, "83.4%"), (0.001, "0.1%"), (0.0004, "<0.1%"), (0.0, "0.0%")]
)
def test_small_scores_are_not_rounded_to_nothing(score: float, words: str) -> None:
    """Only what is nothing reads as nothing."""
    assert words == presenting.percent(score)


@pytest.mark.parametrize(
    ("score", "threshold", "words"),
    [
        (0.9149, 0.85, "0.91 ≥ 0.85"),
        (0.8499, 0.85, "0.84 < 0.85"),
        (0.85, 0.85, "0.85 ≥ 0.85"),
        (0.4996, 0.5, "0.49 < 0.50"),
        (0.1249, 0.125, "0.124 < 0.125"),
        (0.29, 0.29, "0.29 ≥ 0.29"),
    ],
)
def test_the_digits_of_a_comparison_agree_with_its_sign(score: float, threshold: float, words: str) -> None:
    """Rounding would turn 0.8499 into 0.85 and the sentence into nonsense."""
    assert words == presenting.comparison(score, threshold)


@pytest.mark.parametrize(
    ("score", "words"), [(0.29, "Not sure"), (0.3, "A guess"), (0.5, "Fairly sure"), (0.8, "Sure")]
)
def test_certainty_is_said_in_words(score: float, words: str) -> None:
    """A low best score is no answer."""
    assert presenting.certainty(score).startswith(words)


def test_bars_stay_within_their_track() -> None:
    """Whatever a model without an activation gives."""
    assert ["0.00%", "50.00%", "100.00%"] == [presenting.bar_width(score) for score in (-3.0, 0.5, 17.0)]


def test_thresholds_are_phrases() -> None:
    """Nothing for a policy that accepts everything."""
    rules = (LabelRule(label="nsfw", review_at=0.2, reject_at=0.85), LabelRule(label="gore"))
    assert ["nsfw: review from 0.20, reject from 0.85", "best label: review below 0.50"] == presenting.thresholds(
        Policy(rules=rules, accept_at=0.5)
    )
    assert [] == presenting.thresholds(Policy())


@pytest.mark.parametrize(
    ("count", "words"), [(999, "999 B"), (25_400, "25 kB"), (1_234_567, "1.2 MB"), (20_000_000, "20 MB")]
)
def test_sizes_are_short(count: int, words: str) -> None:
    """In decimal units."""
    assert words == presenting.size(count)


def test_instants_are_utc_whatever_zone_they_come_in() -> None:
    """A time without a zone is UTC already."""
    moment = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=13)))
    assert ["2026-01-31T12:00:00Z"] * 3 == [
        presenting.instant(each) for each in (moment, elsewhere, moment.replace(tzinfo=None))
    ]
    assert "2026-01-31T12:00:00.250Z" == presenting.instant(moment.replace(microsecond=250_000))


@pytest.mark.parametrize(("name", "title"), [("look", "Look"), ("night-run", "Night run"), ("a_b", "A b"), ("", "")])
def test_channels_have_readable_names(name: str, title: str) -> None:
    """Without losing a character that matters."""
    assert title == presenting.title_case(name)


def test_preprocessing_is_told_step_by_step() -> None:
    """Every field of the spec that changes pixels has its sentence."""
    steps = presenting.preprocessing(
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
        "It is encoded as JPEG again, quality 75, as in the model's training.",
        "The centre of 224 × 224 px is cut out.",
        "Colours in the order blue, green, red; memory layout NHWC.",
        "Each value becomes (x − (104, 117, 123)) ÷ 1.",
    ] == steps


def said(number: int, verdict: Verdict, label: str | None = None) -> Feedback:
    """A remark on a prediction."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return Feedback(id=str(number), created_at=when, prediction_id="p", verdict=verdict, label=label)


def test_a_click_and_its_explanation_are_shown_as_one_remark() -> None:
    """But a bare verdict stays where another one, or nothing, follows."""
    click, explained = said(1, Verdict.WRONG), said(2, Verdict.WRONG, "tench")
    right, later = said(3, Verdict.RIGHT), said(4, Verdict.WRONG)
    assert [explained, right, later] == presenting.condensed([click, explained, right, later])
