"""The shapes of the JSON API of returned goods, for its documentation, its input and its tests."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from shoplens.batch.browse import RunSummary, RunView
from shoplens.batch.entities import BatchItem, ItemState, RunCounts, RunState
from shoplens.batch.status import OwnerState
from shoplens.web.schemas import ModelOut, Schema

_ID = "01k9hzv3m5x4q8d0j7w2r6t9ab"


class ReferencesOut(Schema):
    """What the shop calls a returned thing; each may be unknown."""

    item: str | None = Field(examples=["4711"])
    order: str | None = Field(examples=["100234"])
    reason: str | None = Field(examples=["too small"])


class FailureOut(Schema):
    """Why a photo could not be used. `code` is stable; `detail` is a sentence for people."""

    code: str = Field(examples=["image_corrupt"])
    detail: str = Field(examples=["The file ends in the middle of the picture."])


class ItemOut(Schema):
    """One photo that arrived. `label` is what a person said it is, else what was predicted."""

    id: str = Field(examples=[_ID])
    received_at: datetime
    source_name: str = Field(description="The name of the file that it came in.", examples=["100234_4711.jpg"])
    references: ReferencesOut
    sha256: str
    bytes: int = Field(examples=[412_345])
    state: ItemState
    run_id: str | None = Field(description="The run that worked on it.", examples=[_ID])
    prediction_id: str | None = Field(description="Its record: `/predictions/ID`.", examples=[_ID])
    predicted: str | None = Field(examples=["dress"])
    score: float | None = Field(examples=[0.93])
    label: str | None = Field(examples=["skirt"])
    corrected_at: datetime | None = Field(description="When a person last said what it is.")
    finished_at: datetime | None
    attempts: int = Field(description="How often it was tried so far.")
    work_ms: float | None = Field(description="How long its classification took, in milliseconds.", examples=[18.2])
    stored_as: str | None = Field(
        description="Where its photo lies in the store; null for a duplicate.",
        examples=["returns/processed/skirt/01k9hzv3m5x4q8d0j7w2r6t9ab-100234_4711.jpg"],
    )
    duplicate_of: str | None = Field(description="The item that has the same photo.")
    failure: FailureOut | None


class ItemPageOut(Schema):
    """A page of items, newest first; `older` and `newer` are values for `before` and `after`."""

    items: list[ItemOut]
    older: int | None
    newer: int | None


class CountsOut(Schema):
    """How many photos stand where."""

    waiting: int
    working: int
    done: int
    doubtful: int
    quarantined: int
    duplicate: int


class RunOut(Schema):
    """One night's run. `counts` has what the run accounts for: its photos, and the duplicates that came before it."""

    id: str = Field(examples=[_ID])
    created_at: datetime
    requested_by: str = Field(examples=["http"])
    state: RunState
    model: ModelOut | None = Field(description="Known once the run works.")
    policy_version: str | None = Field(examples=["18608add0b55"])
    planned: int = Field(description="How many photos it has to do in all.", examples=[10_000])
    counts: CountsOut
    started_at: datetime | None
    last_item_at: datetime | None = Field(description="When it last finished a photo.")
    finished_at: datetime | None
    heartbeat: int = Field(description="Rises with each sign of life of the process that works on it.")
    heartbeat_at: datetime | None
    stalled: bool = Field(description="The process lives, but no photo comes to an end.")
    worker: OwnerState = Field(
        description="The process that works on it; `silent` gave no sign of life for longer than it should."
    )
    failure: str | None = Field(description="Why it broke off last time, or ended without success.")


class RunProgressOut(RunOut):
    """A run with how far it is."""

    settled: int = Field(description="Photos that it is through with.", examples=[4_200])
    left: int = Field(description="Photos that it has yet to do.", examples=[5_800])
    progress: float = Field(description="From 0 to 1.", examples=[0.42])
    rate_per_s: float | None = Field(description="Photos per second over the whole run so far.", examples=[31.5])
    seconds_left: float | None = Field(examples=[184.1])
    last_item_ago_s: float | None = Field(examples=[0.4])
    labels: dict[str, CountsOut] = Field(
        description="The counts by category.",
        examples=[
            {
                "dress": {
                    "waiting": 0,
                    "processing": 0,
                    "done": 310,
                    "needs_review": 12,
                    "quarantined": 0,
                    "duplicate": 0,
                }
            }
        ],
    )


class RunPageOut(Schema):
    """Runs, newest first; `older` is a value for `before`."""

    runs: list[RunOut]
    older: str | None


class IngestOut(Schema):
    """An import from the channel's source, finished or running."""

    state: Literal["running", "finished"]
    started_at: datetime
    counts: dict[str, int] = Field(
        description=(
            "Files by outcome: `taken` wait for a run, `duplicates` repeat another photo, `quarantined` are empty or "
            "too large, `known` were imported before, `not_ready`, `unreadable` and `refused` stay in the source; "
            "`not_removed` were imported but could not be removed. Empty before the first commit."
        ),
        examples=[{"taken": 118, "duplicates": 2, "quarantined": 0, "known": 0, "not_ready": 1}],
    )
    seen: int = Field(examples=[121])
    bytes: int = Field(examples=[48_000_000])
    duration_s: float = Field(examples=[6.4])
    notes: list[str] = Field(description="What needs attention.")


class UploadOut(Schema):
    """The outcome of one photo of a form. `item` is null if it was not imported; `code` is the error, if any."""

    name: str = Field(examples=["100234_4711.jpg"])
    item: ItemOut | None
    code: str | None = Field(examples=["image_too_large"])
    detail: str | None


class UploadsOut(Schema):
    """The outcomes of the photos of a form, in their order."""

    photos: list[UploadOut]


class LabelIn(Schema):
    """What a person says of an item: either a label, or that the predicted one is right."""

    label: str | None = Field(default=None, max_length=200, examples=["skirt"])
    confirm: bool = Field(default=False, description="The predicted label is right.")


def item_json(item: BatchItem) -> dict[str, Any]:
    """An ItemOut as plain values."""
    failure = {"code": item.failure_code, "detail": item.failure or ""} if item.failure_code else None
    references = item.references
    return {
        "id": item.id,
        "received_at": item.received_at,
        "source_name": item.source_name,
        "references": {"item": references.item, "order": references.order, "reason": references.reason},
        "sha256": item.sha256,
        "bytes": item.byte_count,
        "state": item.state.value,
        "run_id": item.run_id,
        "prediction_id": item.prediction_id,
        "predicted": item.predicted,
        "score": item.score,
        "label": item.label,
        "corrected_at": item.corrected_at,
        "finished_at": item.finished_at,
        "attempts": item.attempts,
        "work_ms": item.work_ms,
        "stored_as": item.target_key or item.key,
        "duplicate_of": item.duplicate_of,
        "failure": failure,
    }


def run_json(of: RunSummary | RunView, *, worker: OwnerState, trouble: str | None) -> dict[str, Any]:
    """A RunOut as plain values; `trouble` is what is known of a process that did not get as far as the run itself."""
    run = of.run
    return {
        "id": run.id,
        "created_at": run.created_at,
        "requested_by": run.requested_by,
        "state": run.state.value,
        "model": {"name": run.model.name, "version": run.model.version} if run.model else None,
        "policy_version": run.policy_version,
        "planned": run.planned,
        "counts": counts_json(of.counts),
        "started_at": run.started_at,
        "last_item_at": run.last_item_at,
        "finished_at": run.finished_at,
        "heartbeat": run.heartbeat,
        "heartbeat_at": run.heartbeat_at,
        "stalled": run.stalled,
        "worker": worker.value,
        "failure": run.failure or trouble,
    }


def progress_json(view: RunView, *, worker: OwnerState, trouble: str | None) -> dict[str, Any]:
    """A RunProgressOut as plain values."""
    return {
        **run_json(view, worker=worker, trouble=trouble),
        "settled": view.settled,
        "left": view.left,
        "progress": view.progress,
        "rate_per_s": view.rate_per_s,
        "seconds_left": view.seconds_left,
        "last_item_ago_s": view.last_item_ago_s,
        "labels": _by_label(view),
    }


def counts_json(counts: RunCounts) -> dict[str, int]:
    """A CountsOut as plain values."""
    return {state.value: counts[state] for state in ItemState}


def _by_label(view: RunView) -> dict[str, dict[str, int]]:
    labels = sorted({label for _, label in view.labels})
    return {
        label: counts_json(RunCounts(by_state={state: view.labels.get((state, label), 0) for state in ItemState}))
        for label in labels
    }
