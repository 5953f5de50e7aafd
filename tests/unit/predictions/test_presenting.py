"""Confidence, thresholds and reasons in words that do not mislead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shoplens.predictions import presenting
from shoplens.predictions.entities import Feedback, FeedbackValue
from shoplens.predictions.policy import LabelRule, Policy


@pytest.mark.parametrize(
    ("score", "threshold", "words"),
    [
        (0.9149, 0.85, "91.5%"),
        (0.84999, 0.85, "84.9%"),
        (0.85, 0.85, "85.0%"),
        (0.4996, 0.5, "49.9%"),
        (0.1249, 0.125, "12.4%"),
        (0.29, 0.29, "29.0%"),
        (1.0, 0.85, "100.0%"),
        (0.12344, 0.1234, "12.34%"),
    ],
)
def test_rounding_never_contradicts_the_comparison(score: float, threshold: float, words: str) -> None:
    """0.84999 rounded to 85.0% would not explain why it is below a threshold of 85%."""
    assert words == presenting.compared_percent(score, threshold)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.29, "Low confidence. Best guess:"),
        (0.3, "Low confidence"),
        (0.5, "Medium confidence"),
        (0.8, "High confidence"),
    ],
)
def test_confidence_has_three_levels_and_a_guess(score: float, words: str) -> None:
    """A low best score is marked as a guess."""
    assert words == presenting.confidence(score)


def test_thresholds_are_phrases() -> None:
    """A policy that accepts everything has none."""
    rules = (LabelRule(label="nsfw", review_at=0.2, reject_at=0.85), LabelRule(label="gore"))
    assert ["nsfw: review ≥ 20%, reject ≥ 85%", "review < 50%"] == presenting.thresholds(
        Policy(rules=rules, accept_at=0.5)
    )
    assert [] == presenting.thresholds(Policy())


@pytest.mark.parametrize(("name", "title"), [("look", "Look"), ("night-run", "Night run"), ("a_b", "A b"), ("", "")])
def test_a_channel_name_becomes_a_heading(name: str, title: str) -> None:
    """For channels that are no longer in the settings."""
    assert title == presenting.channel_title(name)


def said(number: int, verdict: FeedbackValue, label: str | None = None) -> Feedback:
    """Feedback on one prediction, given `number` seconds after the others began."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return Feedback(id=str(number), created_at=when, prediction_id="p", verdict=verdict, label=label)


def test_a_click_and_its_explanation_are_shown_once() -> None:
    """A bare verdict stays where a different one, or nothing, follows."""
    click, explained = said(1, FeedbackValue.WRONG), said(2, FeedbackValue.WRONG, "tench")
    right, later = said(3, FeedbackValue.RIGHT), said(4, FeedbackValue.WRONG)
    assert [explained, right, later] == presenting.condensed([click, explained, right, later])
