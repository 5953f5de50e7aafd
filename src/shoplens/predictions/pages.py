"""The pages Records and one record: search, filters, saved views, feedback, similar photos, and deletion.

All of them work as plain forms where no script runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.accounts.access import guarded, principal_of, reviewer_of
from shoplens.accounts.entities import Permission, PrincipalKind
from shoplens.db.tables import is_id
from shoplens.errors import PredictionNotFound, RequestInvalid
from shoplens.predictions import presenting
from shoplens.predictions.deletion import Deleted, DeletionService
from shoplens.predictions.entities import Channel, FeedbackValue, RecordFilter, photos_need
from shoplens.predictions.feedback import NewFeedback
from shoplens.predictions.filter_bar import FilterBar, read_cursor, read_filter
from shoplens.predictions.policy import Policy
from shoplens.predictions.records import RecordService
from shoplens.predictions.similar import SimilarPhotos
from shoplens.predictions.views import MAX_NAME, SavedViews, owner_of
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

PAGE_ROWS = 50

FormText = Annotated[str, Form()]
FormIds = Annotated[list[str], Form()]

add_filters(
    presenting.confidence,
    presenting.reason,
    presenting.thresholds,
    presenting.channel_title,
    presenting.label_name,
    presenting.label_key,
    presenting.channel_question,
    presenting.condensed,
    presenting.total_words,
    presenting.deleted_words,
    outcome_words=presenting.OUTCOME_WORDS,
    keep_words=presenting.KEEP_WORDS,
    verdict_words=presenting.VERDICT_WORDS,
    best_guess_below=presenting.BEST_GUESS_BELOW,
    shown_labels=presenting.SHOWN_LABELS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLink:
    """Where another feature shows more about a record, such as the batch item that it belongs to."""

    kind: str
    title: str
    address: str


LinkFinder = Callable[[Sequence[str]], Mapping[str, RecordLink]]
"""The links of records, by their ids."""


def record_pages(
    records: RecordService,
    similar: SimilarPhotos,
    views: SavedViews,
    *,
    channels: Mapping[str, Channel],
    policy_of: Callable[[str], Policy],
    find_links: LinkFinder,
) -> APIRouter:
    """The list of records (also at `/view_db`), one record, and its feedback form."""
    router = page_router()
    reading = [guarded(Permission.RECORDS_READ)]

    @router.get("/console/records", dependencies=reading)
    @router.get("/view_db", dependencies=reading)
    def record_list(request: Request, deleted: str = "") -> HTMLResponse:
        bar = read_filter(request.query_params)
        before, after = (read_cursor(request.query_params, name) for name in ("before", "after"))
        found = records.page(bar.wanted, limit=PAGE_ROWS, before=before, after=after)
        # A channel that was removed from the settings stays in the list while it is filtered by.
        names = sorted({*channels, *([bar.wanted.channel] if bar.wanted.channel else [])})
        return page(
            "records.html",
            bar=bar,
            found=found,
            paged=bool(before or after),
            links=find_links([record.id for record in found.records]),
            views=views.of(principal_of(request)),
            has_accounts=bool(owner_of(principal_of(request))),
            deleted=deleted,
            channels=channels,
            photos_need=partial(photos_need, channels),
            channel_names=names,
            labels=records.labels(),
            max_name=MAX_NAME,
        )

    @router.get("/console/records/{record_id}", dependencies=reading)
    def record(request: Request, record_id: str, said: str = "") -> HTMLResponse:
        stored, remarks = records.get(_known_id(record_id))
        channel = channels.get(stored.channel)
        policy = policy_of(channel.name) if channel else None
        is_outdated = policy is not None and policy.version != stored.decision.policy_version
        bar = read_filter(request.query_params)
        newer, older = records.neighbours(bar.wanted, record_id)
        return page(
            "record.html",
            record=stored,
            bar=bar,
            newer=newer,
            older=older,
            similar=similar.of(stored),
            channels=channels,
            photos_need=partial(photos_need, channels),
            channel=channel or stored.channel,
            shows_photo=principal_of(request).may(photos_need(channels, stored.channel)),
            remarks=remarks,
            said=bool(said),
            policy=None if is_outdated else policy,
            policy_outdated=is_outdated,
            link=find_links([record_id]).get(record_id),
        )

    @router.post("/console/records/{record_id}/feedback", dependencies=[guarded(Permission.FEEDBACK_WRITE)])
    def give(
        request: Request,
        record_id: str,
        *,
        verdict: FormText = "wrong",
        label: FormText = "",
        comment: FormText = "",
        seen: Annotated[str | None, Form(max_length=64)] = None,
    ) -> RedirectResponse:
        if verdict not in set(FeedbackValue):
            raise RequestInvalid("Choose whether the prediction is correct or incorrect.")
        new = NewFeedback(
            prediction_id=_known_id(record_id),
            verdict=FeedbackValue(verdict),
            label=label,
            comment=comment,
            seen=seen,
            by=reviewer_of(request),
        )
        records.give_feedback(new)
        return RedirectResponse(f"/console/records/{record_id}?said=1#feedback", status_code=303)

    return router


def change_pages(views: SavedViews, deletion: DeletionService, *, channels: Mapping[str, Channel]) -> APIRouter:
    """The forms that save a view, and that delete records. Comes before the pages of single records."""
    router = page_router()
    reading = [guarded(Permission.RECORDS_READ)]
    deleting = [guarded(Permission.RECORDS_DELETE)]

    @router.post("/console/records/views", dependencies=reading)
    def save(request: Request, *, name: FormText = "", query: FormText = "", shared: FormText = "") -> RedirectResponse:
        bar = _bar_of(query)
        principal = principal_of(request)
        everybody = bool(shared) or principal.kind is PrincipalKind.LOCAL
        views.save(name, bar.query().removeprefix("?"), by=principal, shared=everybody)
        return RedirectResponse(f"/console/records{bar.query()}", status_code=303)

    @router.post("/console/records/views/{view_id}/remove", dependencies=reading)
    def remove(request: Request, view_id: str, query: FormText = "") -> RedirectResponse:
        views.remove(view_id, by=principal_of(request))
        return RedirectResponse(f"/console/records{_bar_of(query).query()}", status_code=303)

    @router.post("/console/records/delete", dependencies=deleting)
    def ask(what: FormText = "", query: FormText = "", id: FormIds = []) -> HTMLResponse:  # noqa: B006  the name of the field
        bar = _bar_of(query)
        if what != "all" and not id:
            raise RequestInvalid("Select the records to delete first.")
        id = [] if what == "all" else id  # noqa: A001
        found = deletion.look(_chosen(bar, id))
        return page(
            "records_delete.html",
            bar=bar,
            ids=id,
            found=found,
            channels=channels,
            photos_need=partial(photos_need, channels),
        )

    @router.post("/console/records/delete/confirmed", dependencies=deleting)
    def delete(
        request: Request,
        *,
        query: FormText = "",
        id: FormIds = [],  # noqa: B006
        newest: Annotated[str, Form(max_length=64)] = "",
    ) -> RedirectResponse:
        bar = _bar_of(query)
        done = deletion.delete(_chosen(bar, id), newest=newest, by=principal_of(request))
        return RedirectResponse(f"/console/records{bar.query(deleted=_outcome(done))}", status_code=303)

    return router


def _known_id(record_id: str) -> str:
    if not is_id(record_id):
        raise PredictionNotFound("This record doesn't exist or was deleted.")
    return record_id


def _bar_of(query: str) -> FilterBar:
    return read_filter(dict(parse_qsl(query.removeprefix("?"))))


def _chosen(bar: FilterBar, ids: Sequence[str]) -> RecordFilter:
    """The records that were selected, or all that match the filter. Raises RequestInvalid."""
    if not ids:
        return bar.wanted
    if not all(map(is_id, ids)):
        raise RequestInvalid("Select records of the list.")
    return RecordFilter(ids=tuple(sorted(set(ids), reverse=True)))


def _outcome(done: Deleted) -> str:
    """What the list says after a deletion: how many were deleted, how many stay, and whether some are left."""
    return f"{done.records}-{done.owned}-{int(done.left)}"
