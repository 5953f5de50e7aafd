"""The page Webhooks: endpoints, their deliveries, and what failed."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.db.tables import is_id
from shoplens.messages import gettext, marked, whole_number
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router
from shoplens.webhooks.entities import DeliveryState, Endpoint
from shoplens.webhooks.errors import EndpointInvalid
from shoplens.webhooks.service import TEST_EVENT, WebhookService

_PAGE = "/console/webhooks"
_PER_PAGE = 50
_MAX_FIELD = 2_000
_EVENT_WORDS = {
    "photo.published": marked("A photo is published"),
    "photo.refused": marked("A photo is refused"),
    "photo.held": marked("A photo is held for a person"),
    "photo.erased": marked("A photo is erased"),
    "appeal.decided": marked("An appeal is decided"),
    "model.promoted": marked("A model goes live"),
    "alert.firing": marked("An alert begins"),
    "alert.resolved": marked("An alert ends"),
}


def webhook_pages(webhooks: WebhookService) -> APIRouter:
    """One page, and its forms."""
    router = page_router(dependencies=[guarded(Permission.WEBHOOKS_ADMIN)])

    @router.get(_PAGE)
    def overview(request: Request) -> HTMLResponse:
        return _overview(webhooks, request)

    @router.post(_PAGE)
    async def add(request: Request) -> Response:
        form = await request.form()
        url = str(form.get("url", ""))[:_MAX_FIELD].strip()
        events = [str(each)[:_MAX_FIELD] for each in form.getlist("events")]
        try:
            endpoint = webhooks.add(url, events=events)
        except EndpointInvalid as error:
            return _overview(webhooks, request, error=str(error), url=url, status=422)
        return _overview(webhooks, request, added=endpoint, status=201)

    @router.post(_PAGE + "/replay")
    def replay_dead() -> Response:
        return _back(
            gettext("%(replay_dead)s deliveries are sent again.", replay_dead=whole_number(webhooks.replay_dead()))
        )

    @router.post(_PAGE + "/deliveries/{delivery_id}/replay")
    def replay(delivery_id: str) -> Response:
        webhooks.replay(delivery_id)
        return _back(gettext("The event is sent again."))

    @router.post(_PAGE + "/{endpoint_id}/{action}")
    def change(endpoint_id: str, action: str) -> Response:
        match action:
            case "test":
                webhooks.test(endpoint_id)
                return _back(gettext("A test event is on its way. Load the page again to see what came of it."))
            case "disable" | "enable":
                webhooks.set_enabled(endpoint_id, action == "enable")
                return _back(
                    gettext("The endpoint is enabled.") if action == "enable" else gettext("The endpoint is disabled.")
                )
            case "remove":
                webhooks.remove(endpoint_id)
                return _back(gettext("The endpoint is removed."))
        raise EndpointInvalid(f"There is no action {action[:40]!r} on an endpoint.")

    return router


def event_words(event: str) -> str:
    """When an event is sent, in a few words."""
    return gettext(_EVENT_WORDS.get(event, ""))


def _overview(
    webhooks: WebhookService,
    request: Request,
    *,
    added: Endpoint | None = None,
    error: str | None = None,
    url: str = "",
    status: int = 200,
) -> HTMLResponse:
    wanted = request.query_params.get("state", "")
    state = DeliveryState(wanted) if wanted in set(DeliveryState) else None
    before = request.query_params.get("before", "")
    deliveries = webhooks.deliveries(state=state, before=before if is_id(before) else None, limit=_PER_PAGE)
    views = webhooks.endpoints()
    return page(
        "webhooks.html",
        status=status,
        views=views,
        dead=sum(view.counts.get(DeliveryState.DEAD, 0) for view in views),
        event_types=[each for each in webhooks.event_types if each != TEST_EVENT],
        deliveries=deliveries,
        older=deliveries[-1].delivery.id if len(deliveries) == _PER_PAGE else None,
        state=state,
        states=list(DeliveryState),
        added=added,
        error=error,
        url=url,
        done=request.query_params.get("done", "")[:200],
    )


def _back(done: str) -> Response:
    return RedirectResponse(f"{_PAGE}?done={quote(done)}", status_code=303)


add_filters(event_words)
