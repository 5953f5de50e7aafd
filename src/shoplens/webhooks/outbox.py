"""Write events where they happen, in the transaction of the caller: none is lost, and none sent without its cause."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from shoplens.db.tables import new_id, to_row
from shoplens.telemetry.tracing import traceparent
from shoplens.webhooks.entities import Delivery, DeliveryState, Event
from shoplens.webhooks.repository import EndpointRepository
from shoplens.webhooks.tables import webhook_deliveries, webhook_events


def emit(tx: Connection, event_type: str, data: dict[str, Any], *, now: datetime) -> None:
    """Write an event, with a delivery for each endpoint that wants it now. Without such an endpoint nothing is stored.

    `data` must be JSON, and hold nothing that its receivers may not know.
    """
    endpoints = [each for each in EndpointRepository(tx).enabled() if each.wants(event_type)]
    if not endpoints:
        return
    event = Event(id=new_id(now), at=now, type=event_type, data=data, traceparent=traceparent())
    tx.execute(insert(webhook_events).values(to_row(event)))
    deliveries = [
        Delivery(
            id=new_id(now),
            event_id=event.id,
            endpoint_id=endpoint.id,
            state=DeliveryState.PENDING,
            attempts=0,
            next_at=now,
        )
        for endpoint in endpoints
    ]
    tx.execute(insert(webhook_deliveries), [to_row(each) for each in deliveries])
