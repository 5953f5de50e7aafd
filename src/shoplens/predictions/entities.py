"""A channel, the record of one prediction, and what people say of it. Values only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.accounts.entities import Permission
from shoplens.advice import no_channel
from shoplens.bundles.manifest import ModelRef
from shoplens.images.picture import ImageFacts
from shoplens.predictions.policy import Decision, Outcome, Policy
from shoplens.serving.engine import LabelScore, Prediction
from shoplens.texts.cleaning import visible

FILE_NAME_CHARACTERS: Final = 255


class Keep(StrEnum):
    """What is stored of each photo."""

    ORIGINAL = "original"
    THUMBNAIL = "thumbnail"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Which model answers, which policy decides and what is stored. `title`, `question` and `label_names`, what pages
    call a label, are for people.

    `photos_need` is the permission to see its photos: those of shoppers are for people who moderate them.
    """

    name: str
    model: str
    title: str
    question: str
    policy: Policy = field(default_factory=Policy)
    keep: Keep = Keep.THUMBNAIL
    photos_need: Permission = Permission.RECORDS_READ
    label_names: Mapping[str, str] = field(default_factory=dict)


def channel_of(channels: Mapping[str, Channel], name: str | None, *, default: str) -> Channel:
    """The channel of this name, or the default one. Raises ChannelNotFound."""
    wanted = default if name is None else name
    if wanted not in channels:
        raise no_channel(wanted, channels)
    return channels[wanted]


def photos_need(channels: Mapping[str, Channel], name: str) -> Permission:
    """The permission to see photos of a channel. One that is no longer set up may have had shoppers' photos."""
    found = channels.get(name)
    return Permission.MODERATION_REVIEW if found is None else found.photos_need


def label_names(channels: Mapping[str, Channel]) -> dict[str, set[str]]:
    """What people call each label, in any channel."""
    names: dict[str, set[str]] = {}
    for channel in channels.values():
        for label, name in channel.label_names.items():
            names.setdefault(label, set()).add(name)
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPrediction(Prediction):
    """A prediction with what the policy of a channel makes of it."""

    channel: str
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the stages of one request took, in milliseconds."""

    queue_ms: float
    pixels_ms: float
    inference_ms: float
    total_ms: float


NO_PHOTO: Final = ImageFacts(format="", width=0, height=0, byte_count=0, sha256="", phash="")
"""The facts in the record of a text without a photo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """One classified sample. `id` sorts by time; `labels` are sorted by falling score; `image_key` is the key of the
    stored photo, None when nothing is stored. `text` is what was classified with the photo or without one. `file_name`
    is how the photo was called where it came from (`clean_file_name`). `photo_deleted_at` is when retention deleted the
    photo.
    """

    id: str
    created_at: datetime
    channel: str
    model: ModelRef
    labels: tuple[LabelScore, ...]
    decision: Decision
    image: ImageFacts
    keep: Keep
    image_key: str | None
    timing: Timing
    text: str | None = None
    file_name: str | None = None
    photo_deleted_at: datetime | None = None

    @property
    def has_photo(self) -> bool:
        """Whether the sample had one."""
        return self.image != NO_PHOTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """A record or an item, as far as retention looks at it: when it was made, and when its days began.

    `waits`: a person has to decide on it. `owned`: another feature has it.
    """

    id: str
    made_at: datetime
    since: datetime
    waits: bool
    owned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records are wanted; None means any. `label` is the top label; times are UTC, `until` is exclusive.

    `text` is what a person searches for, `truth` the label that a person said it really is, `model` the model that
    they said it of; `search.py` turns these into `ids`, newest first.
    """

    channel: str | None = None
    label: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    truth: str | None = None
    model: ModelRef | None = None
    ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedView:
    """A filter of the page Records under a name. `owner` is the id of the person whose it is, "" for one that all see.

    `query` is the query string of the page in its one normal form, without the question mark.
    """

    id: str
    created_at: datetime
    owner: str
    created_by: str
    name: str
    query: str

    @property
    def shared(self) -> bool:
        """Whether everybody sees it."""
        return not self.owner


def clean_file_name(name: str | None) -> str | None:
    """The last part of a path, of either kind of slash, as it is stored: visible characters, at most 255 of them.

    None where nothing is left.
    """
    last = re.split(r"[/\\]", name or "")[-1]
    shown = unicodedata.normalize("NFC", " ".join(visible(last).split()))
    return shown[:FILE_NAME_CHARACTERS].rstrip() or None


def key_of(file_name: str | None) -> str | None:
    """How a file name is searched for: the same in upper and lower case."""
    return None if file_name is None else file_name.casefold()


class FeedbackValue(StrEnum):
    """What a person says of a prediction."""

    WRONG = "wrong"
    RIGHT = "right"
    NONE = "none"
    """None of the labels fits."""
    UNUSABLE = "unusable"
    """The photo shows nothing that could be labelled."""


# Not the same as FeedbackValue: an answer says what the sample is, also where nothing was predicted. Feedback may only
# say that a prediction is wrong; the sample then still needs an answer.
class Answer(StrEnum):
    """What a person says of a sample, in a review."""

    CONFIRMED = "confirmed"
    CORRECTED = "corrected"
    NONE_OF_THESE = "none_of_these"
    NOT_USABLE = "not_usable"

    @property
    def verdict(self) -> FeedbackValue:
        """What it says of the prediction."""
        return _VERDICTS[self]


_VERDICTS = {
    Answer.CONFIRMED: FeedbackValue.RIGHT,
    Answer.CORRECTED: FeedbackValue.WRONG,
    Answer.NONE_OF_THESE: FeedbackValue.NONE,
    Answer.NOT_USABLE: FeedbackValue.UNUSABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a person said of one prediction.

    `label` is the right label, where they gave it: what a training may use. `proposed` is a category that the model
    does not have. Withdrawn feedback stays stored, but nothing uses it.
    """

    id: str
    created_at: datetime
    prediction_id: str
    verdict: FeedbackValue
    label: str | None = None
    comment: str | None = None
    proposed: str | None = None
    withdrawn_at: datetime | None = None
