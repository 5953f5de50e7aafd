"""What is known of a new photo, as named scores with the version of what computed them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from shoplens.advice import meant
from shoplens.errors import Misconfigured
from shoplens.images import fingerprint
from shoplens.images.picture import ImageFacts, Measurements
from shoplens.messages import marked
from shoplens.moderation.entities import HashVerdict, Signal
from shoplens.moderation.intake.memory import Near
from shoplens.moderation.policy.entities import (
    HARMLESS,
    NEAR_ACCEPTED,
    NEAR_REFUSED,
    OWN_RULES,
    QUALITY_SIGNALS,
    STRIKES,
    near,
    of_strikes,
)
from shoplens.serving.engine import ClassifyResult, Prediction

DUPLICATE: Final = "duplicate"
"""The signal of the nearest photo that the same customer has sent before."""
QUALITY_VERSION: Final = "quality@1"
MEMORY_VERSION: Final = "fingerprint@1"

DUPLICATE_WITHIN: Final = 18
"""The greatest distance that counts: photos that have nothing to do with each other are about 27 of 64 apart."""

MOST_LABELS: Final = 20
"""So many labels of the moderation model become signals where the policy names none of them."""

_SHARPEST_BLUR, _LEAST_SHARP = 3.5, 100.0
_DARKEST, _LEAST_LIGHT = 10.0, 60.0
_SMALLEST, _LEAST_SIDE = 100, 480
_FULL_PAGE: Final = 0.25
"""The share of lines of text that a written page has at least."""

LabelRange = tuple[str, str]
DEFAULT_GROUPS: Final[Mapping[str, tuple[str | LabelRange, ...]]] = {
    "screenshot": ("website",),
    "document": ("menu", "envelope", "crossword puzzle"),
    "weapon": (
        "assault rifle", "revolver", "rifle", "bow (weapon)", "cannon", "missile", "projectile", "tank (vehicle)",
        "holster", "scabbard",
    ),
    "person": ("ballplayer", "bridegroom", "scuba diver"),
    "pet": (
        ("Chihuahua", "Mexican hairless dog"), ("tabby cat", "Egyptian cat"), "Angora rabbit", "hamster", "guinea pig",
    ),
    "not_product": (
        ("alp", "volcano"), "castle", "church", "cliff dwelling", "dam", "dock", "lighthouse", "monastery", "mosque",
        "obelisk", "palace", "pier", "steel arch bridge", "street sign", "stupa", "suspension bridge", "totem pole",
        "traffic light", "triumphal arch", "viaduct",
    ),
}  # fmt: skip
"""Groups of labels of ImageNet, whose scores are added up; two names stand for all labels from one to the other."""


def resolve_groups(channel: str, own: Mapping[str, Sequence[str]], labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups of a channel with their labels: the defaults that the model knows, replaced or joined by `own`.

    An empty group of `own` removes the default one. Raises Misconfigured for a label that the model does not have, and
    for a name that another signal has.
    """
    place = {label: at for at, label in enumerate(labels)}
    groups: dict[str, tuple[str, ...]] = {}
    for name, members in DEFAULT_GROUPS.items():
        known = [label for member in members for label in _members(member, labels, place)]
        if known:
            groups[name] = tuple(known)
    for name, wanted in own.items():
        if name in OWN_RULES | QUALITY_SIGNALS | {DUPLICATE}:
            raise Misconfigured(f"channels.{channel}.moderation.groups.{name}: another signal has this name.")
        for label in wanted:
            if label not in place:
                advice = meant(label, labels)
                raise Misconfigured(
                    f"channels.{channel}.moderation.groups.{name}: the general model has no label {label!r}{advice}."
                )
        groups[name] = tuple(dict.fromkeys(wanted))
    return {name: members for name, members in groups.items() if members}


def _members(member: str | LabelRange, labels: Sequence[str], place: Mapping[str, int]) -> Sequence[str]:
    first, last = (member, member) if isinstance(member, str) else member
    return labels[place[first] : place[last] + 1] if first in place and last in place else ()


def signal_names(labels: Sequence[str], groups: Collection[str], named: Collection[str] = ()) -> tuple[str, ...]:
    """Every signal that a policy can set a band for, in alphabetical order.

    `labels` are the moderation model's; `named` are those that the settings have thresholds for.
    """
    return tuple(sorted({*labels} - HARMLESS | {*named, *groups, *QUALITY_SIGNALS, DUPLICATE}))


def model_signals(
    result: ClassifyResult, *, groups: Mapping[str, tuple[str, ...]], named: Collection[str]
) -> list[Signal]:
    """Those of the moderation model and of the general one. `named` are the signals that the policy names."""
    prediction = result.prediction
    wanted = [each for each in prediction.labels if each.label in named]
    if not wanted:
        wanted = [each for each in prediction.labels if each.label not in HARMLESS][:MOST_LABELS]
    signals = [Signal(name=each.label, score=each.score, version=_version(prediction)) for each in wanted]
    if result.others and groups:
        signals += _group_signals(result.others[0], groups)
    return signals


def _group_signals(general: Prediction, groups: Mapping[str, tuple[str, ...]]) -> list[Signal]:
    scores = {each.label: each.score for each in general.labels}
    signals = []
    for name, labels in groups.items():
        best = max(labels, key=lambda label: scores.get(label, 0.0))
        score = min(1.0, math.fsum(scores.get(label, 0.0) for label in labels))
        signals.append(Signal(name=name, score=score, version=_version(general), detail=marked(f"mostly {best}")))
    return signals


def _version(prediction: Prediction) -> str:
    return f"{prediction.model.name}@{prediction.model.version}"


def quality_signals(image: ImageFacts, measured: Measurements) -> list[Signal]:
    """How well the photo was taken: 0 is good, 1 as bad as it gets."""
    sharpness = max(measured.sharpness, 1e-6)
    blur = math.log(_LEAST_SHARP / sharpness) / math.log(_LEAST_SHARP / _SHARPEST_BLUR)
    short_side = min(image.width, image.height)
    scores = {
        "blur": (blur, marked(f"sharpness {measured.sharpness:.0f}")),
        "dark": (
            (_LEAST_LIGHT - measured.brightness) / (_LEAST_LIGHT - _DARKEST),
            marked(f"average brightness {measured.brightness:.0f} of 255"),
        ),
        "overexposed": (measured.bright_share, marked(f"{measured.bright_share:.0%} white")),
        "small": (
            (_LEAST_SIDE - short_side) / (_LEAST_SIDE - _SMALLEST),
            marked(f"{image.width} x {image.height} pixels"),
        ),
        "text": (measured.text_share / _FULL_PAGE, marked(f"{measured.text_share:.0%} lines of text")),
        "border": (measured.border_share, marked(f"{measured.border_share:.0%} even border")),
    }
    return [
        Signal(name=name, score=min(1.0, max(0.0, score)), version=QUALITY_VERSION, detail=detail)
        for name, (score, detail) in scores.items()
    ]


def memory_signals(nearest: Mapping[HashVerdict, Near]) -> list[Signal]:
    """How near the photo is to ones that were refused, or that a person accepted."""
    names = {HashVerdict.REFUSED: NEAR_REFUSED, HashVerdict.ACCEPTED: NEAR_ACCEPTED}
    return [
        Signal(
            name=names[verdict],
            score=near(found.distance),
            version=MEMORY_VERSION,
            detail=marked(f"distance {found.distance} to the mirror image of photo {found.photo_id}")
            if found.mirrored
            else marked(f"distance {found.distance} to photo {found.photo_id}"),
        )
        for verdict, found in nearest.items()
    ]


def strike_signal(count: int, days: int) -> Signal:
    """How many photos of the customer were refused within so many days."""
    return Signal(
        name=STRIKES, score=of_strikes(count), version="strikes@1", detail=marked(f"{count} within {days} days")
    )


def duplicate_signal(print_: bytes | None, earlier: Sequence[tuple[str, bytes]]) -> Signal:
    """How near the photo, or its mirror image, is to an earlier one of the same customer.

    `print_` is its fingerprint; `earlier` are the ids and fingerprints of the others. 0: like none of them.
    """
    if print_ is None or not earlier:
        return Signal(name=DUPLICATE, score=0.0, version=MEMORY_VERSION)
    mine = fingerprint.hash_of(print_), fingerprint.hash_of(fingerprint.mirrored(print_))
    theirs = ((photo_id, fingerprint.hash_of(known)) for photo_id, known in earlier)
    distance, photo_id = min((min((own ^ each).bit_count() for own in mine), photo_id) for photo_id, each in theirs)
    if distance > DUPLICATE_WITHIN:
        return Signal(name=DUPLICATE, score=0.0, version=MEMORY_VERSION)
    detail = marked(f"distance {distance} to photo {photo_id}")
    return Signal(name=DUPLICATE, score=near(distance), version=MEMORY_VERSION, detail=detail)
