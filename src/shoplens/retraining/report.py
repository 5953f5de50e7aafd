"""The report on a retraining: what changed, for which class, with the samples whose answer changed; stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from shoplens.retraining.entities import RetrainingRun
from shoplens.retraining.gate import Answers, Check, ClassChange, GateResult
from shoplens.retraining.samples import LabelledSample
from shoplens.retraining.test_set import FOLDER, TestSample
from shoplens.storage import Store

_EXAMPLES: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSample:
    """A test sample that one model has right and the other has not."""

    source: str
    sample_id: str
    label: str
    before: str
    before_score: float
    after: str
    after_score: float
    sha256: str
    image_key: str | None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a retraining found. `left_out` counts labels that were not used by reason, `trained_on` the samples.

    `notes` are sentences for people. `shadow` are the checks of the shadow time, as far as it was judged.
    """

    run_id: str
    trained_on: int
    left_out: Mapping[str, int]
    gate: GateResult
    became_right: tuple[ChangedSample, ...]
    became_wrong: tuple[ChangedSample, ...]
    notes: tuple[str, ...] = ()
    shadow: tuple[Check, ...] = ()


def report_of(
    run: RetrainingRun,
    *,
    gate: GateResult,
    tests: Sequence[tuple[TestSample, LabelledSample]],
    new: Answers,
    old: Answers | None,
    trained_on: int,
    left_out: Mapping[str, int],
    notes: Sequence[str] = (),
) -> Report:
    """With at most 60 examples of each kind, the surest answers of the new model first."""
    right: list[ChangedSample] = []
    wrong: list[ChangedSample] = []
    if old is not None:
        rows = zip(tests, new.labels, new.scores, old.labels, old.scores, strict=True)
        for (tested, fetched), after, after_score, before, before_score in rows:
            if (after == tested.label) == (before == tested.label):
                continue
            changed = ChangedSample(
                source=tested.source,
                sample_id=tested.sample_id,
                label=tested.label,
                before=before,
                before_score=round(before_score, 4),
                after=after,
                after_score=round(after_score, 4),
                sha256=tested.sha256,
                image_key=tested.image_key or fetched.image_key,
                text=tested.designation,
            )
            (right if after == tested.label else wrong).append(changed)

    def surest(changed: list[ChangedSample]) -> tuple[ChangedSample, ...]:
        return tuple(sorted(changed, key=lambda each: -each.after_score)[:_EXAMPLES])

    return Report(
        run_id=run.id,
        trained_on=trained_on,
        left_out=left_out,
        gate=gate,
        became_right=surest(right),
        became_wrong=surest(wrong),
        notes=tuple(notes),
    )


def report_key(run: RetrainingRun) -> str:
    """Where the report of a run is stored."""
    return f"{FOLDER}/{run.channel}/reports/{run.id}.json"


def write_report(store: Store, run: RetrainingRun, report: Report) -> str:
    """Store it in place of an earlier one; its key."""
    key = report_key(run)
    store.put_pieces(key, [orjson.dumps(asdict(report))])
    return key


def read_report(store: Store, key: str) -> Report:
    """Raises BlobNotFound."""
    values: dict[str, Any] = orjson.loads(store.get(key))
    gate = values["gate"]
    gate["checks"] = tuple(Check(**each) for each in gate["checks"])
    gate["classes"] = tuple(ClassChange(**each) for each in gate["classes"])
    for name in ("became_right", "became_wrong"):
        values[name] = tuple(ChangedSample(**each) for each in values[name])
    values["shadow"] = tuple(Check(**each) for each in values.get("shadow", ()))
    return Report(**{**values, "gate": GateResult(**gate), "notes": tuple(values["notes"])})


def forget_samples(store: Store, sample_ids: set[str]) -> int:
    """Take samples of erased people out of every report; how many reports that changed."""
    changed = 0
    for key in list(store.list(FOLDER)):
        if "/reports/" not in key:
            continue
        report = orjson.loads(store.get(key))
        before = len(report["became_right"]) + len(report["became_wrong"])
        for name in ("became_right", "became_wrong"):
            report[name] = [each for each in report[name] if each["sample_id"] not in sample_ids]
        if len(report["became_right"]) + len(report["became_wrong"]) < before:
            store.put_pieces(key, [orjson.dumps(report)])
            changed += 1
    return changed
