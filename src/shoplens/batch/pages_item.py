"""The page of one returned photo: what it is, what became of it, and every correction as a plain form."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.batch.entities import BatchItem, ItemFilter, ItemState
from shoplens.batch.pages_words import MOST_CHOICES, keyed
from shoplens.db.ids import is_id
from shoplens.errors import ItemNotFound, PredictionNotFound
from shoplens.platform.server import Platform
from shoplens.predictions.entities import Feedback, PredictionRecord
from shoplens.web.rendering import PageRoute, page

FormText = Annotated[str, Form()]


def batch_item_pages(platform: Platform) -> APIRouter:
    """The page and its forms."""
    router = APIRouter(route_class=PageRoute)
    batch = platform.batch

    @router.get("/console/batch/returns/items/{item_id}")
    def one(item_id: str, said: str = "") -> HTMLResponse:
        item = batch.browse.item(_known(item_id))
        labels = sorted(batch.channel(item.channel).labels)
        return page(
            "batch_item.html",
            item=item,
            said=said,
            record=_record(platform, item),
            duplicates=batch.browse.duplicates(item),
            choices=keyed(labels) if len(labels) <= MOST_CHOICES else [],
            labels=labels,
            next_to_review=_next_doubtful(platform, item),
        )

    @router.post("/console/batch/returns/items/{item_id}/label")
    def correct(item_id: str, label: FormText = "", confirm: FormText = "") -> RedirectResponse:
        if confirm:
            batch.correct.confirm(_known(item_id))
        else:
            batch.correct.correct(_known(item_id), label)
        return _back(item_id, "corrected")

    @router.post("/console/batch/returns/items/{item_id}/retry")
    def retry(item_id: str) -> RedirectResponse:
        batch.correct.retry(_known(item_id))
        return _back(item_id, "retried")

    return router


def _record(platform: Platform, item: BatchItem) -> tuple[PredictionRecord, list[Feedback]] | None:
    """Its prediction with what people said of it; None where there is none."""
    if item.prediction_id is None:
        return None
    try:
        return platform.records.get(item.prediction_id)
    except PredictionNotFound:
        return None


def _next_doubtful(platform: Platform, item: BatchItem) -> BatchItem | None:
    """The doubtful photo of the same run that comes after this one in the gallery, else the first of all."""
    if item.run_id is None:
        return None
    wanted = ItemFilter(run_id=item.run_id, state=ItemState.NEEDS_REVIEW)
    after = platform.batch.browse.items(wanted, limit=1, before=item.seq).items
    found = after or platform.batch.browse.items(wanted, limit=2).items
    return next((each for each in found if each.id != item.id), None)


def _back(item_id: str, said: str) -> RedirectResponse:
    """Seen again by reloading, and never sent again by it."""
    return RedirectResponse(f"/console/batch/returns/items/{item_id}?said={said}", status_code=303)


def _known(item_id: str) -> str:
    if not is_id(item_id):
        raise ItemNotFound("There is no such photo. It may have been removed, or the address is incomplete.")
    return item_id
