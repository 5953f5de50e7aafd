"""A label: what a person said that a sample really is; and a label set: all of a channel, frozen. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The last word of people on one sample.

    `source` names the feature that showed it (`moderation`, `feedback`), `model` is `name@version` of the model that
    people saw. `given_by` is the id of a person or key, None where that is not known. `image_key` is the photo's key in
    the store, None where it was not kept; `image_phash` its perceptual hash, None where that is not known. Products
    have texts. `group` is the number of the first label of the set whose sample is the same or nearly: equal content,
    similar hashes, or the same words in the designation.
    """

    sample_id: str
    source: str
    channel: str
    label: str
    given_at: datetime
    given_by: str | None
    model: str
    image_sha256: str
    image_key: str | None
    image_phash: str | None = None
    designation: str | None = None
    description: str | None = None
    group: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """One version of the labels of a channel, stored as Parquet under `key`.

    `digest` is the SHA-256 over all labels: the same labels have the same one. It changes, and `changed_at` is set,
    only if samples had to be erased.
    """

    id: str
    created_at: datetime
    channel: str
    version: int
    labels: int
    digest: str
    key: str
    created_by: str
    changed_at: datetime | None = None
