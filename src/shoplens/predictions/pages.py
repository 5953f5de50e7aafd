"""The page Classify: a photo in, its labels out. Works as a plain form where no script runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.errors import (
    ImageMissing,
    ImageTooLarge,
    QueueFull,
    RequestInvalid,
    ShoplensError,
    UploadTooSlow,
)
from shoplens.platform.server import Platform, WebLimits
from shoplens.web.problems import status_of
from shoplens.web.rendering import PageRoute, page

_FRAMING_BYTES = 64 * 1024
_MOST_FORMS_AT_ONCE = 4
_RETRY_AFTER_S = 2.0
_SHOWN_LABELS = 10


def classify_router(platform: Platform) -> APIRouter:
    """The page and the form that it posts without a script."""
    router = APIRouter(route_class=PageRoute)
    forms = _Forms(platform.limits)

    @router.get("/")
    def show() -> HTMLResponse:
        return _page(platform, chosen=platform.default_channel)

    @router.post("/")
    async def classify(request: Request) -> Response:
        chosen = platform.default_channel
        try:
            with forms.admit(request):
                channel, photo = await forms.read(request)
                chosen = platform.classify.channel(channel).name
                record = await platform.classify(
                    photo, channel=chosen, top_k=_SHOWN_LABELS, timeout_s=platform.limits.deadline_s
                )
        except ShoplensError as error:
            return _page(platform, chosen=chosen, error=error)
        # Seen again by reloading, and never sent again by it.
        return RedirectResponse(f"/console/records/{record.id}", status_code=303)

    return router


def _page(platform: Platform, *, chosen: str, error: ShoplensError | None = None) -> HTMLResponse:
    return page(
        "classify.html",
        status=status_of(type(error)) if error else 200,
        channels=list(platform.channels.values()),
        chosen=chosen,
        error=str(error) if error else None,
        max_bytes=platform.limits.max_image_bytes,
    )


class _Forms:
    """Photos that arrive as plain forms: few at once, since people send them, and each within its bounds."""

    def __init__(self, limits: WebLimits) -> None:
        self._limits = limits
        self._free = _MOST_FORMS_AT_ONCE

    @contextmanager
    def admit(self, request: Request) -> Iterator[None]:
        """Let the request in. Raises QueueFull, ImageTooLarge, and RequestInvalid where no length is announced."""
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise RequestInvalid("The form does not say how long it is; send it with a browser, or use /predict.")
        if int(length) > self._limits.max_image_bytes + _FRAMING_BYTES:
            raise self._too_large()
        if self._free == 0:
            raise QueueFull("Too many photos are being sent. Try again in a moment.", retry_after_s=_RETRY_AFTER_S)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def read(self, request: Request) -> tuple[str | None, bytes]:
        """Channel and photo. Raises ImageMissing, ImageTooLarge, RequestInvalid and UploadTooSlow."""
        seconds = self._limits.upload_timeout_s
        try:
            async with asyncio.timeout(seconds), request.form(max_files=1, max_fields=4) as form:
                channel, file = form.get("channel"), form.get("file")
                photo = await file.read() if isinstance(file, UploadFile) else b""
        except TimeoutError as error:
            raise UploadTooSlow(f"The photo did not arrive within {seconds:g} s. Try again.") from error
        except HTTPException as error:
            raise RequestInvalid(f"The form cannot be read: {error.detail}") from error
        if not photo:
            raise ImageMissing("No photo was chosen. Choose one first, then classify.")
        if len(photo) > self._limits.max_image_bytes:
            raise self._too_large()
        return (channel if isinstance(channel, str) and channel else None), photo

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(
            f"The photo has more than {self._limits.max_image_bytes:,} bytes, which is the limit here."
        )
