"""The policy of a channel: signals in, a state and a sentence out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.moderation.entities import PhotoState, Signal
from shoplens.moderation.policy.entities import (
    NEAR_ACCEPTED,
    NEAR_REFUSED,
    STRIKES,
    Band,
    ModerationPolicy,
    distance_of,
    evaluate,
    near,
    of_strikes,
    strikes_of,
    usual_bands,
)

POLICY = ModerationPolicy(
    bands=(
        Band(signal="nsfw", review_at=0.2, reject_at=0.85),
        Band(signal="weapon", review_at=0.5),
        Band(signal="blur", review_at=0.9),
    )
)
MILDEST_FIRST = [PhotoState.PUBLISHED, PhotoState.HELD, PhotoState.REFUSED]


def signals(**scores: float) -> tuple[Signal, ...]:
    """Signals with these scores; those of the policy that are not named are 0."""
    known = {"nsfw": 0.0, "weapon": 0.0, "blur": 0.0, **scores}
    return tuple(Signal(name=name, score=score, version="test@1") for name, score in known.items())


@pytest.mark.parametrize(
    ("score", "state", "rule"),
    [
        (0.0, PhotoState.PUBLISHED, "All scores are below their thresholds; the nearest is nsfw with 0.00 below 0.2."),
        (
            0.1999,
            PhotoState.PUBLISHED,
            "All scores are below their thresholds; the nearest is nsfw with 0.1999 below 0.2.",
        ),
        (0.2, PhotoState.HELD, "The score of nsfw is 0.20; photos are held from 0.2."),
        (0.8499, PhotoState.HELD, "The score of nsfw is 0.8499; photos are held from 0.2."),
        (0.85, PhotoState.REFUSED, "The score of nsfw is 0.85; photos are refused from 0.85."),
        (1.0, PhotoState.REFUSED, "The score of nsfw is 1.00; photos are refused from 0.85."),
    ],
)
def test_a_decision_names_the_signal_its_score_and_the_threshold(score: float, state: PhotoState, rule: str) -> None:
    """A score at the threshold already counts, and is never rounded over to the other side."""
    decided = evaluate(signals(nsfw=score), POLICY)
    assert (state, rule) == (decided.state, decided.rule)


def test_refusal_wins_over_review_whatever_the_order_of_the_bands() -> None:
    """A photo that one signal refuses is not merely held because another one comes first."""
    policy = ModerationPolicy(bands=tuple(reversed(POLICY.bands)))
    assert PhotoState.REFUSED is evaluate(signals(nsfw=0.9, weapon=0.9, blur=0.95), policy).state


def test_a_signal_that_is_missing_holds_the_photo() -> None:
    """What was not computed in time is not known to be harmless."""
    decided = evaluate([each for each in signals() if each.name != "nsfw"], POLICY)
    assert (PhotoState.HELD, "nsfw") == (decided.state, decided.signal)
    assert "missing" in decided.rule


def test_a_missing_signal_does_not_save_what_another_one_refuses() -> None:
    """The photo is refused, not held, when what is known suffices."""
    partial = [each for each in signals(nsfw=0.9) if each.name != "blur"]
    assert PhotoState.REFUSED is evaluate(partial, POLICY).state


@pytest.mark.parametrize("name", [NEAR_REFUSED, NEAR_ACCEPTED, STRIKES])
def test_a_look_up_that_failed_holds_the_photo_if_the_policy_asks_for_it(name: str) -> None:
    """Nothing known and not looked up are different things."""
    assert PhotoState.PUBLISHED is evaluate(signals(), POLICY).state
    assert PhotoState.HELD is evaluate(signals(), POLICY, failed=[name]).state
    off = replace(POLICY, refuse_distance=None, accept_distance=None, strikes=None)
    assert PhotoState.PUBLISHED is evaluate(signals(), off, failed=[name]).state


def test_a_photo_near_a_refused_one_is_refused_up_to_the_distance() -> None:
    """The sentence says how near it is."""
    at, beyond = (evaluate(signals(near_refused=near(bits)), POLICY) for bits in (5, 6))
    assert (PhotoState.REFUSED, PhotoState.PUBLISHED) == (at.state, beyond.state)
    assert "It is like a photo that was refused (distance 5 of 64); photos are refused up to distance 5." == at.rule


def test_a_photo_near_an_accepted_one_is_published_though_a_signal_would_hold_it() -> None:
    """A person has decided this picture already."""
    known = evaluate(signals(nsfw=0.5, near_accepted=near(4)), POLICY)
    assert (PhotoState.PUBLISHED, NEAR_ACCEPTED) == (known.state, known.signal)
    assert PhotoState.HELD is evaluate(signals(nsfw=0.5, near_accepted=near(5)), POLICY).state


def test_a_photo_near_an_accepted_one_is_refused_all_the_same_from_the_reject_band_on() -> None:
    """What was accepted once opens no door for what looks alike and is not."""
    assert PhotoState.REFUSED is evaluate(signals(nsfw=0.9, near_accepted=near(0)), POLICY).state


@pytest.mark.parametrize(("refused", "accepted", "state"), [
    (1, 4, PhotoState.REFUSED),
    (3, 3, PhotoState.HELD),
    (4, 1, PhotoState.HELD),
])  # fmt: skip
def test_a_memory_that_contradicts_itself_is_decided_by_a_person(
    refused: int, accepted: int, state: PhotoState
) -> None:
    """Of two pictures of a series one may have been refused: what is as near to the other one is held."""
    assert state is evaluate(signals(near_refused=near(refused), near_accepted=near(accepted)), POLICY).state


def test_all_photos_of_a_customer_with_strikes_are_held() -> None:
    """Also those that look like an accepted one."""
    held = evaluate(signals(strikes=of_strikes(3), near_accepted=near(0)), POLICY)
    assert (PhotoState.HELD, "The customer has 3 refused photos within 30 days; from 3 on, all photos are held.") == (
        held.state, held.rule
    )  # fmt: skip
    assert PhotoState.PUBLISHED is evaluate(signals(strikes=of_strikes(2)), POLICY).state


@given(st.integers(0, 64), st.integers(0, 100))
def test_distances_and_strikes_survive_as_scores(bits: int, count: int) -> None:
    """Signals are stored as scores between 0 and 1."""
    assert (bits, count) == (distance_of(near(bits)), strikes_of(of_strikes(count)))
    assert 0 <= near(bits) <= 1
    assert 0 <= of_strikes(count) <= 1


SCORES = st.floats(0, 1)
POLICIES = st.builds(
    lambda bands, refuse, accept, strikes: ModerationPolicy(
        bands=tuple(
            Band(signal=name, review_at=low, reject_at=high)
            for name, (low, high) in bands.items()
            if low is None or high is None or low <= high
        ),
        refuse_distance=refuse,
        accept_distance=accept,
        strikes=strikes,
    ),
    st.dictionaries(st.sampled_from(["nsfw", "weapon", "blur"]), st.tuples(st.none() | SCORES, st.none() | SCORES)),
    st.none() | st.integers(0, 32),
    st.none() | st.integers(0, 32),
    st.none() | st.integers(1, 100),
)
PHOTOS = st.dictionaries(st.sampled_from(["nsfw", "weapon", "blur", NEAR_REFUSED, NEAR_ACCEPTED, STRIKES]), SCORES)


def severity(scores: dict[str, float], policy: ModerationPolicy) -> int:
    """0 for published, 1 for held, 2 for refused."""
    given = [Signal(name=name, score=score, version="test@1") for name, score in scores.items()]
    return MILDEST_FIRST.index(evaluate(given, policy).state)


@given(POLICIES, PHOTOS, st.sampled_from(["nsfw", "weapon", "blur", NEAR_REFUSED, STRIKES]), SCORES)
def test_raising_a_score_never_makes_the_outcome_milder(
    policy: ModerationPolicy, photo: dict[str, float], name: str, score: float
) -> None:
    """Each of these signals only speaks against a photo."""
    if name in photo:
        worse = {**photo, name: max(score, photo[name])}
        assert severity(worse, policy) >= severity(photo, policy)


@given(POLICIES, PHOTOS, SCORES)
def test_being_nearer_to_an_accepted_photo_never_makes_the_outcome_stricter(
    policy: ModerationPolicy, photo: dict[str, float], score: float
) -> None:
    """It is the only signal that speaks for a photo."""
    nearer = {**photo, NEAR_ACCEPTED: max(score, photo.get(NEAR_ACCEPTED, 0.0))}
    assert severity(nearer, policy) <= severity(photo, policy)


@given(POLICIES, PHOTOS, st.sampled_from(["nsfw", "weapon", "blur"]), SCORES)
def test_lowering_a_threshold_never_makes_the_outcome_milder(
    policy: ModerationPolicy, photo: dict[str, float], name: str, score: float
) -> None:
    """A stricter policy is stricter for every photo."""
    stricter = tuple(
        replace(
            band,
            review_at=min(score, 1.0 if band.review_at is None else band.review_at),
            reject_at=None if band.reject_at is None else min(score, band.reject_at),
        )
        if band.signal == name
        else band
        for band in policy.bands
    )
    assert severity(photo, replace(policy, bands=stricter)) >= severity(photo, policy)


@given(POLICIES, PHOTOS)
def test_nothing_is_published_without_every_signal_that_has_a_band(
    policy: ModerationPolicy, photo: dict[str, float]
) -> None:
    """Whatever else is known of the photo."""
    if any(band.signal not in photo for band in policy.bands):
        assert severity(photo, policy) >= 1


@given(POLICIES, POLICIES)
def test_policies_have_the_same_version_if_their_rules_are_the_same(
    one: ModerationPolicy, other: ModerationPolicy
) -> None:
    """The order of the bands is no rule."""
    turned = replace(one, bands=tuple(reversed(one.bands)))
    assert one.version == turned.version
    same = (sorted(map(str, one.bands)), one.refuse_distance, one.accept_distance, one.strikes) == (
        sorted(map(str, other.bands)), other.refuse_distance, other.accept_distance, other.strikes
    )  # fmt: skip
    assert same is (one.version == other.version)


def test_the_default_has_the_thresholds_of_the_settings_and_the_usual_ones_for_the_rest() -> None:
    """The settings win; a signal that the channel does not have gets no band, which would hold every photo."""
    mine = Band(signal="blur", review_at=0.7)
    bands = usual_bands([mine], ["nsfw", "blur", "weapon"])
    assert {"blur": 0.7, "weapon": 0.5} == {band.signal: band.review_at for band in bands}
