"""The pages Records and one record. They work as plain forms where no script runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.accounts.access import guarded, principal_of, reviewer_of
from shoplens.accounts.entities import Permission
from shoplens.db.tables import is_id
from shoplens.errors import PredictionNotFound, RequestInvalid
from shoplens.predictions import presenting
from shoplens.predictions.entities import Channel, FeedbackValue, PredictionRecord, RecordFilter, photos_need
from shoplens.predictions.feedback import NewFeedback
from shoplens.predictions.policy import Outcome
from shoplens.predictions.records import RecordService
from shoplens.web.rendering import PageRoute, add_filters, instant, page

PAGE_ROWS = 50
_MAX_FILTER_LENGTH = 200
_DATE_LENGTH = len("2026-01-31")

FormText = Annotated[str, Form()]

add_filters(
    presenting.confidence,
    presenting.reason,
    presenting.thresholds,
    presenting.channel_title,
    presenting.label_name,
    presenting.label_key,
    presenting.channel_question,
    presenting.condensed,
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


LinkFinder = Callable[[PredictionRecord], RecordLink | None]


def record_pages(records: RecordService, *, channels: Mapping[str, Channel], find_link: LinkFinder) -> APIRouter:
    """The list of records (also at `/view_db`), one record, and its feedback form."""
    router = APIRouter(route_class=PageRoute)
    reading = [guarded(Permission.RECORDS_READ)]

    @router.get("/console/records", dependencies=reading)
    @router.get("/view_db", dependencies=reading)
    def record_list(request: Request) -> HTMLResponse:
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
            channels=channels,
            photos_need=partial(photos_need, channels),
            channel_names=names,
            labels=records.labels(),
        )

    @router.get("/console/records/{record_id}", dependencies=reading)
    def record(request: Request, record_id: str, said: str = "") -> HTMLResponse:
        stored, remarks = records.get(_known_id(record_id))
        channel = channels.get(stored.channel)
        policy = channel.policy if channel else None
        is_outdated = policy is not None and policy.version != stored.decision.policy_version
        return page(
            "record.html",
            record=stored,
            channel=channel or stored.channel,
            shows_photo=principal_of(request).may(photos_need(channels, stored.channel)),
            remarks=remarks,
            said=bool(said),
            policy=None if is_outdated else policy,
            policy_outdated=is_outdated,
            link=find_link(stored),
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


def _known_id(record_id: str) -> str:
    if not is_id(record_id):
        raise PredictionNotFound("This record doesn't exist or was deleted.")
    return record_id


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterBar:
    """A filter as the form shows it. Dates are inclusive days in UTC; a script makes them local."""

    wanted: RecordFilter

    @property
    def active(self) -> bool:
        """Whether anything is filtered out."""
        return bool(self.parameters())

    @property
    def since_day(self) -> str:
        """The first day, as a date input wants it."""
        return f"{self.wanted.since:%Y-%m-%d}" if self.wanted.since else ""

    @property
    def until_day(self) -> str:
        """The last day that is still shown; none for an end at the beginning of the calendar."""
        until = self.wanted.until
        if until is None or until.date() == date.min:
            return ""
        return f"{until - timedelta(microseconds=1):%Y-%m-%d}"

    def parameters(self) -> dict[str, str]:
        """The filter as query parameters, without those that are not set."""
        wanted = self.wanted
        texts = {
            "channel": wanted.channel,
            "label": wanted.label,
            "decision": wanted.outcome.value if wanted.outcome else None,
            "since": instant(wanted.since) if wanted.since else None,
            "until": instant(wanted.until) if wanted.until else None,
        }
        return {name: text for name, text in texts.items() if text is not None}

    def query(self, **more: str) -> str:
        """The query string with `more` parameters after the filter's own; "" where there are none."""
        parameters = {**self.parameters(), **more}
        return f"?{urlencode(parameters)}" if parameters else ""


def read_filter(query: Mapping[str, str]) -> FilterBar:
    """The filter in a query; empty fields mean any. Raises RequestInvalid."""
    decision = _text(query, "decision")
    if decision is not None and decision not in set(Outcome):
        raise RequestInvalid(f'"{decision}" is not a decision. Use one of: {", ".join(Outcome)}.')
    return FilterBar(
        wanted=RecordFilter(
            channel=_text(query, "channel"),
            label=_text(query, "label"),
            outcome=Outcome(decision) if decision else None,
            since=_moment(_text(query, "since"), whole_day=timedelta()),
            until=_moment(_text(query, "until"), whole_day=timedelta(days=1)),
        )
    )


def read_cursor(query: Mapping[str, str], name: str) -> str | None:
    """The id in `before` or `after`. Raises RequestInvalid."""
    text = _text(query, name)
    if text is not None and not is_id(text):
        raise RequestInvalid("This link to a page of records is not valid. Start again with the newest records.")
    return text


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name, "").replace("\x00", "").strip()
    if len(text) > _MAX_FILTER_LENGTH:
        raise RequestInvalid(f"The filter {name!r} is longer than {_MAX_FILTER_LENGTH} characters.")
    return text or None


def _moment(text: str | None, *, whole_day: timedelta) -> datetime | None:
    """UTC. A bare date means its whole day, so that the end of a range lies a day later."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC) + (whole_day if len(text) == _DATE_LENGTH else timedelta())
    except (ValueError, OverflowError):
        raise RequestInvalid(f'"{text}" is not a date. Write dates as 2026-01-31.') from None
