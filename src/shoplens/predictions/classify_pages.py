"""The page Classify: a form for one photo, which a script makes a place for many; samples, and a welcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, principal_of
from shoplens.accounts.entities import Permission
from shoplens.errors import ImageMissing, RequestInvalid, ShoplensError
from shoplens.messages import marked
from shoplens.predictions import presenting
from shoplens.predictions.entities import Channel
from shoplens.predictions.photo_urls import PhotoUrls
from shoplens.predictions.policy import Policy
from shoplens.predictions.service import PredictionService
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import page
from shoplens.web.routing import page_router
from shoplens.web.shares import address_of
from shoplens.web.uploads import FORM_FRAMING_BYTES, UploadedForm, Uploads, photo_too_large

CHANNEL_COOKIE: Final = "shoplens_channel"
"""The channel that was used last in this browser; a script sets it."""
WELCOME_COOKIE: Final = "shoplens_welcome"
_LASTS_S: Final = 365 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePhoto:
    """A photo to try; `file` is a static file."""

    title: str
    file: str


SAMPLES: Final = (
    SamplePhoto(title=marked("A dress"), file="samples/dress.jpg"),
    SamplePhoto(title=marked("A jacket"), file="samples/jacket.jpg"),
    SamplePhoto(title=marked("Loafers"), file="samples/loafers.jpg"),
)


def classify_pages(
    predictions: PredictionService,
    uploads: Uploads,
    *,
    photo_urls: PhotoUrls,
    channels: Mapping[str, Channel],
    policy_of: Callable[[str], Policy],
    console_channel: str,
    max_image_bytes: int,
    deadline_s: float,
) -> APIRouter:
    """The page, and the form that it posts without a script."""
    router = page_router()

    def classify_page(request: Request, chosen: str, *, status: int = 200, error: str | None = None) -> HTMLResponse:
        return page(
            "classify.html",
            status=status,
            channels=list(channels.values()),
            policy_of=policy_of,
            chosen=chosen,
            error=error,
            max_bytes=max_image_bytes,
            takes_urls=photo_urls.is_on,
            samples=SAMPLES,
            is_welcome=WELCOME_COOKIE not in request.cookies,
        )

    @router.get("/", dependencies=[guarded(Permission.RECORDS_READ)])
    def show(request: Request, welcome: str = "") -> Response:
        if not principal_of(request).may(Permission.PREDICT):
            return RedirectResponse("/console/records", status_code=303)
        if welcome == "hide":
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(WELCOME_COOKIE, "seen", max_age=_LASTS_S, httponly=True, samesite="strict")
            return answer
        return classify_page(request, _remembered(request, channels, console_channel))

    @router.post("/", dependencies=[guarded(Permission.PREDICT)])
    async def post(request: Request) -> Response:
        chosen = _remembered(request, channels, console_channel)
        try:
            async with uploads.form(
                request, max_bytes=max_image_bytes + FORM_FRAMING_BYTES, max_files=2, max_fields=4
            ) as form:
                wanted = predictions.channel(form.fields.get("channel") or chosen)
                chosen = wanted.name
                photo, file_name = await _photo_in(form, photo_urls)
                if len(photo) > max_image_bytes:
                    raise photo_too_large(len(photo), max_image_bytes)
                record = await predictions.classify(
                    photo,
                    file_name=file_name,
                    channel=wanted,
                    top_k=presenting.SHOWN_LABELS,
                    timeout_s=deadline_s,
                    client=address_of(request),
                )
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return await asyncio.to_thread(  # it may read thresholds from the database
                classify_page, request, chosen, status=status_of(type(error)), error=detail
            )
        # A redirect, so that reloading the page does not upload the photo again.
        answer = RedirectResponse(f"/console/records/{record.id}", status_code=303)
        answer.set_cookie(CHANNEL_COOKIE, chosen, max_age=_LASTS_S, samesite="strict")
        return answer

    return router


def _remembered(request: Request, channels: Mapping[str, Channel], console_channel: str) -> str:
    """The channel in the address, such as a link to try a model; else the one that this browser used last."""
    names = (request.query_params.get("channel", ""), request.cookies.get(CHANNEL_COOKIE, ""))
    return next((name for name in names if name in channels), console_channel)


async def _photo_in(form: UploadedForm, photo_urls: PhotoUrls) -> tuple[bytes, str | None]:
    """The photo of a form, or at the address in it, and how it is called. Raises ImageMissing and RequestInvalid."""
    if len(form.files) > 1:
        raise RequestInvalid("Without JavaScript, upload one photo at a time.")
    url = form.fields.get("url", "").strip()
    photo = await form.files[0].read() if form.files else b""
    if url and not photo:
        return await photo_urls.fetch(url), unquote(url.partition("?")[0])
    if not photo:
        raise ImageMissing("Choose a photo first.")
    return photo, form.files[0].filename
