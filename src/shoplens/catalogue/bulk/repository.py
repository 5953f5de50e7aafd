"""Jobs that accept many suggestions or take that back, over a transaction that the caller opened."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from shoplens.catalogue.entities import BulkJob
from shoplens.catalogue.errors import BulkNotFound
from shoplens.catalogue.tables import bulk_jobs
from shoplens.db.tables import from_row, to_row

_jobs = bulk_jobs.c


class BulkRepository:
    """The table `catalogue_bulk_jobs`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, job: BulkJob) -> None:
        """Raises RecordRefused while the channel has an active one."""
        self._tx.execute(insert(bulk_jobs), to_row(job))

    def update(self, job: BulkJob) -> None:
        """Write how far it is."""
        row = to_row(job)
        self._tx.execute(update(bulk_jobs).where(_jobs.id == row.pop("id")).values(row))

    def claim(self, job: BulkJob, before: BulkJob) -> bool:
        """Write `job` if nobody has worked on it since `before` was read."""
        row = to_row(job)
        unchanged = _jobs.beat_at == before.beat_at, _jobs.finished_at.is_(None)
        return (
            self._tx.execute(update(bulk_jobs).where(_jobs.id == row.pop("id"), *unchanged).values(row)).rowcount == 1
        )

    def get(self, job_id: str, *, lock: bool = False) -> BulkJob:
        """With `lock` nobody else changes it in this transaction. Raises BulkNotFound."""
        query = select(bulk_jobs).where(_jobs.id == job_id)
        row = self._tx.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise BulkNotFound(f"There is no bulk acceptance {job_id[:40]!r}.")
        return from_row(BulkJob, row)

    def active(self, channel: str) -> BulkJob | None:
        """The one of a channel that has not ended."""
        row = self._tx.execute(select(bulk_jobs).where(_jobs.channel == channel, _jobs.active == 1)).one_or_none()
        return None if row is None else from_row(BulkJob, row)

    def newest(self, channel: str, *, limit: int) -> list[BulkJob]:
        """The newest first."""
        query = select(bulk_jobs).where(_jobs.channel == channel).order_by(_jobs.id.desc()).limit(limit)
        return [from_row(BulkJob, row) for row in self._tx.execute(query)]

    def unfinished(self) -> list[BulkJob]:
        """Those that have not ended, of all channels."""
        return [from_row(BulkJob, row) for row in self._tx.execute(select(bulk_jobs).where(_jobs.active == 1))]
