"""The audit log: who did what, when and from where, as rows that are only ever appended.

Each row carries the SHA-256 of its content and of the row before it, so that a row that was changed, removed, inserted
or moved shows. Rows that were removed from the end show only beside a hash that was kept elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from sqlalchemy import Connection, Select, insert, select

from shoplens.accounts.entities import Principal
from shoplens.accounts.tables import audit_log
from shoplens.db import Database
from shoplens.db.database import hold_audit
from shoplens.db.tables import distinct, from_row, to_row
from shoplens.spreadsheets import csv_chunks

BEGINNING: Final = "0" * 64
"""What stands before the first row."""
MAX_TEXT: Final = 1_000
MAX_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request came from."""

    address: str | None
    request_id: str | None


origin: Final[ContextVar[Origin | None]] = ContextVar("origin", default=None)
"""The origin of the request that is being served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row. `target` is the id or name of what was acted on, `details` what else matters; no secrets, no photos."""

    seq: int
    at: datetime
    actor_kind: str
    actor_id: str
    actor_name: str
    action: str
    target: str | None
    details: dict[str, Any]
    address: str | None
    request_id: str | None
    previous_hash: str
    hash: str = ""

    def digest(self) -> str:
        """The SHA-256 over all fields but `hash`, in hexadecimal digits."""
        fields = {**asdict(self), "at": self.at.astimezone(UTC).isoformat(timespec="microseconds")}
        del fields["hash"]
        return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries; None means any."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditLog:
    """Appends entries and reads them. Methods block."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def record(
        self,
        tx: Connection,
        principal: Principal,
        action: str,
        *,
        target: str | None = None,
        details: Mapping[str, Any] | None = None,
        address: str | None = None,
        request_id: str | None = None,
    ) -> AuditEntry:
        """Append an entry within the caller's transaction: it is there if and only if the change is.

        `action` is the thing and the verb, such as `key.revoked`. `address` and `request_id` are those of the request
        that is being served unless given. Call it last: on PostgreSQL others wait to append until `tx` ends.
        """
        came_from = origin.get()
        if came_from is not None:
            address, request_id = address or came_from.address, request_id or came_from.request_id
        request_id = request_id or structlog.contextvars.get_contextvars().get("request_id")
        hold_audit(tx)
        last = tx.execute(select(audit_log.c.seq, audit_log.c.hash).order_by(audit_log.c.seq.desc()).limit(1)).first()
        unsigned = AuditEntry(
            seq=last.seq + 1 if last else 1,
            at=self._clock(),
            actor_kind=principal.kind.value,
            actor_id=principal.id,
            actor_name=principal.name,
            action=action,
            target=None if target is None else target.replace("\x00", "")[:MAX_TEXT],
            details=orjson.loads(orjson.dumps(dict(details or {}), default=str)),
            address=address,
            request_id=request_id,
            previous_hash=last.hash if last else BEGINNING,
        )
        entry = replace(unsigned, hash=unsigned.digest())
        tx.execute(insert(audit_log), to_row(entry))
        return entry

    def note(
        self, principal: Principal, action: str, *, target: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        """`record` in a transaction of its own, for what changes no row. Raises DatabaseUnavailable."""
        with self._database.transaction() as tx:
            self.record(tx, principal, action, target=target, details=details)

    def page(self, wanted: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditEntry]:
        """At most `limit` entries, newest first, below the number `before`. Raises DatabaseUnavailable."""
        query = _matching(wanted).order_by(audit_log.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit_log.c.seq < before)
        with self._database.reading() as tx:
            return [from_row(AuditEntry, row) for row in tx.execute(query)]

    def actions(self, limit: int = 500) -> list[str]:
        """The distinct actions in alphabetical order, at most `limit`."""
        with self._database.reading() as tx:
            return list(tx.scalars(distinct(audit_log.c.action).limit(limit)))

    def all(self, wanted: AuditFilter | None = None) -> Iterator[AuditEntry]:
        """Every entry that matches, oldest first, in short transactions. Raises DatabaseUnavailable."""
        after = -1
        query = _matching(wanted or AuditFilter()).order_by(audit_log.c.seq).limit(MAX_PAGE)
        while True:
            with self._database.reading() as tx:
                entries = [from_row(AuditEntry, row) for row in tx.execute(query.where(audit_log.c.seq > after))]
            yield from entries
            if len(entries) < MAX_PAGE:
                return
            after = entries[-1].seq


def _matching(wanted: AuditFilter) -> Select[Any]:
    query = select(audit_log)
    for column, value in (
        (audit_log.c.actor_id, wanted.actor),
        (audit_log.c.action, wanted.action),
        (audit_log.c.target, wanted.target),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(audit_log.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(audit_log.c.at < wanted.until)
    return query


AUDIT_COLUMNS: Final = tuple(field.name for field in fields(AuditEntry))
_LINES_PER_CHUNK: Final = 200


def audit_csv(entries: Iterable[AuditEntry]) -> Iterator[str]:
    """Chunks of CSV text; `details` is JSON."""
    yield from csv_chunks(AUDIT_COLUMNS, (tuple(_plain(entry, as_text=True).values()) for entry in entries))


def audit_json_lines(entries: Iterable[AuditEntry]) -> Iterator[bytes]:
    """Chunks of JSON Lines."""
    lines: list[bytes] = []
    for entry in entries:
        lines.append(orjson.dumps(_plain(entry), option=orjson.OPT_APPEND_NEWLINE))
        if len(lines) == _LINES_PER_CHUNK:
            yield b"".join(lines)
            lines.clear()
    yield b"".join(lines)


def _plain(entry: AuditEntry, *, as_text: bool = False) -> dict[str, Any]:
    row = {name: getattr(entry, name) for name in AUDIT_COLUMNS}
    row["at"] = entry.at.isoformat()
    if as_text:
        row["details"] = orjson.dumps(entry.details, option=orjson.OPT_SORT_KEYS).decode()
    return row
