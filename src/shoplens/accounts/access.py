"""Who sends a request, and whether they may: the dependency that every route has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, Request

from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.errors import PermissionDenied
from shoplens.web.browser import browser_of


def requires(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that gives the principal of the request.

    It raises NotAuthenticated where there is none, and PermissionDenied if it may not do this.
    """

    async def principal(request: Request) -> Principal:
        found = local_principal(request)
        if not found.may(permission):
            raise PermissionDenied(f"{found.name} may not do this; it takes the permission {permission.value}.")
        request.state.principal = found
        return found

    return principal


def guarded(permission: Permission) -> Any:
    """The same for the `dependencies` of a router or route whose handlers do not ask who it is."""
    return Depends(requires(permission))


def local_principal(request: Request) -> Principal:
    """The principal of a system without accounts: it may do everything; browsers are told apart."""
    browser = browser_of(request) or "unknown"
    return Principal(
        kind=PrincipalKind.LOCAL, id=f"browser:{browser}", name="someone", permissions=frozenset(Permission)
    )
