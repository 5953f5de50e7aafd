"""What a night on a cluster hands to its nodes, and what comes back: values only, without Ray."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ShoplensError
from shoplens.images.picture import ImageSpec, Limits
from shoplens.serving.engine import ClassifyResult
from shoplens.serving.session import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """The limits of the sandboxed decoder on each node."""

    memory_bytes: int
    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStore:
    """Where the photos are. Who sees `marker` under `marker_key` sees the same store as the driver."""

    url: str
    marker_key: str
    marker: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a node has to know; equal on all of them. `digest` is that of the bundle which they are sent."""

    version: str
    store: SharedStore
    limits: Limits
    sandbox: SandboxLimits
    model: ModelRef
    digest: str
    spec: ImageSpec
    provider: Provider
    top_k: int
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPhoto:
    """One photo to be read by a node."""

    id: str
    key: str | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOutcome:
    """What became of one photo.

    `salvaged` is what can be shown of one that failed. `away` means that its node could not reach the store at all, so
    that it says nothing of the photo.
    """

    id: str
    outcome: ClassifyResult | ShoplensError
    salvaged: bytes | None = None
    away: bool = False


Block = tuple[ClusterPhoto, ...]
"""Photos that share a task."""


def blocks_of(photos: Sequence[ClusterPhoto], *, largest: int, tasks: int) -> list[Block]:
    """The photos in equal blocks: as large as they may be, but enough of them that no task has nothing to do."""
    size = max(1, min(largest, -(-len(photos) // max(1, tasks))))
    return [tuple(photos[at : at + size]) for at in range(0, len(photos), size)]


def own_version() -> str:
    """The release of Shoplens in this process, whose package is there before any module of it is."""
    return str(sys.modules["shoplens"].__version__)
