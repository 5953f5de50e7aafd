"""The pages Records and one record: what was answered, why, and what people said of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.db.ids import is_id
from shoplens.errors import PredictionNotFound, RequestInvalid
from shoplens.platform.server import Platform
from shoplens.predictions.entities import Channel, Feedback, PredictionRecord, Verdict
from shoplens.web.filtering import read_cursor, read_filter
from shoplens.web.rendering import PageRoute, page

PAGE_ROWS = 50

FormText = Annotated[str, Form()]


def records_router(platform: Platform) -> APIRouter:
    """The list (also at `/view_db`), one record, and the feedback form that works without a script."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/console/records")
    @router.get("/view_db")
    def records(request: Request) -> HTMLResponse:
        bar = read_filter(request.query_params)
        before, after = (read_cursor(request.query_params, name) for name in ("before", "after"))
        found = platform.browse.page(bar.wanted, limit=PAGE_ROWS, before=before, after=after)
        return page(
            "records.html",
            bar=bar,
            found=found,
            paged=bool(before or after),
            channels=_choices(platform.channels, bar.wanted.channel),
            labels=platform.browse.labels(),
        )

    @router.get("/console/records/{record_id}")
    def record(record_id: str, said: str = "") -> HTMLResponse:
        stored, remarks = platform.browse.get(_known(record_id))
        return _record_page(platform, stored, remarks, said=bool(said))

    @router.post("/console/records/{record_id}/feedback")
    def say(
        record_id: str, verdict: FormText = "wrong", label: FormText = "", comment: FormText = ""
    ) -> RedirectResponse:
        platform.feedback(_known(record_id), verdict=_verdict(verdict), label=label, comment=comment)
        return RedirectResponse(f"/console/records/{record_id}?said=1#feedback", status_code=303)

    return router


def _record_page(platform: Platform, record: PredictionRecord, remarks: list[Feedback], *, said: bool) -> HTMLResponse:
    channel = platform.channels.get(record.channel)
    return page(
        "record.html",
        record=record,
        remarks=remarks,
        said=said,
        policy=channel.policy if channel and _still_decides(channel, record) else None,
        policy_changed=channel is not None and not _still_decides(channel, record),
        returned=platform.batch.browse.of_record(record),
    )


def _still_decides(channel: Channel, record: PredictionRecord) -> bool:
    """Whether today's thresholds are the ones that decided then."""
    return channel.policy.version == record.decision.policy_version


def _choices(channels: Iterable[str], wanted: str | None) -> list[str]:
    """The channels to choose from; one that was removed from the settings stays while it is filtered by."""
    return sorted({*channels, *([wanted] if wanted else [])})


def _known(record_id: str) -> str:
    if not is_id(record_id):
        raise PredictionNotFound("There is no such record. It may have been removed, or the address is incomplete.")
    return record_id


def _verdict(text: str) -> Verdict:
    try:
        return Verdict(text)
    except ValueError:
        raise RequestInvalid("Say whether the prediction is right or wrong.") from None
