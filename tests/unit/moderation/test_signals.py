"""What models, pixels and memory say becomes named scores between 0 and 1."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import Misconfigured
from shoplens.images.fingerprint import fingerprint
from shoplens.images.picture import ImageFacts, Measurements
from shoplens.moderation.entities import HashVerdict
from shoplens.moderation.intake.memory import Near
from shoplens.moderation.intake.signals import (
    DEFAULT_GROUPS,
    duplicate_signal,
    memory_signals,
    model_signals,
    quality_signals,
    resolve_groups,
    signal_names,
)
from shoplens.moderation.policy.entities import NEAR_REFUSED, QUALITY_SIGNALS, distance_of
from shoplens.serving.engine import ClassifyResult, LabelScore, Prediction
from tests.conftest import colourful

LABELS = ("website", "Chihuahua", "pug", "Mexican hairless dog", "sports car", "minivan")
IMAGE = ImageFacts(format="jpeg", width=4000, height=3000, byte_count=1, sha256="0" * 64, phash="0" * 16)
GOOD = Measurements(
    sharpness=500.0,
    brightness=120.0,
    contrast=50.0,
    dark_share=0.1,
    bright_share=0.0,
    text_share=0.0,
    border_share=0.0,
    fingerprint=b"",
)


def result(*moderation: tuple[str, float], general: dict[str, float] | None = None) -> ClassifyResult:
    """An engine's answer with these scores."""

    def prediction(name: str, scores: list[tuple[str, float]]) -> Prediction:
        ranked = sorted(scores, key=lambda each: -each[1])
        labels = tuple(LabelScore(label, score) for label, score in ranked)
        return Prediction(model=ModelRef(name=name, version="2"), labels=labels)

    others = () if general is None else (prediction("general", list(general.items())),)
    return ClassifyResult(
        prediction=prediction("opennsfw", list(moderation)),
        images=(IMAGE,),
        thumbnail=None,
        queue_s=0,
        pixels_s=0,
        inference_s=0,
        others=others,
    )


def test_the_default_groups_are_those_labels_that_the_model_has() -> None:
    """Two names stand for all between them, as in the list of dogs."""
    assert {"screenshot": ("website",), "pet": ("Chihuahua", "pug", "Mexican hairless dog")} == resolve_groups(
        "reviews", {}, LABELS
    )
    assert {} == resolve_groups("reviews", {}, ())


def test_every_default_label_is_one_of_imagenet() -> None:
    """A typing error would switch a label off without a word."""
    labels = files("shoplens.bundles.builtin") / "data" / "imagenet-labels.json"
    known = [each["name"] for each in orjson.loads(labels.read_bytes())]
    named = [label for group in DEFAULT_GROUPS.values() for each in group
             for label in ([each] if isinstance(each, str) else each)]  # fmt: skip
    assert [] == [label for label in named if label not in known]
    resolved = resolve_groups("reviews", {}, known)
    assert DEFAULT_GROUPS.keys() == resolved.keys()
    assert len(resolved["pet"]) > 120


def test_own_groups_replace_join_and_remove() -> None:
    """An empty one removes the default of its name."""
    own = {"vehicle": ["sports car", "minivan"], "screenshot": ["minivan"], "pet": []}
    assert {"vehicle": ("sports car", "minivan"), "screenshot": ("minivan",)} == resolve_groups("reviews", own, LABELS)


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"vehicle": ["spots car"]}, r"channels\.reviews\.moderation\.groups\.vehicle.*'spots car'.*sports car"),
        ({"blur": ["minivan"]}, "another signal has this name"),
        ({"duplicate": ["minivan"]}, "another signal has this name"),
        ({NEAR_REFUSED: ["minivan"]}, "another signal has this name"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(own: dict[str, list[str]], sentence: str) -> None:
    """With its place."""
    with pytest.raises(Misconfigured, match=sentence):
        resolve_groups("reviews", own, LABELS)


def test_the_scores_of_a_group_are_added_up() -> None:
    """The version is that of the model; a person sees which label it mostly was."""
    groups = {"pet": ("Chihuahua", "pug"), "vehicle": ("minivan",)}
    found = model_signals(
        result(("nsfw", 0.3), ("safe", 0.7), general={"pug": 0.4, "Chihuahua": 0.25, "website": 0.35}),
        groups=groups,
        named={"nsfw", "blur"},
    )
    assert [("nsfw", 0.3, "opennsfw@2"), ("pet", pytest.approx(0.65), "general@2"), ("vehicle", 0.0, "general@2")] == [
        (each.name, each.score, each.version) for each in found
    ]
    assert "mostly pug" == found[1].detail


def test_without_a_named_label_all_of_a_small_model_are_signals() -> None:
    """So that a policy can be tried on them later; but not one whose high score means that the photo is harmless."""
    found = model_signals(result(("nsfw", 0.3), ("safe", 0.6), ("drawing", 0.1)), groups={}, named=set())
    assert {"nsfw", "drawing"} == {each.name for each in found}


def test_a_good_photo_has_no_quality_signal_and_each_fault_its_own() -> None:
    """0 is good, 1 as bad as it gets."""
    assert {0.0} == {each.score for each in quality_signals(IMAGE, GOOD)}
    for name, (image, measured) in {
        "blur": (IMAGE, replace(GOOD, sharpness=2.0)),
        "dark": (IMAGE, replace(GOOD, brightness=5.0)),
        "overexposed": (IMAGE, replace(GOOD, bright_share=1.0)),
        "small": (replace(IMAGE, width=90), GOOD),
        "text": (IMAGE, replace(GOOD, text_share=0.3)),
        "border": (IMAGE, replace(GOOD, border_share=1.0)),
    }.items():
        assert {name: 1.0} == {each.name: each.score for each in quality_signals(image, measured) if each.score}


@given(measured=st.from_type(Measurements))
def test_quality_signals_stay_between_0_and_1(measured: Measurements) -> None:
    """Whatever was measured; and each that a policy may not refuse for is among them."""
    numbers = (measured.sharpness, measured.brightness, measured.bright_share, measured.text_share)
    if not all(np.isfinite(each) for each in (*numbers, measured.border_share)):
        return
    found = quality_signals(IMAGE, measured)
    assert {each.name for each in found} == QUALITY_SIGNALS
    assert all(0 <= each.score <= 1 for each in found)


def test_a_duplicate_is_found_by_its_fingerprint_also_mirrored() -> None:
    """The nearest of the customer's photos counts."""
    mine, other = (fingerprint(colourful(seed)) for seed in (1, 2))
    mirrored = fingerprint(np.ascontiguousarray(colourful(1)[:, ::-1]))
    found = duplicate_signal(mine, [("a", other), ("b", mirrored)])
    assert found.detail is not None
    assert found.detail.endswith("photo b")
    assert distance_of(found.score) <= 2
    assert 0.0 == duplicate_signal(mine, []).score


def test_a_photo_that_is_like_no_other_of_the_customer_is_no_duplicate_at_all() -> None:
    """About half of all bits differ by chance, which says nothing."""
    found = duplicate_signal(fingerprint(colourful(1)), [("a", fingerprint(colourful(2)))])
    assert (0.0, None) == (found.score, found.detail)


def test_what_the_memory_knows_becomes_signals() -> None:
    """Nothing where nothing is near."""
    near = Near(verdict=HashVerdict.REFUSED, photo_id="p", distance=3, mirrored=True)
    (found,) = memory_signals({HashVerdict.REFUSED: near})
    assert (NEAR_REFUSED, 3, "distance 3 to the mirror image of photo p") == (
        found.name,
        distance_of(found.score),
        found.detail,
    )
    assert [] == memory_signals({})


def test_the_names_are_all_that_a_policy_can_set_a_band_for() -> None:
    """Each once, in order."""
    names = signal_names(("nsfw", "safe"), {"pet"})
    assert sorted(set(names)) == list(names)
    assert {"nsfw", "pet", "blur", "duplicate"} <= set(names)
    assert "safe" not in names
    assert "safe" in signal_names(("nsfw", "safe"), {"pet"}, named=["safe"])
