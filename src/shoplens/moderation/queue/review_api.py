"""The JSON API of decisions: accept, reject, escalate and undo, one photo or a selection, and what helps to decide."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.entities import Principal
from shoplens.moderation.entities import DecisionKind, HashVerdict, ModerationPhoto, PhotoState
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.api import PhotoId, ProgressOut, QueuePhotoOut, Reviewer, known_id, progress_out
from shoplens.moderation.queue.context import PhotoContext
from shoplens.moderation.queue.review import MAX_COMMENT, MOST_AT_ONCE, Choice, Outcome
from shoplens.moderation.service import Moderation
from shoplens.web.problems import public_detail
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

Seen = Annotated[
    int | None,
    Field(
        default=None,
        ge=0,
        description="The `revision` that you were shown: 409 `photo_changed` with who decided and when, if it has "
        "changed since. Without it only a photo that waits can be decided.",
    ),
]
_STATES = {"accept": PhotoState.PUBLISHED, "reject": PhotoState.REFUSED}


class DecisionIn(BodySchema):
    """Accept a photo, or reject it with one of the shop's reasons."""

    decision: Literal["accept", "reject"]
    reason: str | None = Field(default=None, max_length=80, description="For `reject`.", examples=["nudity"])
    comment: str | None = Field(default=None, max_length=MAX_COMMENT, description="For colleagues; never shown.")
    answer: str | None = Field(default=None, max_length=MAX_COMMENT, description="For the shopper who appealed.")
    seen: Seen

    def choice(self) -> Choice:
        """The decision as the service takes it."""
        return Choice(state=_STATES[self.decision], reason=self.reason, comment=self.comment, answer=self.answer)


class SelectedIn(BodySchema):
    """One photo of a selection."""

    id: PhotoId
    seen: int = Field(ge=0)


class BulkIn(BodySchema):
    """The same decision for several photos."""

    photos: list[SelectedIn] = Field(min_length=1, max_length=MOST_AT_ONCE)
    decision: Literal["accept", "reject"]
    reason: str | None = Field(default=None, max_length=80)
    comment: str | None = Field(default=None, max_length=MAX_COMMENT)


class EscalateIn(BodySchema):
    """Why another person should decide."""

    comment: str | None = Field(default=None, max_length=MAX_COMMENT)
    seen: Seen


class DecidedOut(Schema):
    """The photo after your decision."""

    photo: QueuePhotoOut
    progress: ProgressOut


class OutcomeOut(Schema):
    """What became of one photo of a selection: the photo, or an error's code and sentence."""

    id: str
    photo: QueuePhotoOut | None
    code: str | None
    detail: str | None


class BulkOut(Schema):
    """One outcome per photo, in order."""

    outcomes: list[OutcomeOut]
    progress: ProgressOut


class EntryOut(Schema):
    """One entry of a photo's history."""

    at: datetime
    kind: DecisionKind
    by_name: str
    from_state: PhotoState | None
    to_state: PhotoState
    rule: str | None
    reason: str | None
    comment: str | None
    undone_at: datetime | None


class EarlierOut(Schema):
    """Another photo of the same customer."""

    id: str
    created_at: datetime
    state: PhotoState
    reason: str | None
    has_image: bool


class SimilarOut(Schema):
    """A photo like this one that was decided. `id` is null once its customer was erased."""

    id: str | None
    verdict: HashVerdict
    distance: int = Field(description="Between 0 (the same) and 64.")
    mirrored: bool
    has_image: bool


class ContextOut(Schema):
    """Everything beside a photo. `refusals` counts those of the customer within `strike_days`."""

    photo: QueuePhotoOut
    history: list[EntryOut]
    similar: list[SimilarOut]
    earlier: list[EarlierOut]
    refusals: int
    strikes: int | None
    strike_days: int
    reports: list[str | None]
    appeal: str | None
    may_decide: bool

    @classmethod
    def of(cls, context: PhotoContext, policy: ModerationPolicy) -> Self:
        """The context with the bands that apply now."""
        same = ("refusals", "strikes", "strike_days", "appeal", "may_decide")
        return cls(
            photo=QueuePhotoOut.of(context.photo, policy),
            history=[EntryOut.model_validate(each) for each in context.history],
            similar=[
                SimilarOut(
                    id=None if each.photo is None else each.photo.id,
                    verdict=each.near.verdict,
                    distance=each.near.distance,
                    mirrored=each.near.mirrored,
                    has_image=each.photo is not None and each.photo.image_key is not None,
                )
                for each in context.similar
            ],
            earlier=[
                EarlierOut(
                    id=each.id,
                    created_at=each.created_at,
                    state=each.state,
                    reason=each.reason,
                    has_image=each.image_key is not None,
                )
                for each in context.earlier
            ],
            reports=list(context.reports),
            **{name: getattr(context, name) for name in same},
        )


def review_router(moderation: Moderation) -> APIRouter:
    """What people say of photos."""
    router = api_router(prefix="/moderation", tags=["moderation"])
    queue, review = moderation.queue, moderation.review

    def shown(photo: ModerationPhoto) -> QueuePhotoOut:
        return QueuePhotoOut.of(photo, moderation.policy_of(photo.channel))

    def decided(photo: ModerationPhoto, by: Principal) -> Response:
        progress = progress_out(queue.progress(photo.channel, by=by))
        return json_response(DecidedOut(photo=shown(photo), progress=progress))

    @router.post("/photos/{photo_id}/decision", response_model=DecidedOut, summary="Decide a photo")
    def decide(photo_id: str, by: Reviewer, given: DecisionIn) -> Response:
        """Publish the photo or refuse it. The same request again changes nothing."""
        return decided(review.decide(known_id(photo_id), given.choice(), by=by, seen=given.seen), by)

    @router.post("/decisions", response_model=BulkOut, summary="Decide several photos")
    def decide_many(by: Reviewer, given: BulkIn) -> Response:
        """The same decision for up to 100 photos; one that is in the way does not keep the others."""
        choice = Choice(state=_STATES[given.decision], reason=given.reason, comment=given.comment)
        seen = {each.id: each.seen for each in given.photos}
        outcomes = review.decide_many(seen, choice, by=by)
        channels = [each.photo.channel for each in outcomes if each.photo is not None]
        name = channels[0] if channels else next(iter(moderation.channels), "")
        out = [_outcome(each, shown) for each in outcomes]
        return json_response(BulkOut(outcomes=out, progress=progress_out(queue.progress(name, by=by))))

    @router.post("/photos/{photo_id}/escalate", response_model=DecidedOut, summary="Escalate a photo")
    def escalate(photo_id: str, by: Reviewer, given: EscalateIn) -> Response:
        """Leave the decision to another person or an admin."""
        return decided(review.escalate(known_id(photo_id), by=by, comment=given.comment, seen=given.seen), by)

    @router.post("/photos/{photo_id}/undo", response_model=DecidedOut, summary="Take a decision back")
    def undo(photo_id: str, by: Reviewer) -> Response:
        """One of your last twenty, unless somebody decided since. You have the photo again if it waits."""
        return decided(review.undo(known_id(photo_id), by=by), by)

    @router.get("/photos/{photo_id}/context", response_model=ContextOut, summary="Everything beside a photo")
    def context(photo_id: str, by: Reviewer) -> Response:
        """History, the customer's other photos and refusals, reports and appeal."""
        found = moderation.context.of(known_id(photo_id), by=by)
        return json_response(ContextOut.of(found, moderation.policy_of(found.photo.channel)))

    return router


def _outcome(outcome: Outcome, shown: Callable[[ModerationPhoto], QueuePhotoOut]) -> OutcomeOut:
    error = outcome.error
    return OutcomeOut(
        id=outcome.photo_id,
        photo=None if outcome.photo is None else shown(outcome.photo),
        code=None if error is None else error.code,
        detail=None if error is None else public_detail(error, None),
    )
