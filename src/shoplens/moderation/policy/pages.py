"""The page of a channel's policy: thresholds over the scores of the last photos, a dry run, saving, the history."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.errors import ShoplensError
from shoplens.messages import gettext, marked
from shoplens.moderation.policy.draft import (
    Draft,
    all_typed,
    draft_in_use,
    read_draft,
    signal_rows,
    state_change,
    typed,
)
from shoplens.moderation.policy.dry_run import MAX_PHOTOS, DryRun
from shoplens.moderation.service import Moderation
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

PLACE: Final = "/console/moderation/policy"
SIZES: Final = (200, 1_000, 5_000, MAX_PHOTOS)
"""Between how many photos for a dry run a person chooses."""
_MOST_FIELDS: Final = 400
_HISTORY: Final = 20
_SAID: Final = {
    "saved": marked("Saved. All servers use it within two seconds."),
    "back": marked("The earlier rules apply again."),
}

add_filters(state_change, typed, all_typed)


async def _form(request: Request) -> FormData:
    return await request.form(max_files=0, max_fields=_MOST_FIELDS)


Admin = Annotated[Principal, Depends(requires(Permission.MODERATION_ADMIN))]
Reviewer = Annotated[Principal, Depends(requires(Permission.MODERATION_REVIEW))]
Filled = Annotated[FormData, Depends(_form)]


def policy_pages(moderation: Moderation) -> APIRouter:
    """The page, its form, and going back to an earlier version."""
    router = page_router()

    @router.get(PLACE)
    def show(by: Reviewer, channel: str = "", said: str = "") -> HTMLResponse:
        name = moderation.channel(channel or next(iter(moderation.channels), None)).name
        return _shown(
            moderation, draft_in_use(moderation.policies.applied(name)), by, said=gettext(_SAID.get(said, ""))
        )

    @router.post(f"{PLACE}/try")
    def try_out(request: Request, form: Filled, by: Reviewer) -> HTMLResponse:
        draft = read_draft(form, moderation)
        status, problem, result = 200, None, None
        try:
            result = moderation.dry_run(draft.channel, draft.source, photos=draft.photos)
            draft = draft.completed(moderation.policies.parse(draft.channel, draft.source))
        except ShoplensError as error:
            status, problem = status_of(type(error)), public_detail(error, request_id_of(request))
        if form.get("part") != "result":
            return _shown(moderation, draft, by, status=status, tried=result, problem=problem)
        is_hard = moderation.queue.rules(draft.channel).is_hard
        return page("_policy_result.html", status=status, result=result, draft=draft, is_hard=is_hard, error=problem)

    @router.post(PLACE)
    def save(request: Request, form: Filled, by: Admin) -> Response:
        draft = read_draft(form, moderation)
        try:
            moderation.policies.save(
                draft.channel, draft.source, based_on=draft.based_on, note=draft.note, by=by
            )  # fmt: skip
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return _shown(moderation, draft, by, status=status_of(type(error)), problem=detail)
        return _back_to(draft.channel, "saved")

    @router.post(f"{PLACE}/rollback")
    def roll_back(
        by: Admin,
        channel: Annotated[str, Form(max_length=200)],
        version: Annotated[int, Form(ge=0, lt=1 << 31)],
        based_on: Annotated[int, Form(ge=0)],
        note: Annotated[str, Form(max_length=2_000)] = "",
    ) -> RedirectResponse:
        name = moderation.channel(channel).name
        moderation.policies.roll_back(name, version, note=note, by=by, based_on=based_on)
        return _back_to(name, "back")

    return router


def _back_to(channel: str, said: str) -> RedirectResponse:
    return RedirectResponse(f"{PLACE}?{urlencode({'channel': channel, 'said': said})}", status_code=303)


def _shown(
    moderation: Moderation,
    draft: Draft,
    by: Principal,
    *,
    status: int = 200,
    tried: DryRun | None = None,
    problem: str | None = None,
    said: str | None = None,
) -> HTMLResponse:
    """The page with what is in the form, and with the result of `tried`, else of the policy in use."""
    policies = moderation.policies
    applied = policies.applied(draft.channel)
    result = tried or moderation.dry_run(draft.channel, None, photos=draft.photos)
    return page(
        "moderation_policy.html",
        status=status,
        draft=draft,
        applied=applied,
        channels=list(moderation.channels.values()),
        rows=signal_rows(policies.signals(draft.channel), applied.policy, draft, result),
        unknown=policies.unknown_signals(draft.channel, applied.policy),
        dropped=policies.dropped(applied) if said else (),
        result=result,
        tried=tried is not None,
        is_hard=moderation.queue.rules(draft.channel).is_hard,
        history=policies.history(draft.channel, limit=_HISTORY),
        may_save=by.may(Permission.MODERATION_ADMIN),
        sizes=SIZES,
        error=problem,
        said=said,
    )
