"""An endpoint of another system, an event for it, and the state of its delivery. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

EVERY_EVENT: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where events go. `secret` signs them (`whsec_…`); `events` are types with spaces between, "*" means all."""

    id: str
    created_at: datetime
    url: str
    secret: str
    events: str
    disabled_at: datetime | None = None

    def wants(self, event_type: str) -> bool:
        """Whether events of this type go there."""
        return self.events == EVERY_EVENT or event_type in self.events.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, such as `photo.published`, written in the transaction in which it happened.

    `traceparent` names the trace of the request or run in which it did; None without tracing.
    """

    id: str
    at: datetime
    type: str
    data: dict[str, Any]
    traceparent: str | None = None


class DeliveryState(StrEnum):
    """Of one event to one endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """All attempts failed; it can be sent again by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one endpoint. `lease_until` is set while a process sends it."""

    id: str
    event_id: str
    endpoint_id: str
    state: DeliveryState
    attempts: int
    next_at: datetime
    lease_until: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    finished_at: datetime | None = None
