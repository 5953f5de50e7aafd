"""`shoplens webhooks …`: list, add, remove and test endpoints; list deliveries and send them again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import Cell, Value, show_table

if TYPE_CHECKING:
    from shoplens.webhooks.service import WebhookService

webhooks_app = Commands(help="Send events to other systems.")

EndpointId = Annotated[str, typer.Argument(help="Id of the endpoint, as `shoplens webhooks list` prints it.")]


@contextmanager
def _service(data_dir: Path | None) -> Iterator[WebhookService]:
    from shoplens.platform.parts import build_database
    from shoplens.platform.webhooks import build_webhooks

    settings = settings_for(data_dir)
    database = build_database(settings)
    try:
        yield build_webhooks(settings, database)
    finally:
        database.close()


@webhooks_app.command("list", examples=["shoplens webhooks list"])
@handle_errors
def list_endpoints(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the endpoints with the number of deliveries by state."""
    from shoplens.webhooks.entities import DeliveryState

    with _service(data_dir) as webhooks:
        views = webhooks.endpoints()
    if as_json:
        rows = [
            {
                "id": view.endpoint.id,
                "url": view.endpoint.url,
                "events": view.endpoint.events.split(),
                "enabled": view.endpoint.disabled_at is None,
                "counts": view.counts,
            }
            for view in views
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    heads = ("ENDPOINT", "STATE", "URL", "EVENTS", *(state.value.upper() for state in DeliveryState))
    table: list[tuple[Value | Cell, ...]] = [
        (view.endpoint.id, _state(view.endpoint.disabled_at is None), view.endpoint.url, view.endpoint.events,
         *(view.counts.get(state, 0) for state in DeliveryState))
        for view in views
    ]  # fmt: skip
    show_table(heads, table, nothing="No endpoint. Add one with `shoplens webhooks add URL`.")


def _state(enabled: bool) -> Cell:
    return Cell(shown="enabled", plain="enabled", mood="good") if enabled else Cell(shown="disabled", plain="disabled")


@webhooks_app.command(examples=["shoplens webhooks add https://shop.example/hooks --event photo.published"])
@handle_errors
def add(
    url: Annotated[str, typer.Argument(help="Where events go, such as https://shop.example/hooks/photos.")],
    event: Annotated[list[str] | None, typer.Option(help="A type of event (may be repeated); all if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Add an endpoint, and print its secret: it is not shown again."""
    with _service(data_dir) as webhooks:
        endpoint = webhooks.add(url, events=event or [])
    typer.echo(f"Added {endpoint.id}. Its secret, for checking signatures:")
    typer.echo(endpoint.secret)


@webhooks_app.command(examples=["shoplens webhooks remove 01J8ZK3V5QW7"])
@handle_errors
def remove(endpoint: EndpointId, data_dir: DataDir = None) -> None:
    """Remove an endpoint with its deliveries."""
    with _service(data_dir) as webhooks:
        webhooks.remove(endpoint)
    typer.echo(f"Removed {endpoint}.")


@webhooks_app.command("test", examples=["shoplens webhooks test 01J8ZK3V5QW7"])
@handle_errors
def send_test(endpoint: EndpointId, data_dir: DataDir = None) -> None:
    """Let a running server send a test event."""
    with _service(data_dir) as webhooks:
        delivery = webhooks.test(endpoint)
    typer.echo(f"A running server sends it; `shoplens webhooks deliveries` shows what came of {delivery}.")


@webhooks_app.command(examples=["shoplens webhooks deliveries --state dead"])
@handle_errors
def deliveries(
    state: Annotated[str | None, typer.Option(help="Only those that are pending, delivered or dead.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 50,
    data_dir: DataDir = None,
) -> None:
    """List deliveries, newest first."""
    from shoplens.errors import RequestInvalid
    from shoplens.webhooks.entities import DeliveryState

    if state is not None and state not in set(DeliveryState):
        raise RequestInvalid(f"There is no state {state!r}; there are: {', '.join(DeliveryState)}.")
    with _service(data_dir) as webhooks:
        found = webhooks.deliveries(state=DeliveryState(state) if state else None, limit=limit)
    heads = ("DELIVERY", "STATE", "EVENT", "URL", "ATTEMPTS", "ANSWER")
    rows = [
        (each.delivery.id, each.delivery.state.value, each.type, each.url, each.delivery.attempts,
         str(each.delivery.last_error or each.delivery.last_status or "not sent yet"))
        for each in found
    ]  # fmt: skip
    show_table(heads, rows, nothing="No deliveries.")


@webhooks_app.command(examples=["shoplens webhooks replay", "shoplens webhooks replay --endpoint 01J8ZK3V5QW7"])
@handle_errors
def replay(
    delivery: Annotated[str | None, typer.Argument(help="Id of a delivery; all dead ones if unset.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only the dead ones of this endpoint.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Let a running server send deliveries again."""
    with _service(data_dir) as webhooks:
        if delivery is not None:
            webhooks.replay(delivery)
        count = 1 if delivery is not None else webhooks.replay_dead(endpoint)
    typer.echo(f"{count:,} deliveries are sent again." if count != 1 else "1 delivery is sent again.")
