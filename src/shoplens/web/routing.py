"""The routers of features: what all operations of the API have in common, and what all pages have.

FastAPI's `include_router` analyses each route a second time, which took half of the time in which the application was
built. So a router has these options from its first route on, and the application takes its routes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute

from shoplens.advice import meant
from shoplens.errors import RequestInvalid
from shoplens.web.problems import MEDIA_TYPE
from shoplens.web.rendering import PageRoute

_PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "The request was refused; `code` says why.", "content": _PROBLEM_CONTENT},
    "5XX": {"description": "The server cannot respond now; `code` says why.", "content": _PROBLEM_CONTENT},
}


def api_router(
    *,
    tags: list[str],
    prefix: str = "",
    dependencies: Sequence[Dependency] = (),
    route_class: type[APIRoute] = APIRoute,
    any_parameters: bool = False,
) -> APIRouter:
    """A router of JSON operations. They refuse unknown names in the query, unless `any_parameters` is set."""
    refusing = [] if any_parameters else [Depends(refuse_unknown_parameters)]
    return APIRouter(
        prefix=prefix,
        tags=[*tags],
        dependencies=[*refusing, *dependencies],
        route_class=route_class,
        responses=_PROBLEMS,
        generate_unique_id_function=operation_id,
    )


def page_router(*, dependencies: Sequence[Dependency] = ()) -> APIRouter:
    """A router of pages for people: errors are pages, and the API's document does not list them."""
    return APIRouter(route_class=PageRoute, dependencies=list(dependencies), include_in_schema=False)


def operation_id(route: APIRoute) -> str:
    """The name of an operation for generated clients, from its method and path unless the route names it.

    `GET /runs/{id}/items` is list_run_items, `GET /runs/{id}` get_run, `DELETE /runs/{id}` delete_run, `POST /runs`
    create_run, `POST /runs/{id}/retry` retry_run, `GET /runs.csv` export_runs.
    """
    *owners, last = [part for part in route.path.strip("/").split("/") if not part.startswith("{")]
    name, _, ending = last.partition(".")
    singular = name.removesuffix("s")
    (method,) = route.methods or {"GET"}
    verb = {"GET": "get", "POST": "create", "PUT": "replace", "PATCH": "update", "DELETE": "delete"}[method]
    if method == "POST" and "{" in route.path:
        verb, singular = name, ""
    elif ending:
        verb, singular = "export", name
    elif method == "GET" and singular != name and not route.path.endswith("}"):
        verb, singular = "list", name
    return "_".join(filter(None, [verb, *(owner.removesuffix("s") for owner in owners), singular]))


async def refuse_unknown_parameters(request: Request) -> None:
    """Raises RequestInvalid for a name in the query that the route does not take, which would change nothing."""
    if not request.query_params:
        return
    known = _query_names(request.scope["route"].dependant)
    for name in request.query_params.keys() - known:
        raise RequestInvalid(f"There is no parameter {name[:100]!r} here{meant(name[:100], known)}.")


def _query_names(dependant: Dependant) -> set[str]:
    own = {each.alias for each in dependant.query_params}
    return own.union(*(_query_names(each) for each in dependant.dependencies))
