"""Who sends a request, and whether they may: the dependency that every route has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.responses import Response
from starlette.routing import Mount

from shoplens.accounts.audit import AuditLog, Origin, origin
from shoplens.accounts.entities import PERMISSIONS, Permission, Principal, PrincipalKind
from shoplens.accounts.principals import Credentials, Principals, current, note_principal
from shoplens.errors import NotAuthenticated, PermissionDenied, ShoplensError
from shoplens.messages import marked
from shoplens.web.browser import browser_of, new_browser, remember
from shoplens.web.problems import request_id_of
from shoplens.web.rendering import add_filters, badges, sections
from shoplens.web.session_cookie import require_sent_by_own_page, session_token
from shoplens.web.shares import address_of

_BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True)
class AccessRule(ABC):
    """What a route declares: a dependency that FastAPI calls. Equal rules are asked once per request.

    `permissions` are those of which one is enough; none where the rule asks for no particular one.
    """

    permissions: tuple[Permission, ...] = ()

    @abstractmethod
    async def __call__(self, request: Request) -> Principal | None:
        """Raises NotAuthenticated or PermissionDenied for a request that the rule does not let pass."""


@dataclass(frozen=True, slots=True)
class Requires(AccessRule):
    """Gives the principal of the request.

    It raises NotAuthenticated where there is none, and PermissionDenied if it has none of the permissions.
    """

    async def __call__(self, request: Request) -> Principal:
        """See the class."""
        found = await _identify(request)
        if found.permissions.isdisjoint(self.permissions):
            raise PermissionDenied(_denial(found, self.permissions))
        return found


def requires(*permissions: Permission) -> Requires:
    """A dependency that gives the principal of the request; any one of the permissions is enough."""
    return Requires(permissions)


def guarded(*permissions: Permission) -> Any:
    """The same for the `dependencies` of a router or route whose handlers do not ask who it is."""
    return Depends(Requires(permissions))


@dataclass(frozen=True, slots=True)
class Public(AccessRule):
    """Asks for nothing."""

    async def __call__(self, request: Request) -> None:
        """See the class."""


public: Final[Any] = Depends(Public())
"""For the `dependencies` of routes that everybody may use, such as the sign-in page. Every route is guarded or public:
the application refuses to start otherwise."""


@dataclass(frozen=True, slots=True)
class Authenticated(AccessRule):
    """Gives the principal of the request, with any rights. Raises NotAuthenticated."""

    async def __call__(self, request: Request) -> Principal:
        """See the class."""
        return await _identify(request)


@dataclass(frozen=True, slots=True)
class PeopleOnly(AccessRule):
    """Gives the person who sends the request, in any role. Raises NotAuthenticated and PermissionDenied."""

    async def __call__(self, request: Request) -> Principal:
        """See the class."""
        found = await _identify(request)
        if found.kind is PrincipalKind.KEY:
            raise PermissionDenied("This is for people who sign in; a key has no password, sessions or second factor.")
        if found.kind is not PrincipalKind.PERSON:
            raise NotAuthenticated("This is for people who sign in, and nobody has an account yet.")
        return found


KnownPrincipal = Annotated[Principal, Depends(Authenticated())]
"""A parameter: who sends the request, with any rights. Raises NotAuthenticated."""
SignedInPerson = Annotated[Principal, Depends(PeopleOnly())]
"""A parameter: the person who sends the request, in any role. Raises NotAuthenticated and PermissionDenied."""


@dataclass(frozen=True, slots=True)
class FromNetworks(AccessRule):
    """Lets client addresses within `networks` pass; every other request needs one of the permissions."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    async def __call__(self, request: Request) -> None:
        """See the class. Raises NotAuthenticated and PermissionDenied."""
        try:
            address = ip_address(address_of(request))
        except ValueError:  # a test's client or a socket in the file system has none
            address = None
        if address is None or not any(address in network for network in self.networks):
            await Requires(self.permissions)(request)


def guarded_metrics(networks: tuple[str, ...]) -> Any:
    """`guarded` for /metrics, open to client addresses within `networks`."""
    opened = tuple(ip_network(each, strict=False) for each in networks)
    return Depends(FromNetworks((Permission.METRICS_READ,), opened))


def principal_of(request: Request) -> Principal:
    """Who sends the request, for handlers of guarded routes."""
    found: Principal = request.state.principal
    return found


def require(request: Request, permission: Permission) -> None:
    """For guarded routes that need one more right for some of what they show. Raises PermissionDenied."""
    found = principal_of(request)
    if not found.may(permission):
        raise PermissionDenied(_denial(found, (permission,)))


def reviewer_of(request: Request) -> str | None:
    """By whom an answer is: the id of a person or key, else the number of the browser, if it has one."""
    found = principal_of(request)
    return browser_of(request) if found.kind is PrincipalKind.LOCAL else found.id


def told_apart(request: Request) -> Principal:
    """Who sends the request of a guarded page; in a system without accounts a browser gets a number, if it has none."""
    found = principal_of(request)
    if found.kind is not PrincipalKind.LOCAL or browser_of(request) is not None:
        return found
    return replace(found, id=f"browser:{new_browser()}")


def remember_browser(response: Response, request: Request, by: Principal) -> None:
    """Let the browser keep the number that `told_apart` gave."""
    remember(response, by.id.removeprefix("browser:"), secure=request.url.scheme == "https")


def requester_of(request: Request, otherwise: str) -> str:
    """The name of the person or key that asks for a run; `otherwise` in a system without accounts."""
    found = principal_of(request)
    return otherwise if found.kind is PrincipalKind.LOCAL else found.name


def note(request: Request, action: str, *, target: str | None = None, **details: object) -> None:
    """Append to the audit log what the principal of a guarded route does now. Blocks; raises DatabaseUnavailable."""
    audit: AuditLog = request.app.state.audit
    audit.note(principal_of(request), action, target=target, details=details)


async def identify_quietly(request: Request) -> Principal | None:
    """Who sends the request to a public route; None where it shows nothing valid."""
    try:
        return await _identify(request)
    except ShoplensError:
        return None


def may(permission: str) -> bool:
    """Whether the principal of this request has the permission: for templates, to leave out what it cannot use."""
    found = current.get()
    return found is not None and found.may(Permission(permission))


def signed_in() -> Principal | None:
    """The person of this request, for templates; None in a system without accounts."""
    found = current.get()
    return found if found is not None and found.kind is PrincipalKind.PERSON else None


add_filters(may=may, signed_in=signed_in)


# Deny by default


def declared(app: FastAPI) -> Iterator[tuple[RouteContext, frozenset[Permission] | None]]:
    """Every route with the permissions of which it asks for one: no permissions for a public one, None where it
    declares nothing.
    """
    for context in iter_route_contexts(app.routes):
        if isinstance(context.route, Mount):  # static files
            continue
        dependant = getattr(context, "dependant", None)
        found = [] if dependant is None else list(_marks(dependant))
        yield context, frozenset(chain.from_iterable(found)) if found else None


def public_operations(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of each operation that asks for nothing."""
    return {
        (method, context.path or "")
        for context, _ in declared(app)
        if any(isinstance(each.call, Public) for each in _tree(getattr(context, "dependant", None)))
        for method in context.methods or ()
    }


def _tree(dependant: Dependant | None) -> Iterator[Dependant]:
    if dependant is not None:
        yield dependant
        for each in dependant.dependencies:
            yield from _tree(each)


def require_declared(app: FastAPI) -> None:
    """Raises TypeError for a route that neither asks for a permission nor is public: a mistake in the code."""
    for context, permissions in declared(app):
        if permissions is None:
            raise TypeError(f"{context.methods} {context.path} is neither guarded nor public; see accounts/access.py")


def _marks(dependant: Dependant) -> Iterator[tuple[Permission, ...]]:
    if isinstance(dependant.call, AccessRule):
        yield dependant.call.permissions
    for each in dependant.dependencies:
        yield from _marks(each)


# Who it is


async def _identify(request: Request) -> Principal:
    """The principal of the request, also noted for its log lines, its templates and the audit log."""
    state = request.scope.setdefault("state", {})
    known: Principal | None = state.get("principal")
    if known is not None:
        return known
    principals: Principals = request.app.state.principals
    found = await principals.of(_credentials(request)) if await principals.closed() else local_principal(request)
    state["principal"] = found
    note_principal(found)
    sections.set(getattr(request.app.state, "sections", frozenset()))
    badges.set(getattr(request.app.state, "badges", dict))
    origin.set(Origin(address=address_of(request) or None, request_id=request_id_of(request)))
    return found


def _credentials(request: Request) -> Credentials:
    """What the request shows. Raises RequestForbidden for a cookie that another site may have sent."""
    headers = request.headers
    given = headers.get("authorization", "")
    bearer = given[len(_BEARER) :].strip() if given[: len(_BEARER)].lower() == _BEARER else ""
    bearer = bearer or headers.get("x-api-key", "")
    cookie = None if bearer or "cookie" not in headers else session_token(request)
    if cookie is not None:
        require_sent_by_own_page(request)
    return Credentials(bearer=bearer or None, cookie=cookie, address=address_of(request))


def local_principal(request: Request) -> Principal:
    """The principal of a system without accounts: it may do everything. `id` names the browser."""
    browser = browser_of(request) or "unknown"
    return Principal(
        kind=PrincipalKind.LOCAL, id=f"browser:{browser}", name="someone", permissions=frozenset(Permission)
    )


def _denial(found: Principal, permissions: tuple[Permission, ...]) -> str:
    names = " or ".join(each.value for each in permissions)
    if found.kind is PrincipalKind.KEY:
        return marked(f"The key {found.name} may not do this; it lacks the scope {names}.")
    roles = [role.value for role, granted in PERMISSIONS.items() if not granted.isdisjoint(permissions)]
    last = roles.pop()
    which = marked(f"the roles {', '.join(roles)} and {last} have") if roles else marked(f"the role {last} has")
    return marked(f"{found.name} may not do this. It takes the permission {names}, which {which}.")
