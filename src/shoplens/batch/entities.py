"""Batch items, runs, and the keys of photos in the store. Values only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.bundles.manifest import ModelRef
from shoplens.predictions.entities import Answer
from shoplens.predictions.policy import Outcome

Clock = Callable[[], datetime]
"""The time of day, in UTC."""

_LONGEST_NAME: Final = 60


class ItemState(StrEnum):
    """The state of an item; every imported file has exactly one."""

    WAITING = "waiting"
    PROCESSING = "processing"
    DONE = "done"
    NEEDS_REVIEW = "needs_review"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicate"
    DISMISSED = "dismissed"
    """A person said that the file is not usable, so nothing more is done with it."""


COMPLETED: Final = (ItemState.DONE, ItemState.NEEDS_REVIEW, ItemState.QUARANTINED, ItemState.DISMISSED)
"""The states of items that no run has to work on any more. Duplicates are not among them: no run works on them."""

HOPELESS: Final = frozenset({"image_missing", "image_corrupt", "image_unsupported", "image_too_small"})
"""Failures that lie in the file itself, so that another attempt cannot help."""


class RunState(StrEnum):
    """`requested` and `running` runs are active. A channel has at most one active run."""

    REQUESTED = "requested"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the shop calls an item; each may be unknown. Photos of shoppers have a product as their item."""

    item: str | None = None
    order: str | None = None
    reason: str | None = None
    customer: str | None = None
    review: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One photo that arrived.

    `seq` rises with every arrival (0 before it is stored). `source_stamp` changes whenever the file does.
    `key` is the photo's key in the store; `target_key` is the key that it is to be moved to, None unless a move is
    outstanding. A duplicate has neither: its photo is that of the item `duplicate_of`. Empty files are not duplicates:
    each is quarantined, the later ones with `duplicate_of` and a `key`. `label` is the label that a person set, else
    `predicted`. `thumbnail_key` is set for photos that cannot be decoded again. `work_ms` is the duration of its
    classification. `failure_code` and `failure` are those of the last attempt, also while it waits for the next one.

    `answer` is what a person said, at `corrected_at` in the browser `answered_by`; `proposed` is the category that they
    missed, `reviewed_from` the state that the item had before, so that it can be reopened. `revision` rises with each
    of these changes. A retried item stays as it is in its run, and `retried_as` is the item that waits instead; that
    one has the photo now. `photo_deleted_at` is when retention deleted the photo.
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
    answer: Answer | None = None
    proposed: str | None = None
    answered_by: str | None = None
    reviewed_from: ItemState | None = None
    revision: int = 0
    retried_as: str | None = None
    photo_deleted_at: datetime | None = None

    @property
    def retriable(self) -> bool:
        """Whether another attempt can help."""
        return self.state is ItemState.QUARANTINED and self.retried_as is None and self.failure_code not in HOPELESS


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """The result of one leased item. `target_key` is the key that its photo is to be moved to; None: it stays."""

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
    """One run. It processes the items up to `bound`, so that later arrivals cannot make it endless.

    `owner`, `host`, `pid` and `process` name the process that works on it (see `RunOwner`); that process raises
    `heartbeat`, so that others can see whether it is alive without comparing clocks. `planned` is the number of items.
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
        """Whether it is requested or running."""
        return self.state in (RunState.REQUESTED, RunState.RUNNING)

    @property
    def cancelled(self) -> bool:
        """Whether a person ended it. `failure` says who; a run that ends by itself has none then."""
        return self.state is RunState.FINISHED and self.failure is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOwner:
    """A process that works on a run. `id` is new at each start; `process` is a mark that no later process with the same
    number has, None if it is unknown.
    """

    id: str
    host: str
    pid: int
    process: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """What became of everything that a run accounts for, by state. Pages, commands, reports and metrics all use it.

    A run accounts for what arrived, or was queued again, since the run before it. Nothing joins or leaves a finished
    run; only a person's answers move its items from one state to another.
    """

    by_state: Mapping[ItemState, int]

    def __getitem__(self, state: ItemState) -> int:
        return self.by_state.get(state, 0)

    @property
    def received(self) -> int:
        """All of them. In a finished run: done + needs review + quarantined + dismissed + duplicates."""
        return sum(self.by_state.values())

    @property
    def settled(self) -> int:
        """Completed items."""
        return sum(self[state] for state in COMPLETED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """A filter of items; None means any. `label` is the label that a person set, else the predicted one.

    `text` is the beginning of an item or order number. With `browser`: without what was skipped there, or, with
    `skipped`, only that.
    """

    channel: str | None = None
    run_id: str | None = None
    state: ItemState | None = None
    label: str | None = None
    text: str | None = None
    browser: str | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRange:
    """What a run accounts for: its items, and what arrived after `beyond` up to `bound` and belongs to no run.

    `beyond` is the bound of the run before. So each arrival is in the table of exactly one run: duplicates and what
    was refused on arrival, which no run works on, are in that of the run that came next.
    """

    channel: str
    run_id: str
    beyond: int
    bound: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """An item with what decided it; both None where nothing was predicted."""

    item: BatchItem
    model: ModelRef | None
    threshold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """How many items of a run were quarantined for one reason; `example` is one of the sentences.

    `retried` of them were queued again: they stay in this run, and a later one has their photos.
    """

    code: str
    example: str
    count: int
    retried: int


def state_for(outcome: Outcome) -> ItemState:
    """The state that follows from a decision: only accepted items need no review."""
    return ItemState.DONE if outcome is Outcome.ACCEPT else ItemState.NEEDS_REVIEW


def incoming_key(channel: str, item_id: str, name: str, suffix: str) -> str:
    """The key of a waiting photo. `suffix` has no dot."""
    return f"{segment(channel)}/incoming/{file_name(item_id, name, suffix)}"


def target_key(state: ItemState, label: str | None, key: str) -> str:
    """The key for the photo at `key` after its item is completed: by state and category."""
    channel, _, rest = key.partition("/")
    name = rest.rsplit("/", 1)[-1]
    if state is ItemState.QUARANTINED:
        return f"{channel}/quarantine/{name}"
    if state is ItemState.DISMISSED:
        return f"{channel}/dismissed/{name}"
    folder = "processed" if state is ItemState.DONE else "needs_review"
    return f"{channel}/{folder}/{segment(label or 'unknown')}/{name}"


def reviewed_key(state: ItemState, label: str | None, key: str) -> str:
    """The key for the photo at `key` after a person's answer: `key` itself, or a key that it never had before.

    So a delayed move, from a list that was read before two answers, finds nothing at its source and does nothing.
    """
    place = target_key(state, label, key)
    if place.rpartition("/")[0] == key.rpartition("/")[0]:
        return key
    stem, dot, suffix = place.rpartition(".")
    name, mark, revision = stem.rpartition(".r")
    if mark and revision.isdecimal():
        return f"{name}.r{int(revision) + 1}{dot}{suffix}"
    return f"{stem}.r1{dot}{suffix}"


def file_name(item_id: str, name: str, suffix: str) -> str:
    """A unique name: the id and the safe part of the original name."""
    stem = segment(name.rsplit("/", 1)[-1].rsplit(".", 1)[0])[:_LONGEST_NAME].rstrip(".-")
    return f"{item_id}-{stem}.{suffix}" if stem else f"{item_id}.{suffix}"


def segment(text: str) -> str:
    """`text` as one plain part of a path: ASCII letters, digits, dot, underscore, dash; never starting with a dot."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-").rstrip("-")
