"""The JSON API of API keys and of the audit log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.audit import MAX_PAGE, AuditFilter, AuditLog, audit_csv, audit_json_lines
from shoplens.accounts.entities import ApiKey, Permission, Principal
from shoplens.accounts.keys import MAX_KEY_NAME, MOST_PER_MINUTE, KeyService
from shoplens.web.downloads import download
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Moment, Schema, ZonedMoment, json_response

_CSV = "text/csv; charset=utf-8"
_JSON_LINES = "application/jsonl"

Admin = Annotated[Principal, Depends(requires(Permission.ACCOUNTS_ADMIN))]
Auditor = Annotated[Principal, Depends(requires(Permission.AUDIT_READ))]


class KeyOut(Schema):
    """An API key, without the key itself: nobody can read that again."""

    id: str = Field(examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])
    created_at: datetime
    name: str = Field(examples=["review form"])
    prefix: str = Field(examples=["slk_5kYw0aTq"], description="What the key begins with.")
    scopes: list[Permission]
    created_by: str
    per_minute: int | None
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, stored: ApiKey, **more: Any) -> Self:
        """What is shown of `stored`."""
        shown = {name: getattr(stored, name) for name in KeyOut.model_fields if name != "scopes"}
        return cls(scopes=sorted(stored.permissions), **shown, **more)


class NewKeyOut(KeyOut):
    """A new API key. `key` is shown here and never again."""

    key: str = Field(examples=["slk_5kYw0aTqZ0n1x2C3v4B5m6Q7w8E9r0T1y2U3i4O5p"])


class KeysOut(Schema):
    """Every API key, newest first; also expired and revoked ones."""

    keys: list[KeyOut]


class KeyIn(BodySchema):
    """What a new key may do, how often and until when."""

    name: str = Field(max_length=MAX_KEY_NAME, description="The service that uses it.", examples=["review form"])
    scopes: list[Permission] = Field(max_length=len(Permission), examples=[["predict"]])
    expires_at: ZonedMoment | None = Field(
        default=None, description="When it ends, with its zone; unset: never.", examples=["2027-01-31T00:00:00Z"]
    )
    per_minute: int | None = Field(
        default=None, ge=1, le=MOST_PER_MINUTE, description="Most requests per minute; unset: no limit of its own."
    )


class AuditEntryOut(Schema):
    """Who did what, when and from where. `hash` covers the entry and the hash of the entry before it."""

    seq: int
    at: datetime
    actor_kind: str = Field(examples=["person"])
    actor_id: str
    actor_name: str = Field(examples=["anna"])
    action: str = Field(examples=["key.created"])
    target: str | None = Field(description="The id or name of what was acted on.")
    details: dict[str, Any]
    address: str | None
    request_id: str | None
    previous_hash: str
    hash: str


class AuditPageOut(Schema):
    """A page, newest first; `older` is a value for `before`."""

    entries: list[AuditEntryOut]
    older: int | None


def keys_router(keys: KeyService, changed: Callable[[], None]) -> APIRouter:
    """/keys. `changed` is called after a key was made or revoked."""
    router = api_router(tags=["accounts"])

    @router.get(
        "/keys", dependencies=[guarded(Permission.ACCOUNTS_ADMIN)], response_model=KeysOut, summary="All API keys"
    )
    def all_keys() -> Response:
        """Without the keys themselves."""
        return json_response(KeysOut(keys=[KeyOut.of(key) for key in keys.all()]))

    @router.post("/keys", status_code=201, response_model=NewKeyOut, summary="Create an API key")
    def create(by: Admin, body: KeyIn) -> Response:
        """The key is in this response and nowhere else. It may do no more than who creates it."""
        key, text = keys.create(
            by, name=body.name, scopes=body.scopes, expires_at=body.expires_at, per_minute=body.per_minute
        )
        changed()
        response = json_response(NewKeyOut.of(key, key=text), status=201)
        response.headers["Cache-Control"] = "no-store"
        return response

    @router.delete("/keys/{key_id}", operation_id="revoke_key", response_model=KeyOut, summary="Revoke an API key")
    def revoke(by: Admin, key_id: Annotated[str, Path(max_length=64, description="The key's id.")]) -> Response:
        """It is refused from now on; other server processes notice within a few seconds."""
        key = keys.revoke(by, key_id)
        changed()
        return json_response(KeyOut.of(key))

    return router


def audit_filter(
    actor: Annotated[str | None, Query(max_length=64, description="The id of who acted.")] = None,
    action: Annotated[str | None, Query(max_length=64, examples=["key.created"])] = None,
    target: Annotated[str | None, Query(max_length=200)] = None,
    since: Annotated[Moment | None, Query(description="From this time on; UTC where no zone is given.")] = None,
    until: Annotated[Moment | None, Query(description="Up to, not including, this time.")] = None,
) -> AuditFilter:
    """The filter in the query of a request."""
    return AuditFilter(actor=actor, action=action, target=target, since=since, until=until)


Wanted = Annotated[AuditFilter, Depends(audit_filter)]


def audit_router(audit: AuditLog) -> APIRouter:
    """/audit, and the whole log as a file."""
    router = api_router(tags=["accounts"])

    @router.get(
        "/audit",
        dependencies=[guarded(Permission.AUDIT_READ)],
        operation_id="list_audit_entries",
        response_model=AuditPageOut,
        summary="A page of the audit log, newest first",
    )
    def page(
        wanted: Wanted,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Annotated[int | None, Query(ge=1, lt=1 << 63, description="The cursor `older` of a page.")] = None,
    ) -> Response:
        """Page by the cursor `older` of the response."""
        found = audit.page(wanted, limit=limit + 1, before=before)
        shown = [AuditEntryOut.model_validate(entry) for entry in found[:limit]]
        return json_response(AuditPageOut(entries=shown, older=shown[-1].seq if len(found) > limit else None))

    @router.get("/audit.csv", response_class=StreamingResponse, summary="The audit log as CSV")
    def export_csv(by: Auditor, wanted: Wanted) -> StreamingResponse:
        """Every entry that matches, oldest first, safe to open in a spreadsheet. The export is an entry itself."""
        audit.note(by, "audit.exported", details={"format": "csv"})
        return download(audit_csv(audit.all(wanted)), name="audit.csv", media_type=_CSV)

    @router.get(
        "/audit.jsonl",
        operation_id="export_audit_lines",
        response_class=StreamingResponse,
        summary="The audit log as JSON Lines",
    )
    def export_json_lines(by: Auditor, wanted: Wanted) -> StreamingResponse:
        """Every entry that matches, oldest first, one JSON object per line. The export is an entry itself."""
        audit.note(by, "audit.exported", details={"format": "jsonl"})
        return download(audit_json_lines(audit.all(wanted)), name="audit.jsonl", media_type=_JSON_LINES)

    return router
