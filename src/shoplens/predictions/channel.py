"""A channel: which model answers, which policy decides, what is kept of the photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from shoplens.predictions.policy import Policy


class Keep(StrEnum):
    """What is stored of a photo."""

    ORIGINAL = "original"
    THUMBNAIL = "thumbnail"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Three facts from the settings, and a name."""

    name: str
    model: str
    policy: Policy = field(default_factory=Policy)
    keep: Keep = Keep.THUMBNAIL
