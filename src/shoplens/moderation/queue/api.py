"""The JSON API of the people who decide photos: the queue, claims, decisions, undo, and shoppers' reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.db.tables import is_id
from shoplens.moderation.entities import (
    ModerationPhoto,
    Moderator,
    PhotoState,
    QueueReason,
    View,
)
from shoplens.moderation.errors import PhotoNotFound
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.service import MAX_REPORT, MOST_CLAIMED, Progress
from shoplens.moderation.service import Moderation
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

Reviewer = Annotated[Principal, Depends(requires(Permission.MODERATION_REVIEW))]
PhotoId = Annotated[str, Field(max_length=64, examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])]


class SignalOut(Schema):
    """One score, and from which scores on the policy asks a person or refuses."""

    name: str = Field(examples=["nsfw"])
    score: float = Field(examples=[0.42])
    version: str = Field(examples=["opennsfw@1.0.1"])
    detail: str | None
    review_at: float | None = Field(examples=[0.2])
    reject_at: float | None = Field(examples=[0.85])


class QueuePhotoOut(Schema):
    """A photo as moderators see it."""

    id: PhotoId
    created_at: datetime
    channel: str
    state: PhotoState
    queue: QueueReason | None = Field(description="Why it waits for a person; null if it does not.")
    rule: str | None = Field(examples=["nsfw 0.42 is at least 0.2"])
    reason: str | None
    signals: list[SignalOut]
    customer: str | None
    product: str | None
    order: str | None
    review: str | None
    width: int
    height: int
    reports: int
    revision: int = Field(description="Send it back as `seen` with your decision.")
    claimed_until: datetime | None

    @classmethod
    def of(cls, photo: ModerationPhoto, policy: ModerationPolicy) -> Self:
        """The photo with the bands that apply now."""
        bands = {band.signal: band for band in policy.bands}
        signals = [
            SignalOut(
                name=each.name,
                score=each.score,
                version=each.version,
                detail=each.detail,
                review_at=bands[each.name].review_at if each.name in bands else None,
                reject_at=bands[each.name].reject_at if each.name in bands else None,
            )
            for each in photo.signals
        ]
        same = ("id", "created_at", "channel", "state", "queue", "rule", "reason", "reports", "revision")
        return cls(
            **{name: getattr(photo, name) for name in same},
            **{name: getattr(photo.ref, name) for name in ("customer", "product", "order", "review")},
            signals=signals,
            width=photo.image.width,
            height=photo.image.height,
            claimed_until=photo.claimed_until,
        )


class ProgressOut(Schema):
    """How the work goes. Waiting photos are counted up to 10,000."""

    waiting: int
    with_others: int = Field(description="How many of them somebody else looks at now.")
    today: int = Field(description="How many you decided since midnight UTC.")
    per_minute: float | None = Field(description="Your pace of the last minutes.")
    agreed: int = Field(description="In so many second opinions you and another person decided the same.")
    compared: int = Field(description="Of so many.")
    pause: int | None = Field(description="So many hard photos within an hour: time for a pause. Null if not.")


class QueueOut(Schema):
    """What waits for you, the next first."""

    photos: list[QueuePhotoOut]
    progress: ProgressOut


class ClaimsIn(BodySchema):
    """Which photos you want to have for two minutes."""

    channel: str | None = Field(default=None, description="Only needed where several channels have a moderation side.")
    count: int = Field(default=1, ge=0, le=MOST_CLAIMED, description="How many photos you want to have in all.")
    holding: list[PhotoId] = Field(default=[], max_length=MOST_CLAIMED, description="Claims to renew.")
    release: list[PhotoId] = Field(default=[], max_length=MOST_CLAIMED, description="Photos that others may have.")


class ClaimsOut(QueueOut):
    """What you have now. `lost` are photos of `holding` that somebody else has, or that are decided."""

    lost: list[str]


class ReportIn(BodySchema):
    """What a shopper says against a published photo."""

    reason: str | None = Field(default=None, max_length=MAX_REPORT, examples=["This shows a person's address."])


class ReportOut(Schema):
    """The report was stored."""

    photo_id: str


class ModeratorIn(BodySchema):
    """How you want to see photos, and when a pause is suggested."""

    view: View = View.BLUR
    pause_after: int | None = Field(default=20, ge=1, le=1000, description="Hard photos within an hour; null: never.")
    letters: bool = Field(default=True, description="Whether single letters are keys of the page.")
    paused: bool = Field(default=False, description="You had, or declined, a pause: the count starts again.")


class ModeratorOut(Schema):
    """What you have chosen."""

    view: View
    pause_after: int | None
    letters: bool


def progress_out(progress: Progress) -> ProgressOut:
    """How the work goes, with a pace of one decimal."""
    out = ProgressOut.model_validate(progress)
    out.per_minute = None if out.per_minute is None else round(out.per_minute, 1)
    return out


def queue_router(moderation: Moderation) -> APIRouter:
    """What people do with photos."""
    router = api_router(prefix="/moderation", tags=["moderation"])
    queue = moderation.queue

    def shown(photo: ModerationPhoto) -> QueuePhotoOut:
        return QueuePhotoOut.of(photo, moderation.policy_of(photo.channel))

    @router.get("/queue", response_model=QueueOut, summary="What waits for me")
    def get_queue(
        by: Reviewer, channel: str | None = None, limit: Annotated[int, Query(ge=1, le=MOST_CLAIMED)] = 20
    ) -> Response:
        """The photos that you would get next, without claiming them, and how the work goes."""
        name = moderation.channel(channel).name
        photos = [shown(each) for each in queue.peek(name, by=by, limit=limit)]
        return json_response(QueueOut(photos=photos, progress=progress_out(queue.progress(name, by=by))))

    @router.post("/claims", response_model=ClaimsOut, summary="Claim photos")
    def claim(by: Reviewer, wanted: ClaimsIn) -> Response:
        """Have photos for two minutes: nobody else gets or can decide them. Claim again to renew."""
        name = moderation.channel(wanted.channel).name
        claimed = queue.claim(name, by=by, count=wanted.count, holding=wanted.holding, release=wanted.release)
        photos = [shown(each) for each in claimed.photos]
        progress = progress_out(queue.progress(name, by=by))
        return json_response(ClaimsOut(photos=photos, lost=claimed.lost, progress=progress))

    @router.post("/photos/{photo_id}/skip", response_model=ProgressOut, summary="Skip a photo")
    def skip(photo_id: str, by: Reviewer) -> Response:
        """Put the photo at the end of your queue; others may have it at once."""
        queue.skip(known_id(photo_id), by=by)
        return json_response(progress_out(queue.progress(moderation.photos.get(photo_id).channel, by=by)))

    @router.put("/moderator", response_model=ModeratorOut, summary="Choose how to see photos")
    def choose(by: Reviewer, given: ModeratorIn) -> Response:
        """Kept for you on the server."""
        chosen = Moderator(principal_id=by.id, **given.model_dump(exclude={"paused"}))
        return json_response(ModeratorOut.model_validate(queue.choose(chosen, paused=given.paused)))

    @router.post(
        "/photos/{photo_id}/report",
        response_model=ReportOut,
        status_code=202,
        summary="Report a published photo",
        dependencies=[guarded(Permission.MODERATION_SUBMIT)],
    )
    def report(photo_id: str, given: ReportIn) -> Response:
        """A shopper's report raises the photo in the queue; after a few of them it is hidden until a person decides."""
        queue.report(known_id(photo_id), reason=given.reason)
        return json_response(ReportOut(photo_id=photo_id), status=202)

    return router


def known_id(photo_id: str) -> str:
    """Raises PhotoNotFound for what cannot be an id."""
    if not is_id(photo_id):
        raise PhotoNotFound(f"There is no photo {photo_id[:64]!r}.")
    return photo_id
