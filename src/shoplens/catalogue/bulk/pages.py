"""The page on which many suggestions are accepted at once: above a confidence, with progress, and taken back as one."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, note, remember_browser, told_apart
from shoplens.accounts.entities import Permission, Principal
from shoplens.catalogue.entities import BulkJob, ProductState
from shoplens.catalogue.errors import BulkNotFound
from shoplens.catalogue.numbers.service import ConfidencePoint
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName, FormText
from shoplens.catalogue.repository import ProductFilter, ProductOrder
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.db.tables import is_id
from shoplens.messages import gettext, localised, whole_number
from shoplens.web.rendering import add_filters
from shoplens.web.routing import page_router

_EXAMPLES: Final = 6
_WAITED_S: Final = 1.0
"""For so long the answer to a form waits: most acceptances have ended by then, also where no script runs."""


def accuracy_words(point: ConfidencePoint) -> str:
    """How many of the suggestions in a range were right, as far as people decided."""
    if point.accuracy is None:
        return gettext("People have decided none in this range yet, so nothing says how many are right.")
    return gettext(
        "People decided %(decided)s in this range; right: %(right)s (%(accuracy)s).",
        decided=whole_number(point.decided),
        right=whole_number(point.right),
        accuracy=localised(f"{point.accuracy:.1%}"),
    )


add_filters(accuracy_words)


def accept_pages(catalogue: Catalogue) -> APIRouter:
    """Accept many suggestions at once, follow it, and take that back."""
    router = page_router(dependencies=[guarded(Permission.CATALOGUE_WRITE)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/accept")
    def show(
        request: Request,
        channel: ChannelName = "",
        at_least: Annotated[float, Query(ge=0, le=1)] = 0.9,
        job: Annotated[str, Query(max_length=64)] = "",
    ) -> HTMLResponse:
        by, chosen = told_apart(request), pages.channel(channel)
        newest = catalogue.bulk.newest(chosen.name)
        shown = pages.page(
            "catalogue_accept.html",
            chosen,
            **_choice(catalogue, pages, chosen, round(at_least, 2)),
            **_latest(catalogue, newest, by, job),
        )
        remember_browser(shown, request, by)
        return shown

    @router.post(f"{HOME}/accept")
    def accept(
        request: Request, at_least: Annotated[float, Form(ge=0, le=1)], channel: FormText = ""
    ) -> RedirectResponse:
        by, chosen = told_apart(request), pages.channel(channel)
        job = catalogue.bulk.start(ProductFilter(channel=chosen.name, min_score=at_least), by=by)
        note(request, "catalogue.accepted_many", target=job.id, channel=chosen.name, planned=job.planned)
        catalogue.bulk.wait(job, _WAITED_S)
        answer = pages.back("/accept", chosen, at_least=str(at_least), job=job.id)
        remember_browser(answer, request, by)
        return answer

    @router.post(f"{HOME}/accept/undo")
    def undo(request: Request, bulk: FormText, channel: FormText = "") -> RedirectResponse:
        chosen = pages.channel(channel)
        job = catalogue.bulk.undo(bulk, by=told_apart(request))
        note(request, "catalogue.took_back_many", target=bulk, channel=chosen.name, planned=job.planned)
        catalogue.bulk.wait(job, _WAITED_S)
        return pages.back("/accept", chosen, job=job.id)

    @router.post(f"{HOME}/accept/cancel")
    def cancel(request: Request, bulk: FormText, channel: FormText = "") -> RedirectResponse:
        chosen = pages.channel(channel)
        job = catalogue.bulk.cancel(bulk, by=told_apart(request))
        return pages.back("/accept", chosen, job=job.id)

    @router.get(f"{HOME}/accept/{{job_id}}/live.json")
    def live(job_id: str) -> Response:
        if not is_id(job_id):
            raise BulkNotFound("This bulk acceptance doesn't exist.")
        return JSONResponse(live_words(catalogue.bulk.get(job_id)))

    return router


def _choice(catalogue: Catalogue, pages: CataloguePages, channel: CatalogueChannel, at_least: float) -> dict[str, Any]:
    """How many products would be accepted, and the least sure of them."""
    numbers = catalogue.numbers.of(channel.name)
    wanted = ProductFilter(channel=channel.name, state=ProductState.SUGGESTED, min_score=at_least)
    found = catalogue.products.page(wanted, order=ProductOrder.SCORE, limit=_EXAMPLES)
    return {
        "tree": pages.tree(channel),
        "at_least": at_least,
        "point": numbers.at(at_least),
        "total": numbers.curve[0].waiting,
        "checks": numbers.states.get(ProductState.SUGGESTED, 0) - numbers.curve[0].waiting,
        "curve": [
            {"at_least": each.at_least, "waiting": each.waiting, "decided": each.decided, "right": each.right}
            for each in numbers.curve
        ],
        "examples": found.products,
        "photos": found.photos,
    }


def _latest(catalogue: Catalogue, newest: list[BulkJob], by: Principal, ended: str) -> dict[str, Any]:
    """What is at work, what has just ended (with the id `ended`), and what this person can take back."""
    active = next((each for each in newest if each.finished_at is None), None)
    own = next((each for each in newest if each.by == by.id and each.undoes is None and each.finished_at), None)
    standing = catalogue.bulk.standing(own.id) if own is not None and active is None else 0
    said = next((each for each in newest if each.id == ended and each.finished_at), None)
    return {
        "active": active,
        "now": None if active is None else live_words(active),
        "undoable": own if standing else None,
        "standing": standing,
        "said": None if said is None else _said(said),
        "failed": said is not None and said.error is not None,
    }


def _said(job: BulkJob) -> str | None:
    """What became of a job, where the notice with its undo button does not say it."""
    if job.error is not None:
        return gettext(
            "%(error)s %(done)s of %(planned)s were done before.",
            error=job.error,
            done=whole_number(job.done),
            planned=whole_number(job.planned),
        )
    if job.cancelled_by is not None:
        return gettext(
            "Cancelled. %(done)s of %(planned)s were done before.",
            done=whole_number(job.done),
            planned=whole_number(job.planned),
        )
    if job.undoes is not None:
        return gettext("Taken back. These products wait for a decision again.")
    return None if job.done else gettext("No product was accepted: the suggestions changed meanwhile.")


def live_words(job: BulkJob) -> dict[str, Any]:
    """The progress in the form that `batch-live.js` shows."""
    what = "accepted" if job.undoes is None else gettext("taken back")
    ended = job.finished_at is not None
    return {
        "active": not ended,
        "done": 100.0 if ended else round(min(100.0, 100 * job.done / max(job.planned, 1)), 2),
        "condition": None,
        "resumable": False,
        "words": {
            "progress": gettext(
                "%(done)s of %(planned)s products %(what)s",
                done=whole_number(job.done),
                planned=whole_number(job.planned),
                what=what,
            )
        },
    }
