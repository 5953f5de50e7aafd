"""GET and POST /batch/items/{id}…: one returned photo, what a person says of it, and another try."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from shoplens.batch.api_schemas import ItemOut, LabelIn, item_json
from shoplens.db.ids import is_id
from shoplens.errors import ItemNotFound, RequestInvalid
from shoplens.platform.server import Platform
from shoplens.predictions.api import photo_answer
from shoplens.predictions.image_store import ImageSize

_KEPT_S = 3600

ItemId = Annotated[str, Path(max_length=64, description="The item's id.")]


def returned_items_router(platform: Platform) -> APIRouter:
    """All routes on one item."""
    router = APIRouter(tags=["batch"])
    batch = platform.batch

    @router.get("/batch/items/{item_id}", response_model=ItemOut, summary="One returned photo")
    def one(item_id: ItemId) -> dict[str, Any]:
        """What it is, where it stands and why."""
        return item_json(batch.browse.item(_known(item_id)))

    @router.get(
        "/batch/items/{item_id}/photo",
        response_class=Response,
        responses={200: {"content": {"image/*": {}, "application/octet-stream": {}}}},
        summary="The photo of an item",
    )
    def photo(item_id: ItemId, size: ImageSize = ImageSize.VIEW) -> Response:
        """`thumbnail` and `view` are JPEG without metadata, `original` is as it arrived."""
        found = batch.browse.photo(_known(item_id), size)
        # Not for ever: of what could not be read, more may be shown after another try.
        return photo_answer(found, cache=f"private, max-age={_KEPT_S}")

    @router.post("/batch/items/{item_id}/label", response_model=ItemOut, summary="Say what it is")
    def label(item_id: ItemId, said: LabelIn) -> dict[str, Any]:
        """Either a `label` or `confirm`. The photo is in its new place when this answers; the last word counts."""
        if (said.label is not None) is said.confirm:
            raise RequestInvalid('Say either what it is, {"label": "dress"}, or that it is right, {"confirm": true}.')
        known = _known(item_id)
        item = batch.correct.confirm(known) if said.label is None else batch.correct.correct(known, said.label)
        return item_json(item)

    @router.post("/batch/items/{item_id}/retry", response_model=ItemOut, summary="Let it be tried again")
    def retry(item_id: ItemId) -> dict[str, Any]:
        """A photo that was set aside waits for the next run as if it had just arrived."""
        return item_json(batch.correct.retry(_known(item_id)))

    return router


def _known(item_id: str) -> str:
    if not is_id(item_id):
        raise ItemNotFound(f"{item_id!r} is not the id of an item.")
    return item_id
