"""What routes declare: equal rules are asked once per request, and each route says what it asks for."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from shoplens.accounts import access
from shoplens.accounts.access import declared, guarded, public, require_declared, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.accounts.principals import Credentials


class Counting:
    """Principals of a system without accounts, which counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def closed(self) -> bool:
        """Nobody has an account."""
        self.asked += 1
        return False

    async def of(self, credentials: Credentials) -> Principal:
        """Not reached while nobody has an account."""
        raise AssertionError(credentials)


def test_equal_rules_are_one_rule() -> None:
    """FastAPI keeps the answer of a rule by its hash."""
    assert {requires(Permission.PREDICT)} == {requires(Permission.PREDICT), guarded(Permission.PREDICT).dependency}
    assert requires(Permission.PREDICT) != requires(Permission.METRICS_READ)


async def test_a_route_and_its_router_may_ask_for_the_same() -> None:
    """The principal is looked for once."""
    router = APIRouter(dependencies=[guarded(Permission.PREDICT)])

    @router.get("/here")
    def here(principal: Annotated[Principal, Depends(requires(Permission.PREDICT))], request: Request) -> str:
        assert access.principal_of(request) is principal
        return principal.name

    app = FastAPI()
    app.include_router(router)
    app.state.principals = principals = Counting()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        answer = await client.get("/here")
    assert (200, "someone", 1) == (answer.status_code, answer.json(), principals.asked)
    assert [frozenset({Permission.PREDICT})] == [
        permissions for route, permissions in declared(app) if route.path == "/here"
    ]


def test_an_application_with_a_route_that_declares_nothing_does_not_start() -> None:
    """It is a mistake in the code; a public route says so."""
    app = FastAPI(openapi_url=None)
    app.get("/open", dependencies=[public])(lambda: "yes")
    require_declared(app)
    app.get("/forgotten")(lambda: "no")
    with pytest.raises(TypeError, match="/forgotten"):
        require_declared(app)
