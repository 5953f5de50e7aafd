"""The pages Registry and one registered model: versions, what is live since when, and who changed what and why."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import principal_of
from shoplens.accounts.entities import Permission
from shoplens.errors import NotFound, ShoplensError
from shoplens.messages import gettext
from shoplens.registry.entities import MAX_WHY, Alias, Reason
from shoplens.registry.publishing import RegistryService
from shoplens.registry.registry_api import READERS, AliasChangeIn, ModelsAdmin, change_alias, publish_version
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import page
from shoplens.web.routing import page_router

_PAGE = "/console/registry"
_SHOWN = 50


def registry_pages(registry: RegistryService) -> APIRouter:
    """The list, one model, and its forms. They work without a script."""
    router = page_router()

    def every(
        request: Request, *, status: int = 200, error: str | None = None, chosen: str = "", why: str = ""
    ) -> HTMLResponse:
        publishes = principal_of(request).may(Permission.MODELS_ADMIN)
        return page(
            "registry.html", status=status, models=registry.all(), place=registry.place, error=error, chosen=chosen,
            unpublished=[str(ref) for ref in registry.unpublished()] if publishes else [], why=why, max_why=MAX_WHY,
        )  # fmt: skip

    @router.get(_PAGE, dependencies=READERS)
    def all_models(request: Request) -> HTMLResponse:
        return every(request)

    @router.post(_PAGE)
    def publish(
        request: Request,
        principal: ModelsAdmin,
        *,
        model: Annotated[str, Form(max_length=200)],
        why: Annotated[str, Form()] = "",
    ) -> Response:
        name, _, version = model.partition("@")
        try:
            published = publish_version(registry, name, version, principal, why=why)
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return every(request, status=status_of(type(error)), error=detail, chosen=model, why=why[:MAX_WHY])
        said = gettext("%(version)s is published. It goes live when you promote it.", version=published.ref)
        return RedirectResponse(f"{_PAGE}/{quote(name)}?done={quote(said)}", status_code=303)

    def one(
        name: str,
        *,
        status: int = 200,
        error: str | None = None,
        done: str = "",
        why: str = "",
        before: str | None = None,
    ) -> HTMLResponse:
        model = registry.model(name)
        shown = registry.changes(name, before=before, limit=_SHOWN)
        held = {version: alias for alias, version in model.aliases.by_alias.items()}
        return page(
            "registered.html",
            status=status,
            model=model,
            versions=list(reversed(model.versions)),
            held=held,
            history=shown.entries,
            earlier=shown.next,
            before=before,
            error=error,
            done=done,
            why=why,
            max_why=MAX_WHY,
        )

    @router.get(_PAGE + "/{name}", dependencies=READERS)
    def model(request: Request, name: str) -> HTMLResponse:
        before = request.query_params.get("before", "")[:200]
        return one(name, done=request.query_params.get("done", "")[:200], before=before or None)

    @router.post(_PAGE + "/{name}/aliases/{alias}")
    def change(
        request: Request,
        principal: ModelsAdmin,
        *,
        name: str,
        alias: Alias,
        action: Annotated[Literal["promote", "rollback", "withdraw"], Form()],
        etag: Annotated[str, Form(max_length=500)] = "",
        version: Annotated[str, Form(max_length=64)] = "",
        why: Annotated[str, Form()] = "",
    ) -> Response:
        try:
            Reason(by=principal.name, why=why)
            body = AliasChangeIn(action=action, version=version or None, why=why, etag=etag)
            entry = change_alias(registry, name, alias, body, principal)
        except NotFound:
            raise
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return one(name, status=status_of(type(error)), error=detail, why=why[:MAX_WHY])
        said = (
            gettext("%(after)s is the %(alias)s now.", after=entry.after, alias=alias)
            if entry.after
            else gettext("There is no %(alias)s any more.", alias=alias)
        )
        return RedirectResponse(f"{_PAGE}/{quote(name)}?done={quote(said)}", status_code=303)

    return router
