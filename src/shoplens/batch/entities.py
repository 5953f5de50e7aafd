"""Returned goods: an item per photo that arrived, a run per night, and where each photo lies. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.bundles.manifest import ModelRef
from shoplens.predictions.policy import Outcome

_LONGEST_NAME: Final = 60


class ItemState(StrEnum):
    """Where an item stands. Every file that arrived is in exactly one of these."""

    WAITING = "waiting"
    PROCESSING = "processing"
    DONE = "done"
    NEEDS_REVIEW = "needs_review"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicate"


COMPLETED: Final = (ItemState.DONE, ItemState.NEEDS_REVIEW, ItemState.QUARANTINED)
"""The states in which a run leaves its items."""


class RunState(StrEnum):
    """`requested` and `running` runs are active. A channel has at most one active run."""

    REQUESTED = "requested"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the shop calls a returned thing; each may be unknown."""

    item: str | None = None
    order: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One photo that arrived.

    `seq` rises with every arrival (0 before it is stored). `source_stamp` tells an unchanged file without reading it.
    `key` is where the photo lies; `target_key` is where it shall go, and is None unless a move is outstanding. A
    duplicate has neither: its photo is that of the item `duplicate_of`. An empty file is never one: each is set aside
    by itself, the later ones with `duplicate_of` and a `key`. `label` is what a person said, else `predicted`.
    `thumbnail_key` is set for what no decoder can show later. `work_ms` is the time that its own
    classification took. `failure_code` and `failure` are the last refusal's, also while it waits to be tried again.
    """

    id: str
    channel: str
    received_at: datetime
    source_name: str
    sha256: str
    byte_count: int
    state: ItemState
    seq: int = 0
    source_stamp: str | None = None
    references: References = References()
    key: str | None = None
    target_key: str | None = None
    thumbnail_key: str | None = None
    duplicate_of: str | None = None
    attempts: int = 0
    run_id: str | None = None
    prediction_id: str | None = None
    predicted: str | None = None
    score: float | None = None
    label: str | None = None
    corrected_at: datetime | None = None
    finished_at: datetime | None = None
    work_ms: float | None = None
    failure_code: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What a run made of one item that it had leased. `target_key` is where its photo shall go, None: it stays."""

    item_id: str
    state: ItemState
    attempts: int
    target_key: str | None
    finished_at: datetime | None = None
    prediction_id: str | None = None
    predicted: str | None = None
    score: float | None = None
    work_ms: float | None = None
    thumbnail_key: str | None = None
    failure_code: str | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One night. It works on the items up to `bound`, so that what arrives meanwhile cannot make it endless.

    `owner`, `host`, `pid` and `process` name the process that works on it (see `RunOwner`); `heartbeat` rises with each
    sign of life of that process, so that others can tell whether it lives without comparing clocks. `planned` is how
    many items it has to do in all.
    """

    id: str
    channel: str
    created_at: datetime
    requested_by: str
    state: RunState
    bound: int
    planned: int
    model: ModelRef | None = None
    policy_version: str | None = None
    owner: str | None = None
    host: str | None = None
    pid: int | None = None
    process: str | None = None
    heartbeat: int = 0
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    last_item_at: datetime | None = None
    finished_at: datetime | None = None
    stalled: bool = False
    failure: str | None = None
    report_key: str | None = None

    @property
    def active(self) -> bool:
        """Whether it is to be worked on."""
        return self.state in (RunState.REQUESTED, RunState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOwner:
    """A process that works on a run: a new id at each start, where it runs, and what tells it from a later process with
    the same number (None where that cannot be told).
    """

    id: str
    host: str
    pid: int
    process: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """How many items of a run stand where. Counted from the items, so that they always add up."""

    by_state: Mapping[ItemState, int]

    def __getitem__(self, state: ItemState) -> int:
        return self.by_state.get(state, 0)

    @property
    def settled(self) -> int:
        """Items that the run is through with."""
        return sum(self[state] for state in COMPLETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """Which items are asked for; None means any. `label` is what a person said, else what was predicted.

    `text` is looked for at the beginning of item and order references.
    """

    channel: str | None = None
    run_id: str | None = None
    state: ItemState | None = None
    label: str | None = None
    text: str | None = None


def state_for(outcome: Outcome) -> ItemState:
    """What a decision means for an item: only what is accepted needs no person."""
    return ItemState.DONE if outcome is Outcome.ACCEPT else ItemState.NEEDS_REVIEW


def incoming_key(channel: str, item_id: str, name: str, suffix: str) -> str:
    """Where a photo waits. `suffix` has no dot."""
    return f"{segment(channel)}/incoming/{file_name(item_id, name, suffix)}"


def target_key(state: ItemState, label: str | None, key: str) -> str:
    """Where the photo at `key` belongs once its item is settled: by category, doubtful ones apart."""
    channel, _, rest = key.partition("/")
    name = rest.rsplit("/", 1)[-1]
    if state is ItemState.QUARANTINED:
        return f"{channel}/quarantine/{name}"
    folder = "processed" if state is ItemState.DONE else "needs_review"
    return f"{channel}/{folder}/{segment(label or 'unknown')}/{name}"


def corrected_key(label: str, key: str) -> str:
    """Where the photo at `key` belongs once a person has said what it is: `key` itself, or a name it never had before.

    So a mover who comes late, with a list from before two corrections, finds nothing at the old place and does nothing.
    """
    place = target_key(ItemState.DONE, label, key)
    if place == key:
        return key
    stem, dot, suffix = place.rpartition(".")
    name, mark, revision = stem.rpartition(".r")
    if mark and revision.isdecimal():
        return f"{name}.r{int(revision) + 1}{dot}{suffix}"
    return f"{stem}.r1{dot}{suffix}"


def file_name(item_id: str, name: str, suffix: str) -> str:
    """A name that is unique by its id, readable by what is left of the one it came with, and safe everywhere."""
    stem = segment(name.rsplit("/", 1)[-1].rsplit(".", 1)[0])[:_LONGEST_NAME].rstrip(".-")
    return f"{item_id}-{stem}.{suffix}" if stem else f"{item_id}.{suffix}"


def segment(text: str) -> str:
    """`text` as one plain part of a path: ASCII letters, digits, dot, underscore, dash; never starting with a dot."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-").rstrip("-")
