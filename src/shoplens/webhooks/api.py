"""The JSON API of webhooks: endpoints, and the deliveries to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response
from shoplens.webhooks.entities import EVERY_EVENT, DeliveryState, Endpoint
from shoplens.webhooks.repository import DeliveryView
from shoplens.webhooks.service import MAX_PAGE, WebhookService


class EndpointIn(BodySchema):
    """A new endpoint."""

    url: str = Field(max_length=2000, examples=["https://shop.example/hooks/photos"])
    events: list[str] = Field(
        default_factory=list, max_length=50, description="Types of events; all if none is named.",
        examples=[["photo.published", "photo.refused"]],
    )  # fmt: skip
    secret: str | None = Field(
        default=None, max_length=200, description="`whsec_` and base64; one is made if none is given."
    )


class EndpointOut(Schema):
    """An endpoint. `counts` has the number of its deliveries by state."""

    id: str
    created_at: datetime
    url: str
    events: list[str]
    enabled: bool
    counts: dict[DeliveryState, int]

    @classmethod
    def of(cls, endpoint: Endpoint, counts: dict[DeliveryState, int]) -> EndpointOut:
        """The endpoint without its secret."""
        return cls(
            id=endpoint.id,
            created_at=endpoint.created_at,
            url=endpoint.url,
            events=endpoint.events.split(),
            enabled=endpoint.disabled_at is None,
            counts=counts,
        )


class NewEndpointOut(EndpointOut):
    """A new endpoint with its secret, which is shown only now."""

    secret: str


class EndpointChangeIn(BodySchema):
    """Whether new events go to the endpoint."""

    enabled: bool


class DeliveryOut(Schema):
    """One event on its way to one endpoint."""

    id: str
    event_id: str
    endpoint_id: str
    type: str = Field(examples=["photo.published"])
    at: datetime
    url: str
    state: DeliveryState
    attempts: int
    next_at: datetime | None
    last_status: int | None
    last_error: str | None
    finished_at: datetime | None

    @classmethod
    def of(cls, view: DeliveryView) -> DeliveryOut:
        """`next_at` only while it waits."""
        delivery = view.delivery
        return cls(
            id=delivery.id,
            event_id=delivery.event_id,
            endpoint_id=delivery.endpoint_id,
            type=view.type,
            at=view.at,
            url=view.url,
            state=delivery.state,
            attempts=delivery.attempts,
            next_at=delivery.next_at if delivery.state is DeliveryState.PENDING else None,
            last_status=delivery.last_status,
            last_error=delivery.last_error,
            finished_at=delivery.finished_at,
        )


class DeliveryPageOut(Schema):
    """A page, newest first; `older` is the value for `before` of the next one."""

    items: list[DeliveryOut]
    older: str | None


class ReplayIn(BodySchema):
    """Which dead deliveries to send again."""

    endpoint_id: str | None = Field(default=None, max_length=64, description="Those of one endpoint; all if left out.")


class ReplayOut(Schema):
    """How many deliveries are sent again."""

    replayed: int


def webhooks_router(webhooks: WebhookService) -> APIRouter:
    """Routes for those who run the shop's systems."""
    router = api_router(prefix="/webhooks", tags=["webhooks"], dependencies=[guarded(Permission.WEBHOOKS_ADMIN)])

    @router.get("", summary="All endpoints")
    def endpoints() -> list[EndpointOut]:
        """With the number of deliveries by state; `dead` ones can be sent again."""
        return [EndpointOut.of(view.endpoint, dict(view.counts)) for view in webhooks.endpoints()]

    @router.post("", status_code=201, response_model=NewEndpointOut, summary="Add an endpoint")
    def add(body: EndpointIn) -> Response:
        """Events are signed as Standard Webhooks describes, with the secret that is shown only in this answer."""
        endpoint = webhooks.add(body.url, events=body.events or [EVERY_EVENT], secret=body.secret)
        shown = EndpointOut.of(endpoint, {}).model_dump()
        return json_response(NewEndpointOut(**shown, secret=endpoint.secret), status=201)

    @router.get("/deliveries", response_model=DeliveryPageOut, summary="A page of deliveries, newest first")
    def deliveries(
        state: DeliveryState | None = None,
        endpoint_id: Annotated[str | None, Query(max_length=64)] = None,
        before: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> Response:
        """Page on with `before`, the cursor `older` of the answer."""
        found = webhooks.deliveries(state=state, endpoint_id=endpoint_id, before=before, limit=limit)
        older = found[-1].delivery.id if len(found) == limit else None
        return json_response(DeliveryPageOut(items=[DeliveryOut.of(each) for each in found], older=older))

    @router.post(
        "/deliveries/{delivery_id}/replay", status_code=204, response_class=Response, summary="Send a delivery again"
    )
    def replay(delivery_id: str) -> Response:
        """With all its attempts. The receiver knows it by its `webhook-id`."""
        webhooks.replay(delivery_id)
        return Response(status_code=204)

    @router.post("/replay", operation_id="replay_dead_deliveries", summary="Send all dead deliveries again")
    def replay_dead(body: ReplayIn) -> ReplayOut:
        """After the receiver was away for more than a day."""
        return ReplayOut(replayed=webhooks.replay_dead(body.endpoint_id))

    @router.patch("/{endpoint_id}", status_code=204, response_class=Response, summary="Disable or enable an endpoint")
    def change(endpoint_id: str, body: EndpointChangeIn) -> Response:
        """A disabled endpoint gets no new events; what waits for it is sent once it is enabled again."""
        webhooks.set_enabled(endpoint_id, body.enabled)
        return Response(status_code=204)

    @router.delete("/{endpoint_id}", status_code=204, response_class=Response, summary="Remove an endpoint")
    def remove(endpoint_id: str) -> Response:
        """With its deliveries."""
        webhooks.remove(endpoint_id)
        return Response(status_code=204)

    @router.post("/{endpoint_id}/test", status_code=202, response_class=Response, summary="Send a test event")
    def test(endpoint_id: str) -> Response:
        """An event of the type `webhook.test`; the deliveries say what came of it."""
        webhooks.test(endpoint_id)
        return Response(status_code=202)

    return router
