"""What people say of predictions: the one way in which an answer becomes feedback, and in which it is withdrawn.

The pages and the API of records use it, and so does every feature that shows predictions for review.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.db.tables import make_id
from shoplens.errors import ItemChanged, RequestInvalid
from shoplens.messages import marked
from shoplens.predictions.entities import Feedback, FeedbackValue
from shoplens.predictions.repository import FeedbackRepository

MAX_LABEL: Final = 200
MAX_COMMENT: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFeedback:
    """What a person says of a prediction, before it is stored.

    `seen` is the id of the newest feedback that they were shown, "" if there was none; None if that is not known. `by`
    is the browser that they use.
    """

    prediction_id: str
    verdict: FeedbackValue
    label: str | None = None
    proposed: str | None = None
    comment: str | None = None
    seen: str | None = None
    by: str | None = None

    def cleaned(self) -> NewFeedback:
        """The texts as they are stored. Raises RequestInvalid for one that is too long."""
        return replace(
            self,
            label=clean_text(self.label, "label", MAX_LABEL),
            proposed=clean_text(self.proposed, "proposed category", MAX_LABEL),
            comment=clean_text(self.comment, "comment", MAX_COMMENT),
        )


Settle = Callable[[NewFeedback], Feedback | None]
"""Settles whatever else shows the prediction, together with the feedback; None if nothing else shows it."""


def give(tx: Connection, new: NewFeedback, *, now: datetime) -> Feedback:
    """Store what a person said, in the caller's transaction.

    Raises PredictionNotFound, and ItemChanged if there is newer feedback than they had seen.
    """
    repository = FeedbackRepository(tx)
    if new.seen is not None:
        earlier = repository.for_predictions([new.prediction_id]).get(new.prediction_id, [])
        if earlier and earlier[-1].id != new.seen:
            raise ItemChanged(f"Somebody answered this meanwhile: {_words(earlier[-1])}. Load the page again.")
    feedback = Feedback(
        id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
        created_at=now,
        prediction_id=new.prediction_id,
        verdict=new.verdict,
        label=new.label,
        comment=new.comment,
        proposed=new.proposed,
    )
    repository.add(feedback)
    return feedback


def withdraw(tx: Connection, prediction_id: str, *, now: datetime) -> int:
    """Withdraw all feedback on a prediction, in the caller's transaction: no export has it any more. How many."""
    return FeedbackRepository(tx).withdraw(prediction_id, now=now)


def clean_text(text: str | None, name: str, limit: int) -> str | None:
    """Without surrounding blanks and NUL characters, which databases refuse; None where nothing is left.

    Raises RequestInvalid if it is longer than `limit`.
    """
    cleaned = (text or "").replace("\x00", "").strip()
    if len(cleaned) > limit:
        raise RequestInvalid(f"The {name} has {len(cleaned)} characters; at most {limit} are stored.")
    return cleaned or None


def _words(given: Feedback) -> str:
    words = {
        FeedbackValue.RIGHT: marked("correct"),
        FeedbackValue.WRONG: marked("incorrect"),
        FeedbackValue.NONE: marked("none of the categories"),
        FeedbackValue.UNUSABLE: marked("not usable"),
    }[given.verdict]
    return marked(f'incorrect, "{given.label}"') if given.label and given.verdict is FeedbackValue.WRONG else words
