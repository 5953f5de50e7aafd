"""The page Alerts of monitoring, and a page for each runbook. Both work without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.mail.entities import MailKind, MailState
from shoplens.mail.service import MailService
from shoplens.monitoring.alerts.notices import FIRING_EVENT, PAGE, RESOLVED_EVENT
from shoplens.monitoring.alerts.rules import BY_NAME, RULES
from shoplens.monitoring.alerts.service import AlertService
from shoplens.monitoring.errors import AlertNotFound
from shoplens.web.rendering import page
from shoplens.web.routing import page_router
from shoplens.webhooks.entities import DeliveryState
from shoplens.webhooks.service import WebhookService

HOURS: Final = (1, 4, 24, 24 * 7)
_LOOKED_THROUGH: Final = 50

Reader = Annotated[Principal, Depends(requires(Permission.MONITORING_READ))]
Silencer = Annotated[Principal, Depends(requires(Permission.MONITORING_ADMIN))]
Key = Annotated[str, Form(max_length=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Somebody who is told, and what came of the last time. `arrived` is None before it, and while it is on its way."""

    way: str
    to: str
    at: datetime | None = None
    arrived: bool | None = None
    fault: str | None = None


def alert_pages(alerts: AlertService, mails: MailService, webhooks: WebhookService) -> APIRouter:
    """GET /console/monitoring/alerts, its forms, and a page per rule."""
    router = page_router()

    @router.get(PAGE)
    def show(principal: Reader, done: str = "") -> HTMLResponse:
        return page(
            "alerts.html",
            view=alerts.view(),
            rules=BY_NAME,
            hours=HOURS,
            may_silence=principal.may(Permission.MONITORING_ADMIN),
            destinations=[*_mail(mails), *_webhooks(webhooks)],
            off=alerts.rules.off,
            done=done[:200],
        )

    @router.post(f"{PAGE}/silence")
    def silence(principal: Silencer, key: Key, hours: Annotated[float, Form()]) -> Response:
        alerts.silence(key, hours=hours, by=principal.name)
        return _back(f"Nobody is told of {key} for {hours:g} hours.")

    @router.post(f"{PAGE}/unsilence")
    def unsilence(_: Silencer, key: Key) -> Response:
        alerts.end_silence(key)
        return _back(f"People are told of {key} again.")

    @router.get(PAGE + "/{name}")
    def runbook(_: Reader, name: str) -> HTMLResponse:
        if name not in BY_NAME:
            raise AlertNotFound(f"There is no alert {name[:100]!r}.")
        return page("runbook.html", rule=BY_NAME[name], rules=RULES)

    return router


def _mail(mails: MailService) -> Sequence[Destination]:
    if mails.server is None or not mails.recipients.alerts:
        return []
    newest = next((each for each in mails.overview().newest if each.kind is MailKind.ALERT), None)
    to = ", ".join(mails.recipients.alerts)
    if newest is None:
        return [Destination(way="Mail", to=to)]
    arrived = {MailState.SENT: True, MailState.DEAD: False, MailState.PENDING: None}[newest.state]
    return [Destination(way="Mail", to=to, at=newest.created_at, arrived=arrived, fault=newest.last_error)]


def _webhooks(webhooks: WebhookService) -> Sequence[Destination]:
    found = []
    for view in webhooks.endpoints():
        endpoint = view.endpoint
        if endpoint.disabled_at is not None or not endpoint.wants(FIRING_EVENT):
            continue
        last = next(
            (
                each
                for each in webhooks.deliveries(endpoint_id=endpoint.id, limit=_LOOKED_THROUGH)
                if each.type in {FIRING_EVENT, RESOLVED_EVENT}
            ),
            None,
        )
        if last is None:
            found.append(Destination(way="Webhook", to=endpoint.url))
            continue
        arrived = {DeliveryState.DELIVERED: True, DeliveryState.DEAD: False, DeliveryState.PENDING: None}
        delivery = last.delivery
        found.append(
            Destination(
                way="Webhook", to=endpoint.url, at=last.at, arrived=arrived[delivery.state], fault=delivery.last_error
            )
        )
    return found


def _back(done: str) -> Response:
    return RedirectResponse(f"{PAGE}?done={quote(done)}", status_code=303)
