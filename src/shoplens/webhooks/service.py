"""Look after endpoints and deliveries: add, test, disable, remove; list, and send again what failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shoplens.advice import meant
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.telemetry.tracing import traceparent
from shoplens.webhooks.entities import EVERY_EVENT, Delivery, DeliveryState, Endpoint, Event
from shoplens.webhooks.errors import DeliveryNotFound, EndpointInvalid, EndpointNotFound
from shoplens.webhooks.repository import DeliveryRepository, DeliveryView, EndpointRepository
from shoplens.webhooks.signature import new_secret, require_secret
from shoplens.webhooks.targets import Targets

TEST_EVENT = "webhook.test"
MAX_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """An endpoint with the number of its deliveries by state."""

    endpoint: Endpoint
    counts: Mapping[DeliveryState, int]


class WebhookService:
    """All methods block. `event_types` are those that the features emit."""

    def __init__(
        self, database: Database, *, targets: Targets, event_types: Sequence[str], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._targets = targets
        self.event_types = tuple(event_types)
        self._clock = clock

    def add(self, url: str, *, events: Sequence[str] = (), secret: str | None = None) -> Endpoint:
        """A new endpoint for these types of events, all if none is named. Raises EndpointInvalid."""
        self._targets.require_url(url)
        for each in events:
            if each != EVERY_EVENT and each not in self.event_types:
                known = ", ".join(self.event_types)
                raise EndpointInvalid(
                    f"There is no event {each[:80]!r}{meant(each, self.event_types)}; known: {known}."
                )
        endpoint = Endpoint(
            id=self._new_id(),
            created_at=self._clock(),
            url=url,
            secret=new_secret() if secret is None else require_secret(secret),
            events=EVERY_EVENT if EVERY_EVENT in events or not events else " ".join(dict.fromkeys(events)),
        )
        with self._database.transaction() as tx:
            EndpointRepository(tx).add(endpoint)
        return endpoint

    def endpoints(self) -> list[EndpointView]:
        """Every endpoint, oldest first."""
        with self._database.reading() as tx:
            counts = DeliveryRepository(tx).count()
            return [
                EndpointView(endpoint=each, counts=counts.get(each.id, {})) for each in EndpointRepository(tx).all()
            ]

    def set_enabled(self, endpoint_id: str, enabled: bool) -> None:
        """A disabled endpoint gets no new events; what waits for it goes on waiting. Raises EndpointNotFound."""
        with self._database.transaction() as tx:
            found = EndpointRepository(tx).change(endpoint_id, disabled_at=None if enabled else self._clock())
        _require(found, endpoint_id)

    def remove(self, endpoint_id: str) -> None:
        """Remove an endpoint with its deliveries. Raises EndpointNotFound."""
        with self._database.transaction() as tx:
            found = EndpointRepository(tx).remove(endpoint_id)
        _require(found, endpoint_id)

    def test(self, endpoint_id: str) -> str:
        """Send an event of the type `webhook.test`; the id of its delivery. Raises EndpointNotFound."""
        now = self._clock()
        data = {"message": "This is a test."}
        event = Event(id=self._new_id(), at=now, type=TEST_EVENT, data=data, traceparent=traceparent())
        delivery = Delivery(
            id=self._new_id(), event_id=event.id, endpoint_id=endpoint_id, state=DeliveryState.PENDING, attempts=0,
            next_at=now,
        )  # fmt: skip
        with self._database.transaction() as tx:
            _require(EndpointRepository(tx).get(endpoint_id) is not None, endpoint_id)
            DeliveryRepository(tx).add(event, delivery)
        return delivery.id

    def deliveries(
        self,
        *,
        state: DeliveryState | None = None,
        endpoint_id: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[DeliveryView]:
        """Deliveries, newest first; `before` is the id of the last one on the page before."""
        with self._database.reading() as tx:
            return DeliveryRepository(tx).page(
                state=state, endpoint_id=endpoint_id, before=before, limit=min(limit, MAX_PAGE)
            )

    def replay(self, delivery_id: str) -> None:
        """Send this delivery again, with all its attempts. Raises DeliveryNotFound while it still waits."""
        with self._database.transaction() as tx:
            count = DeliveryRepository(tx).replay(now=self._clock(), delivery_id=delivery_id, endpoint_id=None)
        if not count:
            raise DeliveryNotFound(f"No delivery {delivery_id[:64]!r} has ended, so none can be sent again.")

    def replay_dead(self, endpoint_id: str | None = None) -> int:
        """Send all dead deliveries again, those of one endpoint if it is named. How many there were."""
        with self._database.transaction() as tx:
            return DeliveryRepository(tx).replay(now=self._clock(), delivery_id=None, endpoint_id=endpoint_id)

    def _new_id(self) -> str:
        return new_id(self._clock())


def _require(found: bool, endpoint_id: str) -> None:
    if not found:
        raise EndpointNotFound(f"There is no webhook endpoint {endpoint_id[:64]!r}.")
