"""A label set: what people said of samples, frozen as one version. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """One version of the labels of a channel. `digest` is the SHA-256 of its manifest, stored under `key` (Parquet)."""

    id: str
    created_at: datetime
    channel: str
    version: int
    labels: int
    digest: str
    key: str
    created_by: str
