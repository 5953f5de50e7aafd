"""The page Settings, and the page of a channel's thresholds with a dry run, saving and the history."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.configuration.draft import MOST_FIELDS, RECORDS, Draft, checked_values, draft_in_use, read_draft, rows_of
from shoplens.configuration.dry_run import DryRun
from shoplens.configuration.entities import Thresholds
from shoplens.configuration.view import Configuration, expires_words, sections_of, source_words, titles_of
from shoplens.errors import ShoplensError
from shoplens.messages import gettext, marked
from shoplens.predictions.policy import Policy
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

HOME: Final = "/console/settings"
PLACE: Final = f"{HOME}/thresholds"
_SAID: Final = {
    "saved": marked("Saved. All servers use it within a second, and runs from the next one on."),
    "back": marked("The earlier thresholds apply again."),
}

add_filters(source_words, expires_words)


async def _form(request: Request) -> FormData:
    return await request.form(max_files=0, max_fields=MOST_FIELDS)


Reader = Annotated[Principal, Depends(requires(Permission.SETTINGS_READ))]
Editor = Annotated[Principal, Depends(requires(Permission.SETTINGS_EDIT))]
Filled = Annotated[FormData, Depends(_form)]
ChannelName = Annotated[str, Query(max_length=200)]


def settings_pages(configuration: Configuration) -> APIRouter:
    """GET /console/settings."""
    router = page_router(dependencies=[guarded(Permission.SETTINGS_READ)])

    @router.get(HOME)
    def show(q: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
        values = configuration.values()
        return page(
            "settings.html",
            sections=sections_of(values, words=q),
            titles=titles_of(values),
            live=configuration.live(),
            editable=configuration.thresholds.channels,
            moderated=configuration.moderated,
            words=q,
            plan=configuration.plan,
            due=[] if q else [each for each in configuration.due() if each.days is not None],
        )

    return router


def threshold_pages(configuration: Configuration) -> APIRouter:
    """The thresholds of a channel: the page, its dry run, saving, and going back."""
    router = page_router()
    thresholds = configuration.thresholds

    @router.get(PLACE)
    def show(by: Reader, channel: ChannelName = "", said: str = "") -> HTMLResponse:
        name = channel or next(iter(thresholds.channels), "")
        draft = draft_in_use(thresholds.applied(name))
        return _shown(configuration, draft, by, said=gettext(_SAID[said]) if said in _SAID else None)

    @router.post(f"{PLACE}/try")
    def try_out(request: Request, form: Filled, by: Reader) -> HTMLResponse:
        draft = read_draft(form, thresholds.applied(str(form.get("channel", ""))))
        status, problem, tried = 200, None, None
        try:
            tried = thresholds.draft(draft.channel, _values(configuration, draft))
        except ShoplensError as error:
            status, problem = status_of(type(error)), public_detail(error, request_id_of(request))
        if form.get("part") != "result":
            return _shown(configuration, draft, by, status=status, tried=tried, problem=problem)
        result = None if tried is None else _dry_run(configuration, draft, tried)
        shown = thresholds.channel(draft.channel).channel
        return page("_thresholds_result.html", status=status, result=result, channel=shown, error=problem)

    @router.post(PLACE)
    def save(request: Request, form: Filled, by: Editor) -> Response:
        draft = read_draft(form, thresholds.applied(str(form.get("channel", ""))))
        try:
            thresholds.save(
                draft.channel, _values(configuration, draft), based_on=draft.based_on, note=draft.note, by=by
            )
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return _shown(configuration, draft, by, status=status_of(type(error)), problem=detail)
        return _back_to(draft.channel, "saved")

    @router.post(f"{PLACE}/back")
    def take_back(
        by: Editor,
        channel: Annotated[str, Form(max_length=200)],
        version: Annotated[int, Form(ge=0, lt=1 << 31)],
        based_on: Annotated[int, Form(ge=0, lt=1 << 31)],
    ) -> RedirectResponse:
        thresholds.take_back(channel, version, based_on=based_on, by=by)
        return _back_to(channel, "back")

    return router


def _values(configuration: Configuration, draft: Draft) -> Thresholds:
    current = configuration.thresholds.current(draft.channel)
    return checked_values(draft, current, labels=configuration.labels(draft.channel))


def _dry_run(configuration: Configuration, draft: Draft, tried: Policy) -> DryRun:
    current = configuration.thresholds.current(draft.channel)
    return configuration.dry_run(draft.channel, current, tried, records=draft.records)


def _back_to(channel: str, said: str) -> RedirectResponse:
    return RedirectResponse(f"{PLACE}?{urlencode({'channel': channel, 'said': said})}", status_code=303)


def _shown(
    configuration: Configuration,
    draft: Draft,
    by: Principal,
    *,
    status: int = 200,
    tried: Policy | None = None,
    problem: str | None = None,
    said: str | None = None,
) -> HTMLResponse:
    """The page with what is in the form, and with what `tried` would change, else with the policy in use."""
    thresholds = configuration.thresholds
    applied = thresholds.applied(draft.channel)
    return page(
        "settings_thresholds.html",
        status=status,
        draft=draft,
        applied=applied,
        channel=applied.channel.channel,
        channels=[each.channel for each in thresholds.channels.values()],
        rows=rows_of(draft, applied),
        labels=configuration.labels(draft.channel),
        result=_dry_run(configuration, draft, tried or applied.policy),
        history=thresholds.history(draft.channel),
        may_save=by.may(Permission.SETTINGS_EDIT),
        sizes=RECORDS,
        error=problem,
        said=said,
    )
