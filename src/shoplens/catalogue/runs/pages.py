"""The page of runs over the catalogue: start one, follow it, cancel it, and those before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, note, principal_of, requester_of
from shoplens.accounts.entities import Permission
from shoplens.catalogue import presenting
from shoplens.catalogue.entities import CatalogueRun, ProductState
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName, FormText
from shoplens.catalogue.repository import ProductFilter
from shoplens.catalogue.service import Catalogue
from shoplens.db.tables import is_id
from shoplens.errors import NothingWaiting, RunInProgress, RunNotFound
from shoplens.messages import gettext, localised, marked, whole_number
from shoplens.web.rendering import add_filters
from shoplens.web.routing import page_router

_SAID = {
    "nothing": marked("No product waits for a suggestion."),
    "active": marked("A run is at work already."),
    "cancelled": marked("Cancelled. The suggestions that it made stay."),
}

add_filters(presenting.catalogue_run_state)


def catalogue_run_pages(catalogue: Catalogue) -> APIRouter:
    """Runs of a channel, and a new one."""
    router = page_router()
    reading, administering = [guarded(Permission.CATALOGUE_READ)], [guarded(Permission.CATALOGUE_ADMIN)]
    pages, runs = CataloguePages(catalogue), catalogue.runs

    @router.get(f"{HOME}/runs", dependencies=reading)
    def show(channel: ChannelName = "", said: str = "") -> HTMLResponse:
        chosen = pages.channel(channel)
        newest = runs.newest(chosen.name)
        active = next((each for each in newest if each.finished_at is None), None)
        states = dict(catalogue.products.tally(chosen.name))
        return pages.page(
            "catalogue_runs.html",
            chosen,
            runs=[each for each in newest if each.finished_at is not None],
            active=active,
            now=None if active is None else live_words(active, runs.trouble(active), datetime.now(UTC)),
            products=sum(states.values()),
            unsuggested=states.get(ProductState.NEW, 0),
            undecided=states.get(ProductState.NEW, 0) + states.get(ProductState.SUGGESTED, 0),
            unsure=catalogue.products.count(ProductFilter(channel=chosen.name, needs_review=True)),
            said=gettext(_SAID.get(said, "")),
        )

    @router.post(f"{HOME}/runs", dependencies=administering)
    def start(request: Request, channel: FormText = "", again: Annotated[bool, Form()] = False) -> RedirectResponse:
        chosen = pages.channel(channel)
        try:
            run = runs.start(chosen.name, again=again, requested_by=requester_of(request, "page"))
        except NothingWaiting:
            return pages.back("/runs", chosen, said="nothing")
        except RunInProgress:
            return pages.back("/runs", chosen, said="active")
        note(request, "catalogue.run_started", target=run.id, channel=chosen.name, again=again)
        return pages.back("/runs", chosen)

    @router.post(f"{HOME}/runs/{{run_id}}/cancel", dependencies=administering)
    def cancel(request: Request, run_id: str, channel: FormText = "") -> RedirectResponse:
        run = runs.cancel(_known(run_id), by=principal_of(request).name)
        note(request, "catalogue.run_cancelled", target=run.id, channel=run.channel)
        return pages.back("/runs", pages.channel(channel or run.channel), said="cancelled")

    @router.get(f"{HOME}/runs/{{run_id}}/live.json", dependencies=reading)
    def live(run_id: str) -> Response:
        run = runs.get(_known(run_id))
        return JSONResponse(live_words(run, runs.trouble(run), datetime.now(UTC)))

    return router


def _known(run_id: str) -> str:
    if not is_id(run_id):
        raise RunNotFound("This run doesn't exist.")
    return run_id


def live_words(run: CatalogueRun, trouble: str | None, now: datetime) -> dict[str, Any]:
    """The progress of a run in the form that `batch-live.js` shows."""
    done, ended = run.suggested + run.failed, run.finished_at is not None
    seconds = max(1.0, ((run.finished_at or now) - (run.started_at or run.created_at)).total_seconds())
    speed = (
        gettext("%(seconds)s per second", seconds=localised(f"{done / seconds:,.0f}")) if done else gettext("Starting…")
    )
    return {
        "active": not ended,
        "done": 100.0 if ended else round(min(100.0, 100 * done / max(run.planned, 1)), 2),
        "condition": "warn" if trouble and not ended else None,
        "resumable": False,
        "words": {
            "progress": gettext(
                "%(done)s of %(planned)s products", done=whole_number(done), planned=whole_number(run.planned)
            ),
            "speed": speed,
            "trouble": trouble or "",
            "suggested": f"{run.suggested:,}",
            "failed": f"{run.failed:,}",
        },
    }
