"""Imports and the rows that they could not use, over a transaction that the caller opened."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from shoplens.catalogue.entities import ImportFault, ImportJob
from shoplens.catalogue.errors import ImportNotFound
from shoplens.catalogue.tables import import_faults, imports
from shoplens.db.tables import from_row, to_row


class ImportRepository:
    """The tables `catalogue_imports` and `catalogue_import_faults`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, job: ImportJob) -> None:
        """A new import."""
        self._tx.execute(insert(imports), to_row(job))

    def update(self, job: ImportJob) -> None:
        """Write how far it is."""
        row = to_row(job)
        self._tx.execute(update(imports).where(imports.c.id == row.pop("id")).values(row))

    def claim(self, job: ImportJob, before: ImportJob) -> bool:
        """Write `job` if nobody has worked on it since `before` was read."""
        row = to_row(job)
        unchanged = imports.c.beat_at.is_(None) if before.beat_at is None else imports.c.beat_at == before.beat_at
        mine = update(imports).where(imports.c.id == row.pop("id"), unchanged, imports.c.finished_at.is_(None))
        return self._tx.execute(mine.values(row)).rowcount == 1

    def get(self, import_id: str) -> ImportJob:
        """Raises ImportNotFound."""
        row = self._tx.execute(select(imports).where(imports.c.id == import_id)).one_or_none()
        if row is None:
            raise ImportNotFound(f"There is no import {import_id[:40]!r}.")
        return from_row(ImportJob, row)

    def newest(self, channel: str, *, limit: int) -> list[ImportJob]:
        """The newest imports first."""
        query = select(imports).where(imports.c.channel == channel).order_by(imports.c.id.desc()).limit(limit)
        return [from_row(ImportJob, row) for row in self._tx.execute(query)]

    def unfinished(self) -> list[ImportJob]:
        """Imports that have not ended, oldest first."""
        query = select(imports).where(imports.c.finished_at.is_(None)).order_by(imports.c.id)
        return [from_row(ImportJob, row) for row in self._tx.execute(query)]

    def add_faults(self, faults: Iterable[ImportFault]) -> None:
        """Append them."""
        rows = [to_row(each) for each in faults]
        if rows:
            self._tx.execute(insert(import_faults), rows)

    def faults(self, import_id: str, *, limit: int, after: int = 0) -> list[ImportFault]:
        """The next faults after a line, in the order of lines."""
        query = select(import_faults).where(import_faults.c.import_id == import_id, import_faults.c.line > after)
        rows = self._tx.execute(query.order_by(import_faults.c.line, import_faults.c.id).limit(limit))
        return [from_row(ImportFault, row) for row in rows]
