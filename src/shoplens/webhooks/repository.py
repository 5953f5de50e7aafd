"""Endpoints, events and deliveries in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Select, and_, delete, exists, func, insert, or_, select, update

from shoplens.db.tables import from_row, make_id, to_row
from shoplens.webhooks.entities import Delivery, DeliveryState, Endpoint, Event
from shoplens.webhooks.tables import webhook_deliveries, webhook_endpoints, webhook_events

_endpoints: Final = webhook_endpoints.c
_events: Final = webhook_events.c
_deliveries: Final = webhook_deliveries.c
_IN_ONE_STATEMENT: Final = 500


class EndpointRepository:
    """The table `webhook_endpoints`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, endpoint: Endpoint) -> None:
        """Store a new endpoint."""
        self._tx.execute(insert(webhook_endpoints).values(to_row(endpoint)))

    def all(self) -> list[Endpoint]:
        """Every endpoint, oldest first."""
        return [from_row(Endpoint, row) for row in self._tx.execute(select(webhook_endpoints).order_by(_endpoints.id))]

    def enabled(self) -> list[Endpoint]:
        """Those that get new events."""
        return [each for each in self.all() if each.disabled_at is None]

    def get(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint with this id."""
        row = self._tx.execute(select(webhook_endpoints).where(_endpoints.id == endpoint_id)).one_or_none()
        return None if row is None else from_row(Endpoint, row)

    def change(self, endpoint_id: str, *, disabled_at: datetime | None) -> bool:
        """Disable the endpoint, or enable it (None). False where there is none."""
        changed = update(webhook_endpoints).where(_endpoints.id == endpoint_id).values(disabled_at=disabled_at)
        return self._tx.execute(changed).rowcount == 1

    def remove(self, endpoint_id: str) -> bool:
        """Remove the endpoint with its deliveries. False where there is none."""
        self._tx.execute(delete(webhook_deliveries).where(_deliveries.endpoint_id == endpoint_id))
        return self._tx.execute(delete(webhook_endpoints).where(_endpoints.id == endpoint_id)).rowcount == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A delivery whose turn it is, with everything that sending it takes."""

    delivery: Delivery
    event: Event
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """A delivery as a list shows it."""

    delivery: Delivery
    type: str
    at: datetime
    url: str


class DeliveryRepository:
    """The tables `webhook_deliveries` and `webhook_events`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def is_due(self, *, now: datetime, busy: Sequence[str]) -> bool:
        """Whether `lease` would find something."""
        return self._tx.scalar(_due(now, busy).limit(1)) is not None

    def lease(self, *, now: datetime, until: datetime, busy: Sequence[str], limit: int) -> list[Sending]:
        """Take up to `limit` deliveries whose turn it is, at most one per endpoint and none of the `busy` ones.

        Nobody else gets them before `until`. One after another per endpoint: a slow one holds back only its own.
        """
        chosen = list(self._tx.scalars(_due(now, busy).limit(limit)))
        if not chosen:
            return []
        # The condition again: on PostgreSQL another process may have taken one since.
        free = or_(_deliveries.lease_until.is_(None), _deliveries.lease_until <= now)
        taken = (
            update(webhook_deliveries)
            .where(_deliveries.id.in_(chosen), _deliveries.state == DeliveryState.PENDING.value, free)
            .values(lease_until=until)
            .returning(_deliveries.id)
        )
        ids = list(self._tx.scalars(taken))
        return [
            Sending(
                delivery=from_row(Delivery, row),
                event=from_row(Event, self._tx.execute(select(webhook_events).where(_events.id == row.event_id)).one()),
                endpoint=from_row(
                    Endpoint,
                    self._tx.execute(select(webhook_endpoints).where(_endpoints.id == row.endpoint_id)).one(),
                ),
            )
            for row in self._tx.execute(
                select(webhook_deliveries).where(_deliveries.id.in_(ids)).order_by(_deliveries.id)
            ).all()
        ]

    def update(self, delivery: Delivery) -> None:
        """Write what an attempt changed."""
        self._tx.execute(update(webhook_deliveries).where(_deliveries.id == delivery.id).values(to_row(delivery)))

    def add(self, event: Event, delivery: Delivery) -> None:
        """Store an event for one endpoint."""
        self._tx.execute(insert(webhook_events).values(to_row(event)))
        self._tx.execute(insert(webhook_deliveries).values(to_row(delivery)))

    def page(
        self, *, state: DeliveryState | None, endpoint_id: str | None, before: str | None, limit: int
    ) -> list[DeliveryView]:
        """Deliveries, newest first."""
        found = (
            select(webhook_deliveries, _events.type, _events.at, _endpoints.url)
            .join(webhook_events, _events.id == _deliveries.event_id)
            .join(webhook_endpoints, _endpoints.id == _deliveries.endpoint_id)
            .order_by(_deliveries.id.desc())
            .limit(limit)
        )
        if state is not None:
            found = found.where(_deliveries.state == state.value)
        if endpoint_id is not None:
            found = found.where(_deliveries.endpoint_id == endpoint_id)
        if before is not None:
            found = found.where(_deliveries.id < before)
        return [
            DeliveryView(delivery=from_row(Delivery, row), type=row.type, at=row.at, url=row.url)
            for row in self._tx.execute(found)
        ]

    def count(self) -> dict[str, dict[DeliveryState, int]]:
        """How many deliveries each endpoint has, by state."""
        found = select(_deliveries.endpoint_id, _deliveries.state, func.count()).group_by(
            _deliveries.endpoint_id, _deliveries.state
        )
        counts: dict[str, dict[DeliveryState, int]] = {}
        for endpoint_id, state, count in self._tx.execute(found):
            counts.setdefault(endpoint_id, {})[DeliveryState(state)] = count
        return counts

    def oldest_at(self, *, dead_since: datetime) -> datetime | None:
        """When the oldest event happened that an enabled endpoint has not taken, those given up since then, too."""
        waits = or_(
            _deliveries.state == DeliveryState.PENDING.value,
            and_(_deliveries.state == DeliveryState.DEAD.value, _deliveries.finished_at >= dead_since),
        )
        found = (
            select(func.min(_events.at))
            .join(webhook_deliveries, _deliveries.event_id == _events.id)
            .join(webhook_endpoints, _endpoints.id == _deliveries.endpoint_id)
            .where(waits, _endpoints.disabled_at.is_(None))
        )
        return self._tx.execute(found).scalar()

    def replay(self, *, now: datetime, delivery_id: str | None, endpoint_id: str | None) -> int:
        """Let deliveries be sent again: this one, or all dead ones (of one endpoint). How many there were."""
        again = update(webhook_deliveries).values(
            state=DeliveryState.PENDING.value, attempts=0, next_at=now, lease_until=None, finished_at=None
        )
        if delivery_id is not None:
            again = again.where(_deliveries.id == delivery_id, _deliveries.state != DeliveryState.PENDING.value)
        else:
            again = again.where(_deliveries.state == DeliveryState.DEAD.value)
        if endpoint_id is not None:
            again = again.where(_deliveries.endpoint_id == endpoint_id)
        return self._tx.execute(again).rowcount

    def remove_before(self, moment: datetime, *, limit: int) -> int:
        """Remove up to `limit` events whose deliveries were all made before `moment`. How many there were."""
        waiting = select(_deliveries.event_id).where(_deliveries.state != DeliveryState.DELIVERED.value)
        old = select(_events.id).where(_events.at < moment, _events.id.not_in(waiting)).order_by(_events.id)
        ids = list(self._tx.scalars(old.limit(limit)))
        self._tx.execute(delete(webhook_deliveries).where(_deliveries.event_id.in_(ids)))
        return self._tx.execute(delete(webhook_events).where(_events.id.in_(ids))).rowcount


def _due(now: datetime, busy: Sequence[str]) -> Select[tuple[str]]:
    """For each endpoint that is not busy, the oldest delivery whose turn it is."""
    return (
        select(func.min(_deliveries.id))
        .join(webhook_endpoints, _endpoints.id == _deliveries.endpoint_id)
        .where(
            _deliveries.state == DeliveryState.PENDING.value,
            _deliveries.next_at <= now,
            or_(_deliveries.lease_until.is_(None), _deliveries.lease_until <= now),
            _deliveries.endpoint_id.not_in(busy),
            _endpoints.disabled_at.is_(None),
        )
        .group_by(_deliveries.endpoint_id)
    )


class EventRepository:
    """The table `webhook_events`, as far as events are deleted."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def remove_of_customer(self, customer: str) -> int:
        """Remove every event that names a customer, sent or not, with its deliveries; how many there were."""
        theirs = select(_events.id).where(_events.data["customer"].as_string() == customer)
        return self._remove(self._tx.scalars(theirs).all())

    def remove_old(self, *, before: datetime, limit: int) -> int:
        """Remove at most `limit` events older than that, unless one still waits to be sent; how many there were."""
        waits = exists().where(_deliveries.event_id == _events.id, _deliveries.state == DeliveryState.PENDING.value)
        old = select(_events.id).where(_events.id < _first_id(before), ~waits).order_by(_events.id).limit(limit)
        return self._remove(self._tx.scalars(old).all())

    def _remove(self, event_ids: Sequence[str]) -> int:
        for first in range(0, len(event_ids), _IN_ONE_STATEMENT):
            these = event_ids[first : first + _IN_ONE_STATEMENT]
            self._tx.execute(delete(webhook_deliveries).where(_deliveries.event_id.in_(these)))
            self._tx.execute(delete(webhook_events).where(_events.id.in_(these)))
        return len(event_ids)


def _first_id(moment: datetime) -> str:
    """The least id of the millisecond of `moment`: ids begin with their time."""
    return make_id(max(0, int(moment.timestamp() * 1000)), bytes(10))
