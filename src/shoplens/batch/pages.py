"""The pages Returns and one run: start a night, watch it, and go through what it could not decide."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from shoplens.batch.browse import RunView
from shoplens.batch.entities import BatchRun, ItemFilter, ItemState
from shoplens.batch.pages_filtering import read_bar, read_place
from shoplens.batch.pages_words import (
    Condition,
    condition,
    count,
    duration,
    import_notice,
    import_words,
    keyed,
    offered,
    photos,
    progress_words,
    references,
    run_word,
    share,
    state_word,
    took,
)
from shoplens.db.ids import is_id
from shoplens.errors import RunInProgress, RunNotFound
from shoplens.platform.server import Platform
from shoplens.predictions.entities import PredictionRecord
from shoplens.predictions.pages import LinkFinder, RecordLink
from shoplens.web.rendering import PageRoute, add_filters, page

CHANNEL = "returns"
REQUESTED_BY = "console"
PAGE_ITEMS = 48
_PAGE_RUNS = 30
_LONGEST_NUMBER = 12
_NOT_KEPT = {"Cache-Control": "no-store"}

add_filters(state_word, run_word, count, photos, duration, took, references, share=share)


def batch_pages(platform: Platform) -> APIRouter:
    """The list of runs, one run, and the forms and numbers on both."""
    router = APIRouter(route_class=PageRoute)
    batch = platform.batch

    @router.get("/console/batch/returns")
    def runs(request: Request, said: str = "") -> HTMLResponse:
        before = request.query_params.get("before")
        found = batch.browse.runs(CHANNEL, limit=_PAGE_RUNS + 1, before=before if before and is_id(before) else None)
        active = batch.browse.active(CHANNEL)
        return page(
            "batch.html",
            runs=[each for each in found[:_PAGE_RUNS] if not each.run.active],
            older=found[_PAGE_RUNS - 1].run.id if len(found) > _PAGE_RUNS else None,
            paged=bool(before),
            active=active,
            condition=_condition(platform, active.run) if active else None,
            live=_live_index(platform, active),
            newest=next(iter(batch.browse.items(ItemFilter(channel=CHANNEL), limit=1).items), None),
            source=batch.channel(CHANNEL).source,
            notice=_notice(platform, said),
        )

    @router.get("/console/batch/returns/live.json")
    def live_index() -> JSONResponse:
        return JSONResponse(_live_index(platform, batch.browse.active(CHANNEL)), headers=_NOT_KEPT)

    @router.post("/console/batch/returns/ingest")
    async def import_photos() -> RedirectResponse:
        # Its outcome, a failure too, is told by the page that comes next.
        await asyncio.wait([asyncio.wrap_future(batch.channel(CHANNEL).imports.start())], timeout=batch.ingest_answer_s)
        return RedirectResponse("/console/batch/returns?said=ingest", status_code=303)

    @router.post("/console/batch/returns/runs")
    def start() -> RedirectResponse:
        try:
            run = batch.start(CHANNEL, requested_by=REQUESTED_BY)
        except RunInProgress:
            # Somebody was quicker; what was wanted is happening.
            active = batch.browse.active(CHANNEL)
            return RedirectResponse(
                f"/console/batch/returns/{active.run.id}" if active else "/console/batch/returns", 303
            )
        return RedirectResponse(f"/console/batch/returns/{run.id}", status_code=303)

    @router.get("/console/batch/returns/{run_id}")
    def one(request: Request, run_id: str) -> HTMLResponse:
        view = batch.browse.run(_known(run_id))
        bar = read_bar(request.query_params, view)
        before, after = (read_place(request.query_params, name) for name in ("before", "after"))
        return page(
            "batch_run.html",
            view=view,
            bar=bar,
            found=batch.browse.items(bar.wanted, limit=PAGE_ITEMS, before=before, after=after),
            paged=before is not None or after is not None,
            condition=_condition(platform, view.run),
            live=_live_run(platform, view),
            categories=_categories(view, bar.wanted.state),
            choices=keyed(offered(batch.channel(CHANNEL).labels, view.labels)),
            labels=batch.channel(CHANNEL).labels,
        )

    @router.get("/console/batch/returns/{run_id}/live.json")
    def live_run(run_id: str) -> JSONResponse:
        return JSONResponse(_live_run(platform, batch.browse.run(_known(run_id))), headers=_NOT_KEPT)

    @router.post("/console/batch/returns/{run_id}/retry")
    def retry_all(run_id: str) -> RedirectResponse:
        number = batch.correct.retry_all(CHANNEL, _known(run_id))
        return RedirectResponse(f"/console/batch/returns?said=retried-{number}", status_code=303)

    return router


def record_link_finder(platform: Platform) -> LinkFinder:
    """The link from a record's page to the returned photo that it was made for."""

    def find(record: PredictionRecord) -> RecordLink | None:
        item = platform.batch.browse.of_record(record)
        if item is None:
            return None
        return RecordLink(kind="Return", title=references(item), address=f"/console/batch/returns/items/{item.id}")

    return find


def _notice(platform: Platform, said: str) -> Condition | None:
    """What the form did from which this page was come to."""
    status = platform.batch.channel(CHANNEL).imports.status()
    if said == "ingest" and status is not None:
        return import_notice(status)
    number = said.removeprefix("retried-")
    if number != said and number.isascii() and number.isdigit() and len(number) < _LONGEST_NUMBER:
        verb = "waits" if int(number) == 1 else "wait"
        return Condition(kind="done", sentence=f"{photos(int(number))} {verb} for the next run.")
    return None


def _live_index(platform: Platform, active: RunView | None) -> dict[str, Any]:
    """What the list's script puts on the page every two seconds while something goes on."""
    waiting = platform.batch.browse.waiting(CHANNEL)
    status = platform.batch.channel(CHANNEL).imports.status()
    words = {"waiting": count(waiting), "ingest": import_words(status)}
    now = _live_run(platform, active, words) if active else {"active": False, "words": words}
    return {**now, "active": now["active"] or bool(status and status.running)}


def _live_run(platform: Platform, view: RunView, more: dict[str, str] | None = None) -> dict[str, Any]:
    amiss = _condition(platform, view.run)
    return {
        "active": view.run.active,
        "done": share(view.settled, view.run.planned) if view.run.active else "100%",
        "condition": amiss.kind if amiss else None,
        "resumable": bool(amiss and amiss.resumable),
        "words": {**progress_words(view), **(more or {}), "condition": amiss.sentence if amiss else ""},
    }


def _condition(platform: Platform, run: BatchRun) -> Condition | None:
    batch = platform.batch
    return condition(run, batch.owner_of(run), trouble=batch.launcher.trouble(run.id), now=datetime.now(UTC))


def _categories(view: RunView, state: ItemState | None) -> list[tuple[str, int]]:
    """The categories that occur in the state that is shown, the most frequent first, with their counts."""
    totals: dict[str, int] = {}
    for (of, label), number in view.labels.items():
        if state is None or of is state:
            totals[label] = totals.get(label, 0) + number
    return sorted(totals.items(), key=lambda entry: (-entry[1], entry[0]))


def _known(run_id: str) -> str:
    if not is_id(run_id):
        raise RunNotFound("There is no such run. It may have been removed, or the address is incomplete.")
    return run_id
