"""Import photos from a source: list, read, store, commit, and then remove them from the source.

Can be run at any time, by several processes at once, and killed at any moment: no photo is lost or imported twice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

from shoplens.batch.entities import BatchItem, References
from shoplens.batch.import_stats import ImportStats, ImportSummary, OnProgress
from shoplens.batch.item_writer import Dedup, ImportOutcome, ItemWriter, NewFile, PreparedItem, in_memory
from shoplens.batch.repository import ItemRepository
from shoplens.batch.sidecars import (
    MAX_LIST_BYTES,
    MAX_SIDECAR_BYTES,
    SidecarError,
    merge_references,
    parse_list,
    parse_sidecar,
    readable,
    references_in_name,
    sidecar_photo,
)
from shoplens.batch.sources import Candidate, FileSkipped, Folder, SkippedFile, Source, SourceFile
from shoplens.db import Database
from shoplens.errors import RecordRefused, ShoplensError
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.trigger_log import Trigger

_NAMES_PER_QUERY: Final = 500
_CLOSE_TIMEOUT_S: Final = 10.0
_log: Final = get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRules:
    """`commit_items` files share a commit; up to `threads` of them, of at most `max_image_bytes` each, are in memory.

    `name_pattern` finds order, item and reason in file names.
    """

    channel: str
    name_pattern: re.Pattern[str]
    commit_items: int
    threads: int
    max_image_bytes: int


class Importer:
    """Imports photos into one channel. Thread-safe.

    `source` is the URL of the channel's source, and `open_source` opens the source at a URL.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        *,
        clock: Callable[[], datetime],
        source: str,
        open_source: Callable[[str], Source],
        rules: ImportRules,
    ) -> None:
        self._database = database
        self._clock = clock
        self._source = source
        self._open_source = open_source
        self._rules = rules
        self._writer = ItemWriter(
            database, store, channel=rules.channel, clock=clock, max_image_bytes=rules.max_image_bytes
        )

    def run(
        self, source: str | None = None, *, keep_source: bool = False, on_progress: OnProgress = lambda _: None
    ) -> ImportSummary:
        """Import everything that is ready, and remove it from the source unless `keep_source`.

        Calls `on_progress` after each commit. Raises SourceUnavailable, StorageUnavailable and DatabaseUnavailable;
        what was committed before stays.
        """
        job = _ImportJob(
            self._open_source(source or self._source),
            self._writer,
            self._database,
            self._rules,
            keep_source=keep_source,
            on_progress=on_progress,
        )
        summary = job.run()
        _log.info("batch.imported", channel=self._rules.channel, **summary.as_json())
        return summary

    def import_photo(self, data: bytes, *, name: str, references: References | None = None) -> BatchItem:
        """Import one photo that was sent. `references` have precedence over those in its name.

        Returns the stored item: a duplicate if another item has this photo, the same item if it was sent under this
        name before. Raises StorageUnavailable, DatabaseUnavailable and RecordRefused.
        """
        name = readable(name.strip()) or "photo"
        file = NewFile(
            name=name,
            byte_count=len(data),
            changed_ms=int(self._clock().timestamp() * 1000),
            chunks=in_memory(data),
            references=merge_references(references or References(), references_in_name(self._rules.name_pattern, name)),
        )
        prepared = self._writer.prepare(file, Dedup())
        outcome = self._writer.commit([prepared])[prepared.item.id]
        with self._database.reading() as tx:
            item = ItemRepository(tx).arrival(self._rules.channel, prepared.item.sha256, name)
        if item is None:
            raise RecordRefused(f"The photo {name} was not imported ({outcome.value}). Send it again.")
        _log.info("batch.photo_imported", item=item.id, name=name, outcome=outcome.value)
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class _PhotoList:
    """A list file with the names of its photos in the source."""

    folder: Folder
    file: SourceFile
    names: tuple[str, ...]


class _ImportJob:
    """One import. The source is listed lazily: in memory are one batch and the lists of its folders."""

    def __init__(
        self,
        source: Source,
        writer: ItemWriter,
        database: Database,
        rules: ImportRules,
        *,
        keep_source: bool,
        on_progress: OnProgress,
    ) -> None:
        self._source = source
        self._writer = writer
        self._database = database
        self._rules = rules
        self._keep = keep_source or source.keeps_files
        self._on_progress = on_progress
        self._stats = ImportStats(source.place)
        self._threads = ThreadPoolExecutor(rules.threads, thread_name_prefix="import")
        self._batch: list[Candidate] = []
        self._lists: list[_PhotoList] = []

    def run(self) -> ImportSummary:
        """Raises SourceUnavailable, StorageUnavailable and DatabaseUnavailable; what was committed before stays."""
        with self._threads:
            for folder in self._source.folders():
                if isinstance(folder, SkippedFile):
                    self._stats.skip(folder)
                    continue
                lists, listed = self._read_lists(folder)
                for each in folder.candidates():
                    if isinstance(each, SkippedFile):
                        self._stats.skip(each)
                        continue
                    references = merge_references(each.references, listed.get(each.photo.name, References()))
                    self._batch.append(replace(each, references=references))
                    if len(self._batch) >= self._rules.commit_items:
                        self._commit_batch()
                self._lists += lists
            self._commit_batch()
        return self._stats.summary()

    def _read_lists(self, folder: Folder) -> tuple[list[_PhotoList], Mapping[str, References]]:
        """The lists of a folder that are ready, and what they say of each photo."""
        lists: list[_PhotoList] = []
        listed: dict[str, References] = {}
        for file in folder.sidecars():
            if isinstance(file, SkippedFile) or sidecar_photo(file.name):
                continue
            try:
                rows = self._parsed(file, MAX_LIST_BYTES, partial(parse_list, file.name))
            except FileSkipped:
                continue
            if rows:
                place = file.name[: file.name.rfind("/") + 1]
                named = {place + name: references for name, references in rows.items()}
                listed |= named
                lists.append(_PhotoList(folder=folder, file=file, names=tuple(named)))
        return lists, listed

    def _commit_batch(self) -> None:
        batch, self._batch = self._batch, []
        with self._database.reading() as tx:
            stamps = ItemRepository(tx).known_stamps(
                self._rules.channel, [(each.photo.name, each.photo.stamp) for each in batch]
            )
        known = [each for each in batch if (each.photo.name, each.photo.stamp) in stamps]
        new = [each for each in batch if (each.photo.name, each.photo.stamp) not in stamps]
        for _ in known:
            self._stats.add(ImportOutcome.KNOWN)
        imported = self._import_new(new)
        if not self._keep:
            removable = [*map(self._imported_before, known), *imported]
            for each, removed in zip(removable, self._threads.map(_remove, removable), strict=True):
                if not removed:
                    self._stats.not_removed(each.photo.name)
            self._remove_finished_lists()
        self._on_progress(self._stats.summary())

    def _import_new(self, batch: Iterable[Candidate]) -> list[Candidate]:
        """Read, store and commit. Returns the candidates that can be removed from the source."""
        prepared: list[tuple[Candidate, PreparedItem]] = []
        for each in self._threads.map(partial(self._prepare, dedup=Dedup()), batch):
            if isinstance(each, SkippedFile):
                self._stats.skip(each)
            else:
                prepared.append(each)
        outcomes = self._writer.commit([item for _, item in prepared]) if prepared else {}
        imported: list[Candidate] = []
        for candidate, result in prepared:
            outcome = outcomes[result.item.id]
            self._stats.add(outcome, byte_count=result.item.byte_count)
            if outcome is ImportOutcome.REFUSED:
                self._stats.note(f"{candidate.photo.name} was refused by the database and stays in the source.")
            else:
                imported.append(candidate)
        return imported

    def _prepare(self, candidate: Candidate, *, dedup: Dedup) -> tuple[Candidate, PreparedItem] | SkippedFile:
        """Runs in a thread."""
        photo = candidate.photo
        try:
            candidate, own = self._with_usable_sidecar(candidate)
            chunks: Callable[[], Iterable[bytes]] = photo.chunks
            byte_count = photo.byte_count
            if byte_count <= self._rules.max_image_bytes:
                data = b"".join(photo.chunks())
                chunks, byte_count = in_memory(data), len(data)
            in_name = references_in_name(self._rules.name_pattern, photo.name)
            file = NewFile(
                name=photo.name,
                byte_count=byte_count,
                changed_ms=photo.changed_ms,
                stamp=photo.stamp,
                references=merge_references(own, candidate.references, in_name),
                chunks=chunks,
            )
            return candidate, self._writer.prepare(file, dedup)
        except FileSkipped as error:
            return error.skipped

    def _imported_before(self, candidate: Candidate) -> Candidate:
        """A candidate that an earlier import could not remove, without a sidecar that cannot be used."""
        try:
            return self._with_usable_sidecar(candidate)[0]
        except FileSkipped:
            return replace(candidate, sidecar=None)

    def _with_usable_sidecar(self, candidate: Candidate) -> tuple[Candidate, References]:
        """The candidate and the references in its sidecar. An unusable sidecar is left out: it is not removed.

        Raises FileSkipped while the sidecar changes.
        """
        if candidate.sidecar is None:
            return candidate, References()
        own = self._parsed(candidate.sidecar, MAX_SIDECAR_BYTES, parse_sidecar)
        return (replace(candidate, sidecar=None), References()) if own is None else (candidate, own)

    def _parsed(self, file: SourceFile, max_bytes: int, parse: Callable[[bytes], T]) -> T | None:
        """The content of a sidecar or list; None, with a note, if it cannot be used. Raises FileSkipped."""
        try:
            if file.byte_count > max_bytes:
                raise SidecarError(f"it has more than {max_bytes / 1e6:g} MB")
            return parse(b"".join(file.chunks()))
        except SidecarError as error:
            self._stats.note(f"{file.name} was not used: {error}.")
            return None

    def _remove_finished_lists(self) -> None:
        """Remove the lists all of whose photos were imported since the list came, and are gone from the folder."""
        lists, self._lists = self._lists, []
        for each in lists:
            since = datetime.fromtimestamp(each.file.changed_ms / 1000, UTC)
            pages = [set(each.names[at : at + _NAMES_PER_QUERY]) for at in range(0, len(each.names), _NAMES_PER_QUERY)]
            with self._database.reading() as tx:
                items = ItemRepository(tx)
                imported = all(items.known_names(self._rules.channel, page, since=since) == page for page in pages)
            finished = imported and not any(map(each.folder.present, pages))
            if finished and not each.file.remove():
                self._stats.not_removed(each.file.name)


def _remove(candidate: Candidate) -> bool:
    """The sidecar first: a crash between both leaves a photo that is known, never a sidecar without its photo."""
    if candidate.sidecar is not None and not candidate.sidecar.remove():
        return False
    return candidate.photo.remove()


RecordImport = Callable[[], AbstractContextManager[Trigger | None]]
"""Records an import from its start to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportStatus:
    """The import that runs in this process, or the last one. `summary` is None before its first commit.

    `error` ended the import early; what was committed before stays.
    """

    running: bool
    started_at: datetime
    summary: ImportSummary | None = None
    error: Exception | None = None


class _Stopped(Exception):
    """The server stops. The next import takes the rest."""


class ImportRunner:
    """Runs imports from the channel's source in the background, one at a time. Thread-safe. Close it at the end."""

    def __init__(
        self, importer: Importer, *, clock: Callable[[], datetime], record: RecordImport = nullcontext
    ) -> None:
        self._importer = importer
        self._clock = clock
        self._record = record
        self._lock = threading.Lock()
        self._ended: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._status: ImportStatus | None = None
        self._closing = threading.Event()

    def start(self) -> Future[None]:
        """Start an import, or join the one that runs. The future is done at its end and never fails; see `status`."""
        with self._lock:
            if self._ended is None or self._ended.done():
                self._ended = Future()
                self._status = ImportStatus(running=True, started_at=self._clock())
                self._thread = threading.Thread(
                    target=self._run, args=(self._ended, self._status), name="import", daemon=True
                )
                self._thread.start()
            return self._ended

    def status(self) -> ImportStatus | None:
        """None before the first import of this process."""
        return self._status

    def close(self) -> None:
        """Let a running import end after its current batch."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self, ended: Future[None], status: ImportStatus) -> None:
        error: Exception | None = None
        try:
            with self._record() as trigger:

                def note(summary: ImportSummary) -> None:
                    nonlocal status
                    self._status = status = replace(status, summary=summary)
                    if trigger is not None:
                        trigger.counts.update(summary.counts)
                    if self._closing.is_set():
                        raise _Stopped

                with suppress(_Stopped):
                    note(self._importer.run(on_progress=note))
        except ShoplensError as caught:
            error = caught
            _log.warning("batch.import_failed", code=caught.code, reason=str(caught))
        except Exception as caught:  # noqa: BLE001 - the status shows it, and the log has the details
            error = caught
            _log.exception("batch.import_crashed")
        finally:
            self._status = replace(status, running=False, error=error)
            ended.set_result(None)
