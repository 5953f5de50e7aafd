"""GET /monitoring/alerts: what fires, what is pending, and what ended last, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.monitoring.alerts.entities import Alert, AlertStatus, Severity
from shoplens.monitoring.alerts.notices import runbook_path
from shoplens.monitoring.alerts.rules import BY_NAME
from shoplens.monitoring.alerts.service import AlertService, AlertsView
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response


class AlertOut(Schema):
    """One alert."""

    id: str
    alert: str = Field(examples=["ShoplensBatchStalled"])
    subject: str = Field(description="The channel or model; empty: the whole server.")
    severity: Severity
    status: AlertStatus
    title: str
    summary: str = Field(description="What is wrong, with figures.")
    since: datetime
    fired_at: datetime | None = Field(description="Null while it is pending.")
    resolved_at: datetime | None
    notified_at: datetime | None = Field(description="When people were last told; null: not yet.")
    silenced_until: datetime | None
    action: str
    look_at: str = Field(description="Path of the page to look at.")
    runbook: str = Field(description="Path of the page that says what to do.")

    @classmethod
    def of(cls, alert: Alert, view: AlertsView) -> Self:
        """With what its rule says."""
        rule, silence = BY_NAME[alert.rule], view.silence(alert)
        return cls(
            id=alert.id,
            alert=alert.rule,
            subject=alert.subject,
            severity=alert.severity,
            status=alert.status,
            title=rule.title,
            summary=alert.summary,
            since=alert.since,
            fired_at=alert.fired_at,
            resolved_at=alert.resolved_at,
            notified_at=alert.notified_at,
            silenced_until=None if silence is None else silence.until,
            action=rule.act(alert.subject),
            look_at=rule.look_at(alert.subject),
            runbook=runbook_path(alert.rule),
        )


class AlertsOut(Schema):
    """All of them; `looked_at` is when a server last looked, null where none did."""

    looked_at: datetime | None
    firing: list[AlertOut]
    pending: list[AlertOut]
    resolved: list[AlertOut]

    @classmethod
    def of(cls, view: AlertsView) -> Self:
        """What pages show."""
        lists = {
            name: [AlertOut.of(alert, view) for alert in getattr(view, name)]
            for name in ("firing", "pending", "resolved")
        }
        return cls(looked_at=view.looked_at, **lists)


def alerts_router(alerts: AlertService) -> APIRouter:
    """The route of alerts."""
    router = api_router(tags=["monitoring"], dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get("/monitoring/alerts", response_model=AlertsOut, summary="What is wrong now, and what was")
    def list_alerts() -> Response:
        """What fires, what must still hold for its waiting time, and the last 20 that ended."""
        return json_response(AlertsOut.of(alerts.view()))

    return router
