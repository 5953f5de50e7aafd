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
from shoplens.messages import gettext, marked
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

_PAGE_ENTRIES: Final = 100
_MAX_FILTER: Final = 200

PERMISSION_WORDS: Final[Mapping[Permission, str]] = {
    Permission.PREDICT: marked("Classify photos"),
    Permission.RECORDS_READ: marked("Read predictions and their photos"),
    Permission.RECORDS_DELETE: marked("Delete predictions with their photos"),
    Permission.FEEDBACK_WRITE: marked("Give feedback on predictions"),
    Permission.BATCH_READ: marked("Read batch runs and their items"),
    Permission.BATCH_REVIEW: marked("Answer, retry and delete batch items"),
    Permission.BATCH_RUN: marked("Import photos and start batch runs"),
    Permission.MODELS_READ: marked("Read about the installed models"),
    Permission.MODELS_ADMIN: marked("Publish, promote, roll back and retrain models"),
    Permission.MODERATION_SUBMIT: marked("Send shoppers' photos, ask for their state"),
    Permission.MODERATION_REVIEW: marked("Decide shoppers' photos"),
    Permission.MODERATION_ADMIN: marked("Change the policy of moderation, erase a customer"),
    Permission.CATALOGUE_READ: marked("Read products, categories and suggestions"),
    Permission.CATALOGUE_WRITE: marked("Ask for suggestions, add products, decide their categories"),
    Permission.CATALOGUE_ADMIN: marked("Import and export products, change the tree of categories"),
    Permission.LABELS_READ: marked("Read and export label sets"),
    Permission.WEBHOOKS_ADMIN: marked("Manage webhooks"),
    Permission.METRICS_READ: marked("Read /metrics"),
    Permission.MONITORING_READ: marked("Read the pages of monitoring"),
    Permission.MONITORING_ADMIN: marked("Silence alerts"),
    Permission.DOCS_READ: marked("Read the API's documentation"),
    Permission.ACCOUNTS_ADMIN: marked("Manage people and API keys"),
    Permission.AUDIT_READ: marked("Read the audit log"),
    Permission.SETTINGS_READ: marked("See the settings and where each comes from"),
    Permission.SETTINGS_EDIT: marked("Edit thresholds"),
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
    router = page_router()

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
                per_minute=_number(per_minute, gettext("requests per minute"), most=1_000_000),
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
    router = page_router(dependencies=[guarded(Permission.AUDIT_READ)])

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
