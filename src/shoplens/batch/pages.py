"""The pages of a channel's batch side: import photos, follow a run, and review its items.

All forms work without a script.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from shoplens.accounts.access import guarded, note, principal_of, requester_of, reviewer_of
from shoplens.accounts.entities import Permission
from shoplens.batch import presenting
from shoplens.batch.browse import BrowseService, ItemPage, RunSummary, RunView
from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState
from shoplens.batch.presenting import Notice
from shoplens.batch.review import ItemAnswer
from shoplens.batch.service import Batch
from shoplens.db.tables import is_id
from shoplens.errors import (
    ItemNotFound,
    NotFound,
    NothingWaiting,
    PredictionNotFound,
    RequestInvalid,
    RunInProgress,
    RunNotFound,
)
from shoplens.messages import gettext, marked, short_day, whole_number
from shoplens.predictions.entities import Answer, Channel, Feedback, PredictionRecord
from shoplens.predictions.pages import LinkFinder, RecordLink
from shoplens.predictions.records import RecordService
from shoplens.web.browser import new_browser, remember
from shoplens.web.charts import SMALL, Chart, Series, Tone, bar_chart, slots_axis
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

REQUESTED_BY = "console"
PAGE_ITEMS = 48
_PAGE_RUNS = 30
_LONGEST_NUMBER = 12
_COLUMNS: Final[tuple[tuple[ItemState, str, Tone], ...]] = (
    (ItemState.DONE, marked("Done"), "accent"),
    (ItemState.NEEDS_REVIEW, marked("Needs review"), "amber"),
    (ItemState.QUARANTINED, marked("Quarantined"), "red"),
)
_NO_STORE = {"Cache-Control": "no-store"}

add_filters(
    presenting.answer_word,
    presenting.state_word,
    presenting.run_word,
    presenting.count,
    presenting.photos,
    presenting.need_you,
    presenting.duration,
    presenting.took,
    presenting.references,
    presenting.time_left,
    share=presenting.share,
)

_COUNT_DIGITS = 7
_ACT_CHARACTERS = 40
FormText = Annotated[str, Form()]
FormNumber = Annotated[int | None, Form(ge=0)]
_SAID = {
    "answered": marked("Saved."),
    "skipped": marked("Skipped. That photo comes again at the end."),
    "reopened": marked("Withdrawn. The photo is as the run left it."),
    "retried": marked("Queued for the next run."),
    "deleted": marked("The file was deleted."),
}


def channel_pages(batch: Batch, channels: Mapping[str, Channel]) -> APIRouter:
    """The runs of a channel, and the forms that import photos and start a run."""
    router = page_router()
    reading = [guarded(Permission.BATCH_READ)]
    browse = batch.browse

    @router.get("/console/batch/{channel}", dependencies=reading)
    def runs(request: Request, channel: str, said: str = "") -> HTMLResponse:
        name = _known_channel(batch, channel)
        before = request.query_params.get("before")
        found = browse.runs(name, limit=_PAGE_RUNS + 1, before=before if before and is_id(before) else None)
        active = browse.active(name)
        return page(
            "batch.html",
            report_language=batch.report.language_tag,
            channel=channels[name],
            runs=[each for each in found[:_PAGE_RUNS] if not each.run.active],
            older=found[_PAGE_RUNS - 1].run.id if len(found) > _PAGE_RUNS else None,
            paged=bool(before),
            active=active,
            condition=_run_notice(batch, active.run) if active else None,
            live=_live_channel(batch, name, active),
            to_review=browse.to_review(name),
            nights=None if before else _nights_chart(found),
            newest=next(iter(browse.items(ItemFilter(channel=name), limit=1).items), None),
            source=batch.channel(name).source,
            plan=batch.plan(name),
            notice=_form_notice(batch, name, said),
        )

    @router.get("/console/batch/{channel}/live.json", dependencies=reading)
    def live_channel(channel: str) -> JSONResponse:
        name = _known_channel(batch, channel)
        return JSONResponse(_live_channel(batch, name, browse.active(name)), headers=_NO_STORE)

    @router.post("/console/batch/{channel}/ingest", dependencies=[guarded(Permission.BATCH_RUN)])
    async def import_photos(channel: str) -> RedirectResponse:
        name = _known_channel(batch, channel)
        # The next page shows the outcome, also of an import that failed.
        await asyncio.wait([asyncio.wrap_future(batch.channel(name).imports.start())], timeout=batch.ingest_answer_s)
        return RedirectResponse(f"/console/batch/{name}?said=ingest", status_code=303)

    @router.post("/console/batch/{channel}/runs", dependencies=[guarded(Permission.BATCH_RUN)])
    def start(request: Request, channel: str) -> RedirectResponse:
        name = _known_channel(batch, channel)
        try:
            run_id = batch.start(name, requested_by=requester_of(request, REQUESTED_BY)).id
            note(request, "run.started", target=run_id, channel=name)
        except NothingWaiting:
            return RedirectResponse(f"/console/batch/{name}?said=nothing", status_code=303)
        except RunInProgress:  # another request was faster
            active = browse.active(name)
            run_id = active.run.id if active else ""
        return RedirectResponse(f"/console/batch/{name}/{run_id}".rstrip("/"), status_code=303)

    return router


def run_pages(batch: Batch, channels: Mapping[str, Channel]) -> APIRouter:
    """One run with its items. Comes after the other pages of batches, whose addresses it matches too."""
    router = page_router()
    reading = [guarded(Permission.BATCH_READ)]
    reviewing = [guarded(Permission.BATCH_REVIEW)]
    browse = batch.browse

    @router.get("/console/batch/{channel}/{run_id}", dependencies=reading)
    def run(request: Request, channel: str, run_id: str) -> HTMLResponse:
        view = _known_run(batch, channel, run_id)
        bar = presenting.read_bar(request.query_params, view)
        before, after = (presenting.read_cursor(request.query_params, each) for each in ("before", "after"))
        labels = batch.channel(channel).labels
        browser = reviewer_of(request) or new_browser()
        in_review = bar.wanted.state is ItemState.NEEDS_REVIEW
        wanted = replace(bar.wanted, browser=browser if in_review else None)
        if bar.least_sure:
            last = presenting.read_score_cursor(request.query_params)
            items, surer = browse.least_sure(wanted, limit=PAGE_ITEMS, surer_than=last)
            found = ItemPage(items=items, older=None, newer=None)
        else:
            surer = None
            found = browse.items(wanted, limit=PAGE_ITEMS, before=before, after=after)
        skipped = browse.count_skipped(view.run.id, browser) if in_review and not wanted.skipped else 0
        shown = page(
            "batch_run.html",
            report_language=batch.report.language_tag,
            channel=channels[channel],
            view=view,
            bar=bar,
            found=found,
            surer=surer,
            to_review=browse.to_review(channel) if in_review and not found.items else (0, None),
            guesses=browse.guesses(found.items) if in_review else {},
            skipped=skipped,
            paged=before is not None or after is not None,
            condition=_run_notice(batch, view.run),
            live=_live_run(batch, view),
            categories=presenting.categories(view.labels, bar.wanted.state),
            choices=presenting.keyed(presenting.offered(labels, view.labels)),
            labels=labels,
            together=_together(batch, request, wanted) if in_review else None,
        )
        remember(shown, browser, secure=request.url.scheme == "https")
        return shown

    @router.get("/console/batch/{channel}/{run_id}/live.json", dependencies=reading)
    def live_run(channel: str, run_id: str) -> JSONResponse:
        return JSONResponse(_live_run(batch, _known_run(batch, channel, run_id)), headers=_NO_STORE)

    @router.post("/console/batch/{channel}/{run_id}/cancel", dependencies=[guarded(Permission.BATCH_RUN)])
    def cancel(request: Request, channel: str, run_id: str) -> RedirectResponse:
        run = batch.cancel(_known_run(batch, channel, run_id).run.id, requester_of(request, REQUESTED_BY))
        note(request, "run.cancelled", target=run.id, channel=channel)
        return RedirectResponse(f"/console/batch/{channel}/{run_id}", status_code=303)

    @router.post("/console/batch/{channel}/{run_id}/confirm", dependencies=reviewing)
    def confirm_all(
        request: Request,
        channel: str,
        run_id: str,
        *,
        shown_at: Annotated[datetime, Form()],
        shown: Annotated[int, Form(ge=0)],
        label: FormText = "",
        text: FormText = "",
    ) -> RedirectResponse:
        query = {"state": ItemState.NEEDS_REVIEW.value, "label": label, "text": text}
        bar = presenting.read_bar(query, _known_run(batch, channel, run_id))
        browser = reviewer_of(request)
        wanted = replace(bar.wanted, browser=browser)
        moment = shown_at if shown_at.tzinfo else shown_at.replace(tzinfo=UTC)
        done = batch.review.confirm_all(wanted, completed_by=moment, by=browser)
        left = batch.review.count_to_confirm(wanted, completed_by=moment)
        note(request, "feedback.confirmed", target=run_id, items=done.items, label=label)
        others = max(0, shown - done.items - left)
        return RedirectResponse(
            bar.address(confirmed=done.items, others=others, act=done.moment.isoformat()), status_code=303
        )

    @router.post("/console/batch/{channel}/{run_id}/confirm/undo", dependencies=reviewing)
    def undo_confirm_all(
        request: Request, channel: str, run_id: str, act: Annotated[datetime, Form()], label: FormText = ""
    ) -> RedirectResponse:
        view = _known_run(batch, channel, run_id)
        number = batch.review.withdraw_all(view.run.id, act, by=reviewer_of(request))
        note(request, "feedback.withdrawn", target=run_id, items=number)
        bar = presenting.read_bar({"state": ItemState.NEEDS_REVIEW.value, "label": label}, view)
        return RedirectResponse(bar.address(taken_back=number), status_code=303)

    @router.post("/console/batch/{channel}/{run_id}/retry", dependencies=[guarded(Permission.BATCH_REVIEW)])
    def retry_all(channel: str, run_id: str) -> RedirectResponse:
        number = batch.review.retry_all(channel, _known_run(batch, channel, run_id).run.id)
        return RedirectResponse(f"/console/batch/{channel}?said=retried-{number}", status_code=303)

    return router


def item_pages(batch: Batch, records: RecordService, channels: Mapping[str, Channel]) -> APIRouter:
    """The page of one item, and its forms."""
    router = page_router()
    reading = [guarded(Permission.BATCH_READ)]
    reviewing = [guarded(Permission.BATCH_REVIEW)]
    browse = batch.browse

    @router.get("/console/batch/{channel}/items/{item_id}", dependencies=reading)
    def one(request: Request, channel: str, item_id: str, said: str = "") -> HTMLResponse:
        item = _known_item(batch, channel, item_id)
        labels = sorted(batch.channel(item.channel).labels)
        browser = reviewer_of(request) or new_browser()
        # Who only reads keeps the photo from nobody.
        in_review = item.state is ItemState.NEEDS_REVIEW and principal_of(request).may(Permission.BATCH_REVIEW)
        shown = page(
            "batch_item.html",
            channel=channels[item.channel],
            item=item,
            said=gettext(_SAID.get(said, "")),
            record=_record(records, item),
            duplicates=browse.duplicates(item),
            choices=presenting.keyed(labels) if len(labels) <= presenting.MOST_CHOICES else [],
            labels=labels,
            next_to_review=browse.next_to_review(item, browser=browser),
            held=in_review and item.id in batch.looks.look([item.id], browser=browser).held,
        )
        remember(shown, browser, secure=request.url.scheme == "https")
        return shown

    @router.post("/console/batch/{channel}/items/{item_id}/label", dependencies=reviewing)
    def label(
        request: Request,
        channel: str,
        item_id: str,
        *,
        label: FormText = "",
        answer: FormText = "",
        proposed: FormText = "",
        seen: FormNumber = None,
    ) -> RedirectResponse:
        item = _known_item(batch, channel, item_id)
        if answer and answer not in set(Answer):
            raise RequestInvalid(f"{answer[:80]!r} is not an answer. Answers: {', '.join(Answer)}.")
        given = ItemAnswer(
            answer=Answer(answer or Answer.CORRECTED),
            label=None if answer else label,
            proposed=proposed if answer == Answer.NONE_OF_THESE else None,
            seen=seen,
            by=reviewer_of(request),
        )
        batch.review.answer(item.id, given)
        return _back_to(item, "answered")

    @router.post("/console/batch/{channel}/items/{item_id}/reopen", dependencies=reviewing)
    def reopen(request: Request, channel: str, item_id: str, seen: FormNumber = None) -> RedirectResponse:
        item = _known_item(batch, channel, item_id)
        batch.review.reopen(item.id, seen=seen, by=reviewer_of(request))
        note(request, "feedback.withdrawn", target=item.id)
        return _back_to(item, "reopened")

    @router.post("/console/batch/{channel}/items/{item_id}/skip", dependencies=reviewing)
    def skip(request: Request, channel: str, item_id: str) -> RedirectResponse:
        item = _known_item(batch, channel, item_id)
        browser = reviewer_of(request)
        if browser is not None:
            batch.looks.skip(item.id, browser=browser)
        return _back_to(browse.next_to_review(item, browser=browser) or item, "skipped")

    @router.post("/console/batch/{channel}/items/{item_id}/retry", dependencies=reviewing)
    def retry(channel: str, item_id: str) -> RedirectResponse:
        item = _known_item(batch, channel, item_id)
        return _back_to(batch.review.retry(item.id), "retried")

    @router.post("/console/batch/{channel}/items/{item_id}/delete", dependencies=reviewing)
    def delete(request: Request, channel: str, item_id: str) -> RedirectResponse:
        item = _known_item(batch, channel, item_id)
        deleted = batch.review.delete(item.id, by=reviewer_of(request))
        note(request, "photo.deleted", target=item.id)
        return _back_to(deleted, "deleted")

    return router


def record_link_finder(browse: BrowseService) -> LinkFinder:
    """The links from records to the items that they belong to."""

    def find(record_ids: Sequence[str]) -> dict[str, RecordLink]:
        return {
            record_id: RecordLink(
                kind=gettext("Item"),
                title=presenting.references(item),
                address=f"/console/batch/{item.channel}/items/{item.id}",
            )
            for record_id, item in browse.of_records(record_ids).items()
        }

    return find


def _known_channel(batch: Batch, channel: str) -> str:
    if channel not in batch.channels:
        raise NotFound(f"There is no page at /console/batch/{channel[:100]}.")
    return channel


def _known_run(batch: Batch, channel: str, run_id: str) -> RunView:
    view = batch.browse.run(run_id) if is_id(run_id) and channel in batch.channels else None
    if view is None or view.run.channel != channel:
        raise RunNotFound("This run doesn't exist or was deleted.")
    return view


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """For the form that confirms all photos of a filter: how many those are at `shown_at`.

    `confirmed`, `others` (answered meanwhile by other people) and `act` are of the last such form, `taken_back` of its
    undoing.
    """

    number: int
    shown_at: datetime
    confirmed: int
    others: int
    act: str
    taken_back: int


def _together(batch: Batch, request: Request, wanted: ItemFilter) -> Together:
    query = request.query_params
    confirmed, others, taken_back = (
        int(text) if text.isascii() and text.isdigit() and len(text) <= _COUNT_DIGITS else 0
        for text in (query.get(name, "") for name in ("confirmed", "others", "taken_back"))
    )
    now = datetime.now(UTC)
    return Together(
        number=batch.review.count_to_confirm(wanted, completed_by=now) if wanted.label or wanted.text else 0,
        shown_at=now,
        confirmed=confirmed,
        others=others,
        act=query.get("act", "")[:_ACT_CHARACTERS],
        taken_back=taken_back,
    )


def _known_item(batch: Batch, channel: str, item_id: str) -> BatchItem:
    item = batch.browse.item(item_id) if is_id(item_id) and channel in batch.channels else None
    if item is None or item.channel != channel:
        raise ItemNotFound("This photo doesn't exist or was deleted.")
    return item


def _form_notice(batch: Batch, channel: str, said: str) -> Notice | None:
    """The outcome of the form that redirected to this page."""
    status = batch.channel(channel).imports.status()
    if said == "ingest" and status is not None:
        return presenting.import_notice(status)
    if said == "nothing":
        return Notice(
            kind="done", sentence=gettext("No photos are waiting, so no run was started. Import photos first.")
        )
    number = said.removeprefix("retried-")
    if number != said and number.isascii() and number.isdigit() and len(number) < _LONGEST_NUMBER:
        return Notice(
            kind="done", sentence=gettext("%(photos)s queued for the next run.", photos=presenting.photos(int(number)))
        )
    return None


def _live_channel(batch: Batch, channel: str, active: RunView | None) -> dict[str, Any]:
    """What the script of the page updates every two seconds while a run or an import is active."""
    waiting = batch.browse.waiting(channel)
    status = batch.channel(channel).imports.status()
    words = {
        "waiting": presenting.count(waiting),
        "classify": gettext("Classify %(photos)s", photos=presenting.photos(waiting))
        if waiting
        else gettext("Start a run"),
        "ingest": presenting.import_words(status),
    }
    now = _live_run(batch, active, words) if active else {"active": False, "words": words}
    return {**now, "active": now["active"] or bool(status and status.running)}


def _live_run(batch: Batch, view: RunView, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    notice = _run_notice(batch, view.run)
    return {
        "active": view.run.active,
        "done": presenting.share(view.settled, view.run.planned) if view.run.active else "100%",
        "condition": notice.kind if notice else None,
        "resumable": bool(notice and notice.resumable),
        "words": {**presenting.progress_words(view), **(more or {}), "condition": notice.sentence if notice else ""},
    }


def _run_notice(batch: Batch, run: BatchRun) -> Notice | None:
    trouble = batch.launcher.trouble(run.id)
    return presenting.run_notice(run, batch.owner_of(run), trouble=trouble, now=datetime.now(UTC))


def _nights_chart(runs: Sequence[RunSummary]) -> Chart | None:
    """A column for each of the last runs, the newest at the right; None with less than two."""
    shown = [each for each in runs if not each.run.active][:_PAGE_RUNS][::-1]
    if len(shown) < 2:
        return None
    series = [
        Series(name=gettext(name), values=[float(each.counts[state]) for each in shown], tone=tone)
        for state, name, tone in _COLUMNS
    ]
    received = sum(each.counts.received for each in shown)
    left = sum(each.counts[ItemState.NEEDS_REVIEW] for each in shown)
    return bar_chart(
        gettext("The last %(len)s runs", len=len(shown)),
        slots_axis([short_day(each.run.created_at.astimezone(UTC)) for each in shown], name=gettext("Run (UTC)")),
        series,
        words=lambda value: presenting.count(round(value)),
        height=SMALL,
        summary=gettext(
            "The last %(len)s runs: %(photos)s received, %(left)s still need review.",
            len=len(shown),
            photos=presenting.photos(received),
            left=whole_number(left),
        ),
    )


def _record(records: RecordService, item: BatchItem) -> tuple[PredictionRecord, list[Feedback]] | None:
    """Its prediction with the feedback; None if there is none."""
    try:
        return None if item.prediction_id is None else records.get(item.prediction_id)
    except PredictionNotFound:
        return None


def _back_to(item: BatchItem, said: str) -> RedirectResponse:
    """A redirect, so that reloading the page does not send the form again."""
    return RedirectResponse(f"/console/batch/{item.channel}/items/{item.id}?said={said}", status_code=303)
