"""Take what a person says of a prediction: wrong or right, what it really is, a comment."""

from __future__ import annotations

import os

from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import Feedback, Verdict
from shoplens.predictions.repository import FeedbackRepository
from shoplens.predictions.service import Clock
from shoplens.telemetry.metrics import Metrics

MAX_LABEL = 200
MAX_COMMENT = 2_000


class GiveFeedback:
    """The row is committed when the call returns. Blocks."""

    def __init__(self, database: Database, *, clock: Clock, metrics: Metrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics

    def __call__(
        self,
        prediction_id: str,
        *,
        verdict: Verdict = Verdict.WRONG,
        label: str | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """Raises PredictionNotFound, and RequestInvalid for texts that are too long."""
        now = self._clock()
        feedback = Feedback(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            prediction_id=prediction_id,
            verdict=verdict,
            label=_clean(label, "label", MAX_LABEL),
            comment=_clean(comment, "comment", MAX_COMMENT),
        )
        with self._database.transaction() as tx:
            FeedbackRepository(tx).add(feedback)
        self._metrics.feedback.labels(verdict=verdict).inc()
        return feedback


def _clean(text: str | None, name: str, longest: int) -> str | None:
    """Without surrounding blanks and NUL characters, which databases refuse; None where nothing is left."""
    cleaned = (text or "").replace("\x00", "").strip()
    if len(cleaned) > longest:
        raise RequestInvalid(f"The {name} has {len(cleaned)} characters; at most {longest} are kept.")
    return cleaned or None
