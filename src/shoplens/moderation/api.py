"""JSON routes for the shop: send photos, ask for their state; and the public copies of published photos."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import public, requires
from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.db.tables import is_id
from shoplens.errors import RequestInvalid
from shoplens.moderation.entities import ModerationPhoto, PhotoState, References, UnusablePhoto
from shoplens.moderation.errors import PhotoNotFound
from shoplens.moderation.intake.service import MOST_PHOTOS, IntakeRequest
from shoplens.moderation.media import Format, Width
from shoplens.moderation.photos import MAX_PAGE
from shoplens.moderation.previews import PreviewLinks
from shoplens.moderation.queue.service import blinded
from shoplens.moderation.reasons import Reason
from shoplens.moderation.repository import PhotoFilter
from shoplens.moderation.service import Moderation
from shoplens.web.problems import problem_of, request_id_of
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response
from shoplens.web.uploads import FILE_FIELD, Uploads

REFERENCE_FIELDS: Final = {
    "customer": "Who sends the photos. Erasure, strikes and duplicates go by it.",
    "product": "What the photos show.",
    "order": "The order that they belong to.",
    "review": "The review that they belong to.",
}
_CHANNEL_FIELD: Final = "channel"
_EXAMPLE_ID: Final = "01k9hzv3m5x4q8d0j7w2r6t9ab"
_SENTENCES: Final = {
    PhotoState.PUBLISHED: "Your photo is visible now.",
    PhotoState.HELD: "Your photo will be visible after a check.",
    PhotoState.REFUSED: "Your photo cannot be shown.",
}
_WEBP: Final = re.compile(r"image/webp(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))")
_PRIVATE: Final = {"Cache-Control": "private, no-store", "Vary": "Accept"}
_MEDIA_HEADERS: Final = {
    "Vary": "Accept",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    # Pages of the shop show the photos.
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class PhotoReferencesOut(Schema):
    """What the shop calls things; each may be unknown."""

    customer: str | None = Field(examples=["c-1042"])
    product: str | None = Field(examples=["4711"])
    order: str | None = Field(examples=["100234"])
    review: str | None = Field(examples=["r-88"])


class PhotoOut(Schema):
    """A shopper's photo and whether the public sees it."""

    id: str = Field(examples=[_EXAMPLE_ID])
    created_at: datetime
    channel: str = Field(examples=["reviews"])
    references: PhotoReferencesOut
    state: PhotoState
    sentence: str = Field(description="What to tell the shopper.", examples=["Your photo is visible now."])
    reason: str | None = Field(description="The code of the reason of a refusal, if it has one.", examples=["nudity"])
    decided_at: datetime
    link: str = Field(description="Its state.", examples=[f"/moderation/photos/{_EXAMPLE_ID}"])
    media: str | None = Field(description="The photo itself, once it is public.", examples=[f"/media/{_EXAMPLE_ID}"])

    @classmethod
    def of(cls, photo: ModerationPhoto, reasons: tuple[Reason, ...]) -> Self:
        """The `photo` as the shop may see it; `reasons` are those of its channel."""
        return cls(
            id=photo.id,
            created_at=photo.created_at,
            channel=photo.channel,
            references=PhotoReferencesOut.model_validate(photo.ref),
            state=photo.state,
            sentence=sentence_of(photo, reasons),
            reason=photo.reason if photo.state is PhotoState.REFUSED else None,
            decided_at=photo.decided_at,
            link=f"/moderation/photos/{photo.id}",
            media=f"/media/{photo.id}" if photo.state is PhotoState.PUBLISHED else None,
        )


class TakenPhotoOut(Schema):
    """What became of one photo of a request. One that could not be decoded has no id: nothing of it is stored."""

    id: str | None = Field(examples=[_EXAMPLE_ID])
    state: PhotoState
    sentence: str = Field(examples=["Your photo will be visible after a check."])
    reason: str | None = Field(description="The code of the reason of a refusal, if it has one.", examples=["nudity"])
    link: str | None = Field(description="Its state.", examples=[f"/moderation/photos/{_EXAMPLE_ID}"])
    media: str | None = Field(description="The photo itself, once it is public.", examples=[f"/media/{_EXAMPLE_ID}"])
    preview: str | None = Field(
        description="The photo for its shopper alone, until `preview_minutes` after the upload, also while it is held.",
        examples=[f"/media/{_EXAMPLE_ID}?w=320&preview=1795323600.0aS3"],
    )

    @classmethod
    def of(cls, taken: ModerationPhoto | UnusablePhoto, reasons: tuple[Reason, ...], *, previews: PreviewLinks) -> Self:
        """The outcome of one photo."""
        if isinstance(taken, ModerationPhoto):
            shown = PhotoOut.of(taken, reasons)
            return cls(
                id=shown.id,
                state=shown.state,
                sentence=shown.sentence,
                reason=shown.reason,
                link=shown.link,
                media=shown.media,
                preview=previews.address(taken),
            )
        return cls(
            id=None,
            state=PhotoState.REFUSED,
            sentence=taken.detail,
            reason=taken.code,
            link=None,
            media=None,
            preview=None,
        )


class IntakeOut(Schema):
    """The photos of one request, in their order."""

    id: str = Field(examples=[_EXAMPLE_ID])
    photos: list[TakenPhotoOut]


class PhotoPageOut(Schema):
    """A page, newest first; `older` is the value of `before` for the next one."""

    items: list[PhotoOut]
    older: str | None


_INTAKE_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILE_FIELD],
                    "properties": {
                        FILE_FIELD: {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": MOST_PHOTOS,
                        },
                        **{
                            name: {"type": "string", "maxLength": 200, "description": text}
                            for name, text in REFERENCE_FIELDS.items()
                        },
                        _CHANNEL_FIELD: {"type": "string", "description": "Only where several channels moderate."},
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "required": False,
            "schema": {"type": "string", "maxLength": 255},
            "description": "A new text for each request. The same request with the same key is taken in only once.",
        }
    ],
}


def sentence_of(photo: ModerationPhoto, reasons: tuple[Reason, ...]) -> str:
    """What a shopper reads of the state of a photo."""
    sentence = _SENTENCES[photo.state]
    why = next((each.sentence for each in reasons if each.code == photo.reason), None)
    return f"{sentence} {why}" if photo.state is PhotoState.REFUSED and why else sentence


def photo_filter(
    channel: Annotated[str | None, Query(max_length=100)] = None,
    state: PhotoState | None = None,
    customer: Annotated[str | None, Query(max_length=200)] = None,
    product: Annotated[str | None, Query(max_length=200)] = None,
) -> PhotoFilter:
    """The filter in the query of a request."""
    return PhotoFilter(channel=channel, state=state, customer=customer, product=product)


Reader = Annotated[Principal, Depends(requires(Permission.MODERATION_SUBMIT, Permission.MODERATION_REVIEW))]


def moderation_router(moderation: Moderation, uploads: Uploads) -> APIRouter:
    """POST /moderation/photos, and the states of photos."""
    router = api_router(tags=["moderation"])

    def seen(photo: ModerationPhoto, by: Principal) -> PhotoOut:
        channel = moderation.channels.get(photo.channel)
        # Who may give a second opinion sees nothing of the first; the shop sees what is true.
        of_shop = by.kind is not PrincipalKind.PERSON and by.may(Permission.MODERATION_SUBMIT)
        return PhotoOut.of(photo if of_shop else blinded(photo), () if channel is None else channel.reasons)

    @router.post(
        "/moderation/photos",
        status_code=201,
        response_model=None,
        responses={201: {"model": IntakeOut}},
        openapi_extra=_INTAKE_BODY,
        operation_id="submit_photos",
        summary="Send photos of a shopper",
    )
    async def submit(
        request: Request, principal: Annotated[Principal, Depends(requires(Permission.MODERATION_SUBMIT))]
    ) -> Response:
        """When this returns 201, each photo is stored and decided. A photo that cannot be decoded is refused; the
        others of the request are taken in. The answer to a repeated request has the header `Idempotent-Replayed`.
        """
        fields = (*REFERENCE_FIELDS, _CHANNEL_FIELD)
        async with uploads.photos(request, most=MOST_PHOTOS, max_fields=len(fields)) as sent:
            if unknown := sent.fields.keys() - set(fields):
                known = ", ".join((FILE_FIELD, *fields))
                raise RequestInvalid(f"The form has an unknown field {min(unknown)[:100]!r}; known are {known}.")
            channel = moderation.channel(sent.fields.get(_CHANNEL_FIELD) or None)
            wanted = IntakeRequest(
                photos=tuple(sent.photos),
                ref=References(**{name: sent.fields.get(name) or None for name in REFERENCE_FIELDS}),
                caller=principal.id,
                idempotency_key=request.headers.get("idempotency-key"),
            )
            await asyncio.to_thread(moderation.previews.prepare)
            answer = await moderation.intake.take(wanted, channel=channel)
        photos = [TakenPhotoOut.of(each, channel.reasons, previews=moderation.previews) for each in answer.photos]
        response = json_response(IntakeOut(id=answer.intake.id, photos=photos), status=201)
        if answer.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    @router.get(
        "/moderation/photos",
        response_model=PhotoPageOut,
        summary="A page of shoppers' photos, newest first",
    )
    def page(
        by: Reader,
        wanted: Annotated[PhotoFilter, Depends(photo_filter)],
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        """Page by the cursor `older` of the response. For the shop, and for people who review."""
        if before is not None and not is_id(before):
            raise RequestInvalid(f"{before!r} is not a cursor. Use `older` of a page.")
        found = moderation.photos.page(wanted, limit=limit, before=before)
        items = [seen(each, by) for each in found.photos]
        return json_response(PhotoPageOut(items=items, older=found.older))

    @router.get(
        "/moderation/photos/{photo_id}",
        response_model=PhotoOut,
        summary="The state of a shopper's photo",
    )
    def one(by: Reader, photo_id: Annotated[str, Path(max_length=64)]) -> Response:
        """Whether the public sees it, and if not, what to tell the shopper. For the shop, and for people who review."""
        return json_response(seen(moderation.photos.get(photo_id), by))

    return router


def media_router(moderation: Moderation, *, max_age_s: int) -> APIRouter:
    """GET /media/{id}: for everybody. A browser may keep a published photo for `max_age_s` seconds."""
    router = api_router(tags=["media"], dependencies=[public])

    @router.get(
        "/media/{photo_id}",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}, "image/webp": {}}}},
        operation_id="get_media",
        summary="A published photo",
    )
    def media(
        request: Request,
        photo_id: Annotated[str, Path(max_length=64)],
        w: Width = Width.W1280,
        preview: Annotated[str | None, Query(description="Of the address `preview` of an upload.")] = None,
    ) -> Response:
        """JPEG, or WebP for clients that accept it, without metadata. 404 for a photo that is not published.

        With a valid `preview` the shopper sees a held photo too; with any other one every photo is a 404.
        """
        kind = Format.WEBP if _WEBP.search(request.headers.get("accept", "")) else Format.JPEG
        try:
            if preview is not None:
                if not moderation.previews.opens(photo_id, preview):
                    raise PhotoNotFound("There is no published photo with this id.")
                found = moderation.media.previewed(photo_id, width=w, kind=kind)
                return Response(found.load(), media_type=kind.media_type, headers={**_MEDIA_HEADERS, **_PRIVATE})
            found = moderation.media.published(photo_id, width=w, kind=kind)
            headers = {**_MEDIA_HEADERS, "Cache-Control": f"public, max-age={max_age_s}", "ETag": f'"{found.etag}"'}
            if found.etag in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            return Response(found.load(), media_type=kind.media_type, headers=headers)
        except PhotoNotFound as error:
            refused = problem_of(error, request_id=request_id_of(request))
            refused.headers.update(_PRIVATE)
            return refused

    return router
