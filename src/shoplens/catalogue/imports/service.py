"""Imports as jobs: begun by a command or by an upload, continued where a process died, and read while they run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import IO, Any, Final

from shoplens.catalogue.entities import ImportFault, ImportJob
from shoplens.catalogue.errors import ImportInvalid, ImportRunning
from shoplens.catalogue.imports.importer import ImportSource, OnProgress, ProductImporter
from shoplens.catalogue.imports.photo_archives import ArchivedPhotos
from shoplens.catalogue.imports.photo_sources import NamedPhotos, PhotoReader
from shoplens.catalogue.imports.repository import ImportRepository
from shoplens.catalogue.job_process import JobThreads, is_abandoned, owned
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import ShoplensError
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger

MAX_FAULTS: Final = 1_000
_FOLDER: Final = "catalogue/imports"
_PIECE: Final = 1 << 20
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImport:
    """An import that is to begin. `source` names the file for people, `by` who asked.

    `stamp` is the same for the same files read in the same way: an import of them that died is continued.
    """

    channel: str
    source: str
    by: str
    stamp: str | None = None
    chosen: Mapping[str, str]


class ImportService:
    """The imports of all channels. All methods may be called from many threads. Close it at the end.

    `open_photos` opens the photos that rows of a channel name, where no other place is given.
    """

    def __init__(
        self,
        database: Database,
        importer: ProductImporter,
        store: Store,
        *,
        open_photos: Callable[[str], NamedPhotos],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._importer = importer
        self._store = store
        self._open_photos = open_photos
        self._clock = clock
        self._threads = JobThreads("catalogue-import")

    def run(self, new: NewImport, source: ImportSource, *, on_progress: OnProgress = lambda _: None) -> ImportJob:
        """Import now, in this thread; an import of the same files that died is continued. The job at its end.

        Raises ImportRunning while another process imports these files, and as `ProductImporter.run`.
        """
        return self._importer.run(self._begin(new), source, on_progress=on_progress, stopping=self._threads.stopping)

    def upload(
        self, new: NewImport, table: IO[bytes], codes: IO[bytes] | None = None, archives: Sequence[IO[bytes]] = ()
    ) -> ImportJob:
        """Keep the files in the store and import them in the background; `archives` are ZIP files with photos.

        Another process goes on with it if this one dies. Raises ImportInvalid and StorageUnavailable.
        """
        columns = self._importer.check(table, new.chosen)
        if archives and columns.image is None and not columns.photos:
            raise ImportInvalid("Photos were sent, and no column of the table names them. Add one called `photos`.")
        self._archived(new.channel, archives)
        files = [table] if codes is None else [table, codes]
        now = self._clock()
        import_id = new_id(now)
        keys = [f"{_FOLDER}/{import_id}-{number}.csv" for number in range(len(files))]
        packed = [f"{_FOLDER}/{import_id}-{number}.zip" for number in range(len(archives))]
        for key, file in zip([*keys, *packed], [*files, *archives], strict=True):
            self._store.put_pieces(key, _pieces(file))
        options = {"keys": keys, "archives": packed, "chosen": dict(new.chosen)}
        job = owned(replace(self._job(new, now), id=import_id, options=options), now)
        with self._database.transaction() as tx:
            ImportRepository(tx).add(job)
        self._threads.start(job, self._work)
        return job

    def resume(self) -> int:
        """Go on with uploads whose process has ended; how many. Raises DatabaseUnavailable."""
        with self._database.reading() as tx:
            jobs = ImportRepository(tx).unfinished()
        resumed = 0
        for job in jobs:
            if "keys" in job.options and is_abandoned(job, self._clock()):
                mine = owned(job, self._clock())
                with self._database.transaction() as tx:
                    claimed = ImportRepository(tx).claim(mine, job)
                if claimed:
                    _log.info("catalogue.import_resumed", id=job.id, rows=job.rows)
                    self._threads.start(mine, self._work)
                    resumed += 1
        return resumed

    def get(self, import_id: str) -> ImportJob:
        """Raises ImportNotFound."""
        with self._database.reading() as tx:
            return ImportRepository(tx).get(import_id)

    def newest(self, channel: str, *, limit: int = 20) -> list[ImportJob]:
        """The newest imports of a channel first."""
        with self._database.reading() as tx:
            return ImportRepository(tx).newest(channel, limit=limit)

    def faults(self, import_id: str, *, limit: int = 100, after: int = 0) -> list[ImportFault]:
        """What could not be used, in the order of lines, after the line `after`; at most `MAX_FAULTS`."""
        with self._database.reading() as tx:
            return ImportRepository(tx).faults(import_id, limit=min(limit, MAX_FAULTS), after=after)

    def stop(self) -> None:
        """Let imports end after their current rows; the next start continues them."""
        self._threads.stopping.set()

    def close(self) -> None:
        """`stop`, and wait for those in the background. Blocks."""
        self._threads.close()

    def _begin(self, new: NewImport) -> ImportJob:
        now = self._clock()
        with self._database.transaction() as tx:
            imports = ImportRepository(tx)
            for before in imports.unfinished():
                if new.stamp is None or before.channel != new.channel or before.options.get("stamp") != new.stamp:
                    continue
                job = owned(before, self._clock())
                if not is_abandoned(before, self._clock()) or not imports.claim(job, before):
                    raise ImportRunning(f"Process {before.pid} imports this file now (import {before.id}).")
                return job
            options = {"stamp": new.stamp, "chosen": dict(new.chosen)}
            job = owned(replace(self._job(new, now), options=options), now)
            imports.add(job)
        return job

    def _job(self, new: NewImport, now: datetime) -> ImportJob:
        return ImportJob(
            id=new_id(now), channel=new.channel, created_at=now, created_by=new.by, source=new.source[:500]
        )

    def _work(self, job: ImportJob) -> None:
        try:
            with self._opened(job.options["keys"]) as files, self._opened(job.options.get("archives", [])) as packed:
                if job.total is None:  # for the progress; a long table takes seconds
                    job = replace(job, options={**job.options, "total": self._importer.count(files[0])})
                source = ImportSource(
                    table=files[0],
                    codes=files[1] if len(files) > 1 else None,
                    photos=self._archived(job.channel, packed),
                    chosen=job.options.get("chosen", {}),
                )
                done = self._importer.run(job, source, stopping=self._threads.stopping)
            if done.finished_at is not None:
                self._forget(job)
        except ShoplensError as error:
            _log.warning("catalogue.import_failed", id=job.id, code=error.code, reason=str(error))
            self._note(job, error.public)
        except Exception:  # noqa: BLE001  a thread has nobody to raise to; the job says so and can be repeated
            _log.exception("catalogue.import_crashed", id=job.id)
            self._note(job, "The import ended because of a fault in the program. The log has the details.")

    def _note(self, job: ImportJob, error: str) -> None:
        """End a job that failed in the background: a person sees why, and imports the file again."""
        with contextlib.suppress(ShoplensError):
            now = self._clock()
            with self._database.transaction() as tx:
                latest = ImportRepository(tx).get(job.id)
                ImportRepository(tx).update(replace(latest, error=latest.error or error, finished_at=now, beat_at=now))
            self._forget(job)

    def _forget(self, job: ImportJob) -> None:
        for key in (*job.options["keys"], *job.options.get("archives", [])):
            self._store.delete(key)

    def _archived(self, channel: str, archives: Sequence[IO[bytes]]) -> PhotoReader:
        """The photos that rows of a channel name: in the archives that were sent, else where the settings say."""
        others = self._open_photos(channel)
        return ArchivedPhotos(archives, others=others, max_bytes=others.max_bytes) if archives else others

    @contextlib.contextmanager
    def _opened(self, keys: list[str]) -> Iterator[list[IO[bytes]]]:
        with contextlib.ExitStack() as stack:
            files = []
            for key in keys:
                file: IO[Any] = stack.enter_context(tempfile.TemporaryFile())
                for piece in self._store.pieces(key):
                    file.write(piece)
                file.seek(0)
                files.append(file)
            yield files


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece
