"""Retrainings and labels in question in words, as the pages show them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from shoplens.messages import gettext, known, marked, whole_number
from shoplens.retraining.entities import CANCELLED, RetrainingState, Stage, Suspect
from shoplens.retraining.service import RunView

_RECORDS: Mapping[str, str] = {
    "feedback": "/console/records/{}",
    "moderation": "/console/moderation/photos/{}",
    "catalogue": "/console/catalogue/products/{}",
}
_STATES: Mapping[RetrainingState, str] = {
    RetrainingState.RUNNING: marked("Running"),
    RetrainingState.SHADOWING: marked("Challenger for a while"),
    RetrainingState.WAITING: marked("Waits for your answer"),
    RetrainingState.PROMOTED: marked("Went live"),
    RetrainingState.REFUSED: marked("Refused by the gate"),
    RetrainingState.REJECTED: marked("Rejected"),
    RetrainingState.MEASURED: marked("Dry run"),
    RetrainingState.FAILED: marked("Failed"),
}
_STAGES: Mapping[Stage, str] = {
    Stage.LABELS: marked("Collecting what people said"),
    Stage.DATA: marked("Reading photos and texts"),
    Stage.TRAINING: marked("Training"),
    Stage.JUDGING: marked("Comparing with the present model"),
    Stage.PUBLISHING: marked("Publishing"),
    Stage.DONE: marked("Done"),
}


def live_words(view: RunView, trouble: str | None, now: datetime) -> dict[str, Any]:
    """What a retraining does now, in the form that `batch-live.js` shows."""
    run, stages = view.run, list(_STAGES)
    done = stages.index(run.stage)
    minutes = int((now - run.created_at).total_seconds() // 60)
    waits = run.owner is None
    stopped = run.active and (view.interrupted or (waits and trouble is not None))
    said = known(trouble or "") or gettext("Its process ended. The next start continues it where it was.")
    return {
        "active": run.active,
        "done": round(100 * done / (len(stages) - 1), 1),
        "condition": "warn" if stopped else None,
        "resumable": stopped,
        "words": {
            "state": run_state(view),
            "progress": gettext("Starting…") if waits else gettext(_STAGES[run.stage]),
            "speed": gettext(
                "step %(step)s of %(steps)s, for %(minutes)s min",
                step=str(min(done + 1, len(stages) - 1)),
                steps=str(len(stages) - 1),
                minutes=whole_number(minutes),
            ),
            "trouble": said if stopped else "",
            "closing": "" if stopped else gettext("You can close this page: it goes on by itself."),
        },
    }


def run_state(view: RunView) -> str:
    """For people to read."""
    if view.interrupted:
        return gettext("Interrupted")
    if view.run.failure_code == CANCELLED:
        return gettext("Cancelled")
    return gettext(_STATES[view.run.state])


def sample_address(suspect: Suspect) -> str | None:
    """The page of the sample; None where it has none."""
    known = _RECORDS.get(suspect.source)
    return None if known is None else known.format(quote(suspect.sample_id))
