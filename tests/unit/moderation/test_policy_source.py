"""A policy as TOML: what is read, what is refused and with which sentence, and the one form in which it is written."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.messages import speaking
from shoplens.moderation.errors import PolicyInvalid
from shoplens.moderation.policy.draft import all_typed
from shoplens.moderation.policy.entities import Band, ModerationPolicy
from shoplens.moderation.policy.source import MAX_SOURCE_BYTES, format_policy, from_fields, parse_policy, to_fields

SIGNALS = ("nsfw", "weapon", "blur")


def test_a_policy_is_read_with_all_its_rules() -> None:
    """What is written counts, and the rest has its default."""
    source = """
        # our rules
        [signals.nsfw]
        review_at = 0.1
        reject_at = 1
        [signals.blur]
        review_at = 0.75
        [memory]
        refuse_distance = 8
        accept_distance = "off"
        [strikes]
        count = 5
        days = 90
        [reports]
        hide_after = 1
        [people]
        second_opinion_share = 0.1
    """
    expected = ModerationPolicy(
        bands=(Band(signal="blur", review_at=0.75), Band(signal="nsfw", review_at=0.1, reject_at=1.0)),
        refuse_distance=8,
        accept_distance=None,
        strikes=5,
        strike_days=90,
        hide_after_reports=1,
        second_opinion_share=0.1,
    )
    assert expected == parse_policy(source, signals=SIGNALS)
    assert ModerationPolicy() == parse_policy("", signals=SIGNALS)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("[signals.nfsw]", "signals.nfsw: there is no signal 'nfsw' (did you mean 'nsfw'?). Signals: blur, nsfw"),
        ("[signals.near_refused]\nreview_at = 0.5", "signals.near_refused: this signal has no thresholds; its rules"),
        ("[signals.nsfw]\nreview_at = 0.9\nreject_at = 0.5", "signals.nsfw: the bands overlap: review_at (0.9)"),
        ("[signals.nsfw]\nreview_at = 1.5", "signals.nsfw.review_at: 1.5 does not lie between 0 and 1."),
        ("[signals.nsfw]\nreview_at = nan", "signals.nsfw.review_at: nan does not lie between 0 and 1."),
        ("[signals.nsfw]\nreview_at = '0.5'", "signals.nsfw.review_at: write a number from 0 to 1, not a text."),
        ("[signals.nsfw]\nreview_at = true", "signals.nsfw.review_at: write a number from 0 to 1, not true or false."),
        ("[signals.nsfw]\nreview_at = 1979-05-27", "signals.nsfw.review_at: write a number from 0 to 1, not a date."),
        ("[signals.nsfw]\nreview = 0.5", "signals.nsfw.review: there is no such key (did you mean 'review_at'?)."),
        ("[signals]\nnsfw = 0.5", "signals.nsfw: write a table, as in [signals.nsfw], not a number."),
        ("signals = []", "signals: write a table, as in [signals], not a list."),
        ("[signals.blur]\nreject_at = 0.9", "signals.blur.reject_at: no photo is refused for its quality alone"),
        ("[memroy]", "memroy: there is no such key (did you mean 'memory'?). Keys at the top level: signals, memory"),
        ("[memory]\nrefuse = 3", "memory.refuse: there is no such key. Keys in [memory]: refuse_distance"),
        ("[memory]\nrefuse_distance = 33", "memory.refuse_distance: 33 is out of range; write a whole number"),
        ("[memory]\nrefuse_distance = 3.5", 'a whole number from 0 to 32, or "off", not a number.'),
        ("[memory]\nrefuse_distance = 'none'", 'a whole number from 0 to 32, or "off", not a text.'),
        ("[strikes]\ncount = 0", 'strikes.count: 0 is out of range; write a whole number from 1 to 100, or "off".'),
        ("[strikes]\ndays = 'off'", "strikes.days: write a whole number from 1 to 3650, not a text."),
        ("[reports]\nhide_after = -1", "reports.hide_after: -1 is out of range"),
        ("[people]\nsecond_opinion_share = 5", "people.second_opinion_share: 5 does not lie between 0 and 1."),
        ("review_at = ", "This is not TOML: "),
        ("[signals.nsfw]\n[signals.nsfw]", "This is not TOML: "),
        ("a = " + "[" * 20_000, "nested too deeply"),
        ("a = " + "1" * 5_000, "This is not TOML: "),
        ("[signals.nsfw]\nreview_at = " + "1" * 400, "signals.nsfw.review_at: this number does not lie between"),
        ("[strikes]\ncount = 0x" + "f" * 5_000, "strikes.count: this number is out of range"),
        ("[people]\nsecond_opinion_share = nan", "nan does not lie between 0 and 1."),
        ("[signals.'\ud800']", "half a surrogate pair"),
        ("#" * (MAX_SOURCE_BYTES + 1), "The policy has 64 kB; at most 64 are read."),
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_with_the_place(source: str, sentence: str) -> None:
    """Each sentence says where and what to write instead."""
    with pytest.raises(PolicyInvalid) as refused:
        parse_policy(source, signals=SIGNALS)
    assert sentence in str(refused.value)


@st.composite
def bands(draw: st.DrawFn, name: str) -> Band:
    """A band whose steps do not overlap."""
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    return Band(
        signal=name,
        review_at=draw(st.sampled_from([low, None])),
        reject_at=None if name == "blur" else draw(st.sampled_from([high, None])),
    )


NAMES = st.sampled_from(["nsfw", "blur", 'with "quotes"', "a.dot", "Ünïcode", "back\\slash", "line\nbreak", "T-shirt"])
POLICIES = st.builds(
    ModerationPolicy,
    bands=st.dictionaries(NAMES, st.none()).flatmap(
        lambda names: st.tuples(*(bands(name) for name in sorted(names)))
    ),
    refuse_distance=st.none() | st.integers(0, 32),
    accept_distance=st.none() | st.integers(0, 32),
    strikes=st.none() | st.integers(1, 100),
    strike_days=st.integers(1, 3650),
    hide_after_reports=st.none() | st.integers(1, 1000),
    second_opinion_share=st.floats(0, 1),
)  # fmt: skip


@given(POLICIES)
def test_a_written_policy_is_read_as_the_same_one(policy: ModerationPolicy) -> None:
    """Whatever the names of its signals; and the same policy is always written the same way."""
    source = format_policy(policy)
    read = parse_policy(source, signals=[band.signal for band in policy.bands])
    assert policy == read
    assert source == format_policy(read)


@given(st.text(max_size=60))
def test_any_text_is_a_policy_or_is_refused(source: str) -> None:
    """No text ends in another error."""
    with suppress(PolicyInvalid):
        parse_policy(source, signals=SIGNALS)


def test_the_fields_of_a_german_page_have_commas_and_mean_the_same_policy() -> None:
    """A number is shown as the form takes it back."""
    policy = ModerationPolicy(bands=(Band(signal="nsfw", review_at=0.5, reject_at=None),), second_opinion_share=0.05)
    with speaking("de"):
        fields = all_typed(to_fields(policy))
    assert "0,5" == fields["signals.nsfw.review_at"]
    assert policy == parse_policy(from_fields(fields), signals=None)
