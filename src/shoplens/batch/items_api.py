"""The JSON API of batch items: one item, its photo, and what people do with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded, note, require, reviewer_of
from shoplens.accounts.entities import Permission
from shoplens.batch.api import ItemOut
from shoplens.batch.looks import MOST_ITEMS
from shoplens.batch.review import ItemAnswer
from shoplens.batch.service import Batch
from shoplens.db.tables import is_id
from shoplens.errors import ItemNotFound, RequestInvalid
from shoplens.predictions.api import photo_answer
from shoplens.predictions.entities import Answer
from shoplens.predictions.image_store import ImageSize
from shoplens.web.browser import COOKIE
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

Seen = Annotated[
    int | None,
    Field(
        default=None,
        ge=0,
        description="The `revision` that you were shown: 409 `item_changed` if it has changed since. Optional.",
    ),
]


class LabelIn(BodySchema):
    """One answer: a label; or that the predicted one is correct, that none fits, or that the photo is not usable."""

    label: str | None = Field(default=None, max_length=200, examples=["skirt"])
    confirm: bool = Field(default=False, description="The predicted label is correct.")
    none_of_these: bool = Field(default=False, description="None of the categories fits. It is not used for training.")
    proposed: str | None = Field(
        default=None, max_length=200, description="With `none_of_these`: the category that is missing.",
        examples=["scarf"],
    )  # fmt: skip
    not_usable: bool = Field(default=False, description="Dismiss it: the photo shows nothing that could be labelled.")
    seen: Seen

    def answer(self, by: str | None) -> ItemAnswer:
        """The answer of the browser `by`. Raises RequestInvalid unless it is exactly one."""
        chosen = {
            Answer.CORRECTED: self.label is not None,
            Answer.CONFIRMED: self.confirm,
            Answer.NONE_OF_THESE: self.none_of_these,
            Answer.NOT_USABLE: self.not_usable,
        }
        given = [answer for answer, said in chosen.items() if said]
        if len(given) != 1 or (self.proposed is not None and not self.none_of_these):
            raise RequestInvalid(
                'Send one answer: {"label": "dress"}, {"confirm": true}, {"none_of_these": true, "proposed": "scarf"} '
                'or {"not_usable": true}.'
            )
        return ItemAnswer(answer=given[0], label=self.label, proposed=self.proposed, seen=self.seen, by=by)


class LookIn(BodySchema):
    """What a person is about to look at, in their order."""

    items: list[str] = Field(max_length=MOST_ITEMS, description="Ids of items; none to look at nothing any more.")


class LookOut(Schema):
    """Who looks at what. A look lasts a minute; ask again to renew it."""

    item: str | None = Field(description="The first of the items that needs review and that nobody else looks at.")
    held: list[str] = Field(description="Items that others look at.")
    settled: list[ItemOut] = Field(description="Items that need no review any more, as they are now.")


class SeenIn(BodySchema):
    """The revision of the item that the person was shown."""

    seen: Seen


def _known_item(item_id: Annotated[str, Path(max_length=64, description="The item's id.")]) -> str:
    if not is_id(item_id):
        raise ItemNotFound(f"{item_id!r} is not the id of an item.")
    return item_id


ItemId = Annotated[str, Depends(_known_item)]


def _browser(request: Request) -> str:
    number = reviewer_of(request)
    if number is None:
        raise RequestInvalid(f"Send the cookie {COOKIE}: 32 hexadecimal digits that no other client has.")
    return number


def items_router(batch: Batch) -> APIRouter:
    """/batch/items/ID…: one item, its photo and its label."""
    router = api_router(tags=["batch"])
    reading = [guarded(Permission.BATCH_READ)]
    reviewing = [guarded(Permission.BATCH_REVIEW)]

    @router.get("/batch/items/{item_id}", dependencies=reading, response_model=ItemOut, summary="One item")
    def one(item_id: ItemId) -> Response:
        """Its state, its label and its failure, if any."""
        return json_response(ItemOut.of(batch.browse.item(item_id)))

    @router.get(
        "/batch/items/{item_id}/photo",
        dependencies=reading,
        response_class=Response,
        responses={200: {"content": {"image/*": {}, "application/octet-stream": {}}}},
        summary="The photo of an item",
    )
    def photo(request: Request, item_id: ItemId, size: ImageSize = ImageSize.VIEW) -> Response:
        """`thumbnail` and `view` are JPEG without metadata, `original` is as it arrived.

        Those of a channel that moderates need `moderation:review`.
        """
        require(request, batch.photos_need(batch.browse.item(item_id).channel))
        return photo_answer(request, batch.browse.photo(item_id, size))

    @router.post(
        "/batch/items/{item_id}/label", dependencies=reviewing, response_model=ItemOut, summary="Answer for an item"
    )
    def label(request: Request, item_id: ItemId, body: LabelIn) -> Response:
        """One answer. The last one counts. The photo has been moved when this responds.

        Responds 409 `item_changed` if somebody else changed the item since the revision in `seen`.
        """
        return json_response(ItemOut.of(batch.review.answer(item_id, body.answer(reviewer_of(request)))))

    @router.post(
        "/batch/items/{item_id}/reopen",
        dependencies=reviewing,
        response_model=ItemOut,
        summary="Withdraw the answers for an item",
    )
    def reopen(request: Request, item_id: ItemId, body: SeenIn | None = None) -> Response:
        """State, label and place are again as the run left them; the feedback is withdrawn, so nothing trains on it."""
        seen = body.seen if body else None
        reopened = batch.review.reopen(item_id, seen=seen, by=reviewer_of(request))
        note(request, "feedback.withdrawn", target=item_id)
        return json_response(ItemOut.of(reopened))

    @router.post("/batch/looks", dependencies=reviewing, response_model=LookOut, summary="Look at an item")
    def look(request: Request, body: LookIn) -> Response:
        """Spread several people over the photos. It needs the cookie that the pages set; an answer needs no look."""
        found = batch.looks.look(body.items, browser=_browser(request))
        settled = [ItemOut.of(item) for item in found.settled]
        return json_response(LookOut(item=found.item_id, held=list(found.held), settled=settled))

    @router.post("/batch/items/{item_id}/skip", dependencies=reviewing, response_model=ItemOut, summary="Skip an item")
    def skip(request: Request, item_id: ItemId) -> Response:
        """It goes to the end of this browser's queue, and stays where it is for others."""
        return json_response(ItemOut.of(batch.looks.skip(item_id, browser=_browser(request))))

    @router.post(
        "/batch/items/{item_id}/retry",
        dependencies=reviewing,
        response_model=ItemOut,
        summary="Retry a quarantined item",
    )
    def retry(item_id: ItemId) -> Response:
        """The item that waits for the next run: a new one, since the finished run keeps this one as it is.

        Responds 409 `item_not_ready` for a file that another attempt cannot help, such as a damaged one.
        """
        return json_response(ItemOut.of(batch.review.retry(item_id)))

    @router.delete(
        "/batch/items/{item_id}/photo",
        dependencies=reviewing,
        response_model=ItemOut,
        summary="Delete a quarantined file",
    )
    def delete(request: Request, item_id: ItemId) -> Response:
        """The item is dismissed and its photo is deleted from the store. This cannot be undone."""
        deleted = batch.review.delete(item_id, by=reviewer_of(request))
        note(request, "photo.deleted", target=item_id)
        return json_response(ItemOut.of(deleted))

    return router
