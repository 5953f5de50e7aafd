"""The page Moderation, one photo with everything, and a search. All forms work without a script."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, remember_browser, requires, told_apart
from shoplens.accounts.entities import Permission, Principal
from shoplens.db.tables import is_id
from shoplens.errors import Conflict, RequestInvalid
from shoplens.messages import gettext, marked
from shoplens.moderation import presenting
from shoplens.moderation.entities import Moderator, PhotoState, View
from shoplens.moderation.photos import PhotoPage
from shoplens.moderation.queue.api import QueuePhotoOut, known_id, progress_out
from shoplens.moderation.queue.review import MOST_UNDONE, Choice
from shoplens.moderation.queue.service import blinded
from shoplens.moderation.repository import PhotoFilter
from shoplens.moderation.service import Moderation
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

HOME = "/console/moderation"
GRID = 24
_FOUND = 48
_MAX_QUERY = 200
_SAID = {
    "accepted": marked("Accepted. The photo is published."),
    "rejected": marked("Rejected. The photo is not shown."),
    "skipped": marked("Skipped. That photo comes again at the end."),
    "escalated": marked("Escalated. Another person decides."),
    "undone": marked("Taken back. The photo is as it was before."),
    "chosen": marked("Saved."),
    "selection": marked("The selection was decided."),
}

add_filters(
    presenting.why,
    presenting.signal_title,
    presenting.queue_word,
    presenting.reason_title,
    presenting.refusal_words,
    presenting.photo_state_word,
    presenting.photo_outcome,
    presenting.entry_words,
    presenting.counted,
    presenting.pace_words,
    presenting.agreement_words,
)

FormText = Annotated[str, Form(max_length=2_000)]
Reviewer = Annotated[Principal, Depends(requires(Permission.MODERATION_REVIEW))]


def moderation_pages(moderation: Moderation) -> APIRouter:
    """The queue as a grid or photo by photo."""
    router = page_router(dependencies=[guarded(Permission.MODERATION_REVIEW)])
    queue = moderation.queue

    @router.get("/moderation")
    def start() -> RedirectResponse:
        return RedirectResponse(HOME, status_code=307)

    @router.get(HOME)
    def show(request: Request, channel: str = "", view: str = "", said: str = "") -> HTMLResponse:
        by = told_apart(request)
        name = moderation.channel(channel or next(iter(moderation.channels), None)).name
        grid = view == "grid"
        claimed = queue.claim(name, by=by, count=GRID if grid else 1)
        policy = moderation.policy_of(name)
        progress = queue.progress(name, by=by)
        shown = page(
            "moderation.html",
            channel=moderation.channel(name),
            channels=list(moderation.channels.values()),
            grid=grid,
            photos=claimed.photos,
            bars={photo.id: presenting.signal_bars(photo, policy) for photo in claimed.photos},
            context=moderation.context.of(claimed.photos[0].id, by=by) if claimed.photos and not grid else None,
            rules=queue.rules(name),
            progress=progress,
            moderator=queue.moderator(by, channel=name),
            undoable=[each.photo_id for each in queue.undoable(by=by, limit=MOST_UNDONE)],
            boot={
                "photos": [QueuePhotoOut.of(photo, policy).model_dump(mode="json") for photo in claimed.photos],
                "progress": progress_out(progress).model_dump(mode="json"),
            },
            me=hashlib.sha256(by.id.encode()).hexdigest()[:16],
            said=gettext(_SAID.get(said, "")),
        )
        remember_browser(shown, request, by)
        return shown

    return router


def form_pages(moderation: Moderation) -> APIRouter:
    """What the keys do, as forms."""
    router = page_router(dependencies=[guarded(Permission.MODERATION_REVIEW)])
    queue, review = moderation.queue, moderation.review

    @router.post(f"{HOME}/photos/{{photo_id}}")
    def act(
        photo_id: str,
        by: Reviewer,
        *,
        action: FormText,
        reason: FormText = "",
        comment: FormText = "",
        answer: FormText = "",
        seen: Annotated[int | None, Form(ge=0)] = None,
        back: FormText = "",
    ) -> RedirectResponse:
        known_id(photo_id)
        if action == "skip":
            queue.skip(photo_id, by=by)
            said = "skipped"
        elif action == "escalate":
            review.escalate(photo_id, by=by, comment=comment, seen=seen)
            said = "escalated"
        elif action == "undo":
            review.undo(photo_id, by=by)
            said = "undone"
        else:
            choice = replace(_choice(action, reason, comment), answer=answer)
            review.decide(photo_id, choice, by=by, seen=seen)
            said = "accepted" if choice.state is PhotoState.PUBLISHED else "rejected"
        place = f"{HOME}/photos/{photo_id}" if back == "photo" else HOME
        return RedirectResponse(f"{place}?{urlencode({'said': said})}", status_code=303)

    @router.post(f"{HOME}/selection")
    async def selection(request: Request, by: Reviewer) -> RedirectResponse:
        form = await request.form(max_files=0, max_fields=300)
        chosen = [str(each).partition(":") for each in form.getlist("photo")]
        choice = _choice(str(form.get("action", "")), str(form.get("reason", "")), "")
        if not chosen:
            raise RequestInvalid("Select photos first.")
        seen = {photo_id: int(revision) for photo_id, _, revision in chosen if revision.isdecimal()}
        failed = [each for each in review.decide_many(seen, choice, by=by) if each.error is not None]
        if failed:
            raise Conflict(f"{len(seen) - len(failed)} photos were decided, {len(failed)} not: {failed[0].error}")
        return RedirectResponse(f"{HOME}?view=grid&said=selection", status_code=303)

    @router.post(f"{HOME}/moderator")
    def choose(
        by: Reviewer,
        view: Annotated[View, Form()] = View.BLUR,
        pause_after: FormText = "",
        letters: FormText = "",
        paused: FormText = "",
    ) -> RedirectResponse:
        after = int(pause_after) if pause_after.isdecimal() and 0 < int(pause_after) <= 1000 else None
        chosen = Moderator(principal_id=by.id, view=view, pause_after=after, letters=bool(letters))
        queue.choose(chosen, paused=bool(paused))
        return RedirectResponse(f"{HOME}?said=chosen", status_code=303)

    return router


def photo_pages(moderation: Moderation) -> APIRouter:
    """One photo with everything, and the search."""
    router = page_router(dependencies=[guarded(Permission.MODERATION_REVIEW)])

    @router.get(f"{HOME}/photos/{{photo_id}}")
    def one(request: Request, photo_id: str, said: str = "") -> HTMLResponse:
        by = told_apart(request)
        context = moderation.context.of(known_id(photo_id), by=by)
        channel = context.photo.channel
        mine = moderation.queue.undoable(by=by, limit=MOST_UNDONE)
        shown = page(
            "moderation_photo.html",
            photo=context.photo,
            bars=presenting.signal_bars(context.photo, moderation.policy_of(channel)),
            context=context,
            rules=moderation.queue.rules(channel),
            moderator=moderation.queue.moderator(by, channel=channel),
            can_undo=any(each.photo_id == photo_id for each in mine),
            said=gettext(_SAID.get(said, "")),
        )
        remember_browser(shown, request, by)
        return shown

    @router.get(f"{HOME}/search")
    def search(request: Request, by: Reviewer) -> Response:
        query = request.query_params
        text = query.get("q", "").replace("\x00", "").strip()[:_MAX_QUERY]
        if is_id(text):
            return RedirectResponse(f"{HOME}/photos/{text}", status_code=303)
        state = query.get("state", "")
        if state and state not in set(PhotoState):
            raise RequestInvalid(f"{state[:40]!r} is not a state. Use one of: {', '.join(PhotoState)}.")
        wanted = PhotoFilter(channel=query.get("channel") or None, state=PhotoState(state) if state else None)
        before = query.get("before", "")
        found = _found(moderation, wanted, text, before=before if is_id(before) else None)
        values: dict[str, Any] = {"q": text, "state": state, "channel": query.get("channel", "")}
        return page(
            "moderation_search.html",
            found=found,
            older=urlencode({**values, "before": found.older}) if found.older else None,
            channels=list(moderation.channels.values()),
            moderator=moderation.queue.moderator(by, channel=next(iter(moderation.channels), "")),
            **values,
        )

    return router


def _found(moderation: Moderation, wanted: PhotoFilter, text: str, *, before: str | None) -> PhotoPage:
    """Photos of this customer, or if there are none, of this product. Nothing of a first opinion is shown."""
    filters = [replace(wanted, customer=text), replace(wanted, product=text)] if text else [wanted]
    for each in filters:
        found = moderation.photos.page(each, limit=_FOUND, before=before)
        if found.photos:
            break
    return replace(found, photos=[blinded(photo) for photo in found.photos])


def _choice(action: str, reason: str, comment: str) -> Choice:
    if action not in ("accept", "reject"):
        raise RequestInvalid("Choose what to do with the photo.")
    if action == "accept":
        return Choice(state=PhotoState.PUBLISHED, comment=comment)
    return Choice(state=PhotoState.REFUSED, reason=reason or None, comment=comment)
