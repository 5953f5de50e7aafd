"""The pages of API keys and of the audit log, for admins. They work without a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import MOST_KEY_DAYS, ApiKey, Permission, Principal
from shoplens.accounts.keys import MAX_KEY_NAME, KeyService
from shoplens.errors import RequestInvalid, ShoplensError
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import PageRoute, add_filters, page

_PAGE_ENTRIES: Final = 100
_MAX_FILTER: Final = 200

PERMISSION_WORDS: Final[Mapping[Permission, str]] = {
    Permission.PREDICT: "Classify photos",
    Permission.RECORDS_READ: "Read predictions and their photos",
    Permission.RECORDS_DELETE: "Delete predictions with their photos",
    Permission.FEEDBACK_WRITE: "Give feedback on predictions",
    Permission.BATCH_READ: "Read batch runs and their items",
    Permission.BATCH_REVIEW: "Answer, retry and delete batch items",
    Permission.BATCH_RUN: "Import photos and start batch runs",
    Permission.MODELS_READ: "Read about the installed models",
    Permission.MODELS_ADMIN: "Publish, promote, roll back and retrain models",
    Permission.MODERATION_SUBMIT: "Send customers' photos, ask for their state",
    Permission.MODERATION_REVIEW: "Decide customers' photos",
    Permission.MODERATION_ADMIN: "Change the policy of moderation, erase a customer",
    Permission.CATALOGUE_READ: "Read products, categories and suggestions",
    Permission.CATALOGUE_WRITE: "Ask for suggestions, add products, decide their categories",
    Permission.CATALOGUE_ADMIN: "Import and export products, change the tree of categories",
    Permission.LABELS_READ: "Read and export label sets",
    Permission.WEBHOOKS_ADMIN: "Manage webhooks",
    Permission.METRICS_READ: "Read /metrics",
    Permission.MONITORING_READ: "Read the pages of monitoring",
    Permission.DOCS_READ: "Read the API's documentation",
    Permission.ACCOUNTS_ADMIN: "Manage people and API keys",
    Permission.AUDIT_READ: "Read the audit log",
}
"""What each permission allows, for the pages and the table in the documentation."""

Admin = Annotated[Principal, Depends(requires(Permission.ACCOUNTS_ADMIN))]


def key_state(key: ApiKey) -> str:
    """`active`, `expired` or `revoked`."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "active"


add_filters(key_state, permission_words=PERMISSION_WORDS)


def key_pages(keys: KeyService, changed: Callable[[], None]) -> APIRouter:
    """The list of keys with the form for a new one. `changed` is called after a key was made or revoked."""
    router = APIRouter(route_class=PageRoute)

    def key_page(*, status: int = 200, **more: object) -> HTMLResponse:
        shown = page("keys.html", status=status, keys=keys.all(), max_name=MAX_KEY_NAME, **more)
        shown.headers["Cache-Control"] = "no-store"
        return shown

    @router.get("/console/keys")
    def show(_: Admin, said: str = "") -> HTMLResponse:
        return key_page(said=said, new=None, error=None)

    @router.post("/console/keys")
    def create(
        request: Request,
        by: Admin,
        *,
        name: Annotated[str, Form()] = "",
        scopes: Annotated[list[Permission] | None, Form()] = None,
        days: Annotated[str, Form()] = "",
        per_minute: Annotated[str, Form()] = "",
    ) -> HTMLResponse:
        try:
            lasts = _number(days, "days", most=MOST_KEY_DAYS)
            key, text = keys.create(
                by,
                name=name,
                scopes=scopes or (),
                expires_at=None if lasts is None else datetime.now(UTC) + timedelta(days=lasts),
                per_minute=_number(per_minute, "requests per minute", most=1_000_000),
            )
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return key_page(status=status_of(type(error)), said="", new=None, error=detail)
        changed()
        return key_page(status=201, said="", new=(key, text), error=None)

    @router.post("/console/keys/{key_id}/revoke")
    def revoke(by: Admin, key_id: str) -> RedirectResponse:
        keys.revoke(by, key_id)
        changed()
        return RedirectResponse("/console/keys?said=revoked", status_code=303)

    return router


def audit_pages(audit: AuditLog) -> APIRouter:
    """The audit log, newest first, with filters."""
    router = APIRouter(route_class=PageRoute, dependencies=[guarded(Permission.AUDIT_READ)])

    @router.get("/console/audit")
    def show(request: Request) -> HTMLResponse:
        query = {
            name: request.query_params.get(name, "").replace("\x00", "").strip()[:_MAX_FILTER]
            for name in ("actor", "action", "target", "since", "until")
        }
        wanted = AuditFilter(
            actor=query["actor"] or None,
            action=query["action"] or None,
            target=query["target"] or None,
            since=_day(query["since"]),
            until=_day(query["until"], end=True),
        )
        before = _number(request.query_params.get("before", ""), "before", most=(1 << 63) - 1)
        found = audit.page(wanted, limit=_PAGE_ENTRIES + 1, before=before)
        older = found[_PAGE_ENTRIES - 1].seq if len(found) > _PAGE_ENTRIES else None
        given = {name: text for name, text in query.items() if text}
        return page(
            "audit.html",
            entries=found[:_PAGE_ENTRIES],
            query=query,
            active=bool(given),
            older=None if older is None else urlencode({**given, "before": older}),
            export=urlencode({name: text for name, text in given.items() if name not in ("since", "until")}),
            actions=audit.actions(),
            paged=before is not None,
        )

    return router


def _number(text: str, what: str, *, most: int) -> int | None:
    """Raises RequestInvalid."""
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise RequestInvalid(f"Write the {what} as a number from 1 to {most}, or leave the field empty.")
    return int(text)


def _day(text: str, *, end: bool = False) -> datetime | None:
    """The beginning of a day in UTC, or its end. Raises RequestInvalid."""
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1) if end else day
    except (ValueError, OverflowError):
        raise RequestInvalid(f'"{text}" is not a date. Write dates as 2026-01-31.') from None
