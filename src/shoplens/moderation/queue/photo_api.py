"""The pictures that moderators see: a photo in two sizes, and the heat map of what a model saw in it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.errors import BlobNotFound, ImageNotKept
from shoplens.moderation.media import Format, Width
from shoplens.moderation.queue.api import known_id
from shoplens.moderation.queue.heatmap import Which
from shoplens.moderation.repository import StoredImage
from shoplens.moderation.service import Moderation
from shoplens.web.routing import api_router

_HEADERS = {"Cache-Control": "private, max-age=600"}
"""A photo does not change; ten minutes are enough for what was fetched ahead."""
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "A JPEG without metadata."}
}
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}, "description": "A PNG to lay over the photo."}
}


class PhotoSize(StrEnum):
    """`thumbnail` is 320 pixels wide, `view` 1280; never wider than the photo."""

    THUMBNAIL = "thumbnail"
    VIEW = "view"


_WIDTHS = {PhotoSize.THUMBNAIL: Width.W320, PhotoSize.VIEW: Width.W1280}


def photo_router(moderation: Moderation) -> APIRouter:
    """Photos in any state, for people who review."""
    router = api_router(
        prefix="/moderation", tags=["moderation"], dependencies=[guarded(Permission.MODERATION_REVIEW)]
    )  # fmt: skip

    @router.get("/photos/{photo_id}/image", response_class=Response, responses=_JPEG, summary="A photo for moderators")
    def get_image(photo_id: str, size: PhotoSize = PhotoSize.VIEW) -> Response:
        """The photo in any state. 404 `image_not_kept` once its files are deleted."""
        image = StoredImage.of(moderation.photos.get(known_id(photo_id)))
        try:
            if image is None:
                raise BlobNotFound(photo_id)
            data = moderation.media.copy(image, width=_WIDTHS[size], kind=Format.JPEG)
        except BlobNotFound as error:
            raise ImageNotKept(f"The photo {photo_id} was deleted; its history is kept.") from error
        return Response(data, media_type="image/jpeg", headers=_HEADERS)

    @router.get("/photos/{photo_id}/heatmap", response_class=Response, responses=_PNG, summary="What the model saw")
    def get_heatmap(
        photo_id: str,
        model: Annotated[Which, Query(description="The moderation model or the general one.")] = "moderation",
        signal: Annotated[
            str | None, Query(max_length=80, description="Unset: the one most above its threshold.")
        ] = None,
    ) -> Response:
        """Where the photo speaks for a signal, from its model's last feature map. 422 for a model without one."""
        photo = moderation.photos.get(known_id(photo_id))
        try:
            data = moderation.heat_maps.of(photo, model=model, signal=signal)
        except BlobNotFound as error:
            raise ImageNotKept(f"The photo {photo_id} was deleted; its history is kept.") from error
        return Response(data, media_type="image/png", headers=_HEADERS)

    return router
