"""One visit to a source: batches of what is ready are read, stored and committed, and then removed from the source."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from shoplens.batch.arrivals import Arrival, Folder, Left, Source, Why
from shoplens.batch.entities import References
from shoplens.batch.intake import Claims, Content, Intake, Prepared, Verdict
from shoplens.batch.lists import FolderLists, finished_lists, read_lists, read_own
from shoplens.batch.references import from_name, joined
from shoplens.batch.tally import IngestSummary, Tally
from shoplens.db import Database
from shoplens.errors import SourceUnavailable

OnProgress = Callable[[IngestSummary], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitRules:
    """`batch` files share a commit; up to `threads` of them, of at most `max_image_bytes` each, are in memory."""

    channel: str
    name_pattern: re.Pattern[str]
    batch: int
    threads: int
    max_image_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A file that may be taken, with what the lists of its folder say. `sidecar` is None also where it is of no use."""

    photo: Arrival
    sidecar: Arrival | None
    told: FolderLists


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A candidate whose content was read."""

    candidate: _Candidate
    prepared: Prepared


class Visit:
    """Used once. The source is listed lazily: in memory are a batch, and the lists of the folders that it is from."""

    def __init__(
        self,
        source: Source,
        intake: Intake,
        database: Database,
        rules: VisitRules,
        *,
        keep_source: bool,
        on_progress: OnProgress,
    ) -> None:
        self._source = source
        self._intake = intake
        self._database = database
        self._rules = rules
        self._keep_source = keep_source
        self._on_progress = on_progress
        self._began_s = time.monotonic()
        self._tally = Tally(source.place)
        self._batch: list[_Candidate] = []
        self._told: list[tuple[Folder, FolderLists]] = []

    def __call__(self) -> IngestSummary:
        """Raises SourceUnavailable, StorageUnavailable and DatabaseUnavailable; what was committed until then stays."""
        with ThreadPoolExecutor(self._rules.threads, thread_name_prefix="ingest") as threads:
            for folder in self._source.folders():
                if isinstance(folder, Left):
                    self._tally.leave(folder)
                else:
                    self._walk(folder, threads)
            self._flush(threads)
        return self._summary()

    def _walk(self, folder: Folder, threads: ThreadPoolExecutor) -> None:
        told = read_lists(folder, self._tally.note)
        for offer in folder.offers():
            if isinstance(offer, Left):
                self._tally.leave(offer)
                continue
            self._batch.append(_Candidate(photo=offer.photo, sidecar=offer.sidecar, told=told))
            if len(self._batch) >= self._rules.batch:
                self._flush(threads)
        if told.lists:
            self._told.append((folder, told))

    def _flush(self, threads: ThreadPoolExecutor) -> None:
        batch, self._batch = self._batch, []
        fresh, ours = self._told_apart(batch)
        ours += self._taken(fresh, threads)
        if not self._keep_source:
            for removed in threads.map(_remove, ours):
                self._note_removal(removed=removed)
            self._clear_lists()
        self._on_progress(self._summary())

    def _told_apart(self, batch: Sequence[_Candidate]) -> tuple[list[_Candidate], list[_Candidate]]:
        """Those that have to be read, and those of which an earlier visit has everything but could not remove them."""
        with self._database.read_uow() as work:
            stamps = work.batch_items.known_stamps(self._rules.channel, [_stamp(each) for each in batch])
        fresh = [each for each in batch if _stamp(each) not in stamps]
        ours = [self._usable(each, self._own(each)) for each in batch if _stamp(each) in stamps]
        for _ in ours:
            self._tally.settle(Verdict.KNOWN, byte_count=0)
        return fresh, ours

    def _taken(self, fresh: Sequence[_Candidate], threads: ThreadPoolExecutor) -> Iterator[_Candidate]:
        """Read, store and commit; yields those that are ours now."""
        claims = Claims()
        read: list[_Read] = []
        for each in threads.map(lambda candidate: self._read(candidate, claims), fresh):
            if isinstance(each, Left):
                self._tally.leave(each)
            else:
                read.append(each)
        verdicts = self._intake.commit([each.prepared for each in read]) if read else {}
        for each in read:
            verdict = verdicts[each.prepared.item.id]
            self._tally.settle(verdict, byte_count=each.prepared.item.byte_count)
            if verdict is Verdict.REFUSED:
                self._tally.note(f"{each.candidate.photo.name} was refused by the database and stays where it is.")
            else:
                yield each.candidate

    def _read(self, candidate: _Candidate, claims: Claims) -> _Read | Left:
        """Runs in a thread."""
        photo = candidate.photo
        own = self._own(candidate)
        if isinstance(own, Left):
            return own
        listed = candidate.told.by_name.get(photo.name, References())
        pieces: Callable[[], Iterable[bytes]] = photo.pieces
        if photo.byte_count <= self._rules.max_image_bytes:
            data = photo.read()
            if isinstance(data, Left):
                return data
            pieces = partial(_one, data)
        content = Content(
            name=photo.name,
            byte_count=photo.byte_count,
            changed_ms=photo.changed_ms,
            stamp=photo.stamp,
            references=joined(joined(own or References(), listed), from_name(self._rules.name_pattern, photo.name)),
            pieces=pieces,
        )
        try:
            return _Read(candidate=self._usable(candidate, own), prepared=self._intake.prepare(content, claims))
        except SourceUnavailable as error:  # one that is too large to be read at once changed, or is gone
            return Left(name=photo.name, why=Why.NOT_READY, reason=str(error))

    def _own(self, candidate: _Candidate) -> References | Left | None:
        return read_own(candidate.sidecar, self._tally.note) if candidate.sidecar else None

    @staticmethod
    def _usable(candidate: _Candidate, own: References | Left | None) -> _Candidate:
        """A sidecar that could not be used is not removed either: a person may still read it."""
        return candidate if isinstance(own, References) else replace(candidate, sidecar=None)

    def _clear_lists(self) -> None:
        done, self._told = self._told, []
        for folder, told in done:
            for found in finished_lists(folder, told, self._known_names):
                self._note_removal(removed=found.remove())

    def _known_names(self, names: Collection[str], since: datetime) -> set[str]:
        with self._database.read_uow() as work:
            return work.batch_items.known_names(self._rules.channel, names, since=since)

    def _note_removal(self, *, removed: bool) -> None:
        if not removed:
            self._tally.keep()

    def _summary(self) -> IngestSummary:
        return self._tally.summary(duration_s=time.monotonic() - self._began_s)


def _remove(candidate: _Candidate) -> bool:
    """The sidecar first: a crash between both leaves a photo that is known, never a sidecar without one."""
    if candidate.sidecar is not None and not candidate.sidecar.remove():
        return False
    return candidate.photo.remove()


def _stamp(candidate: _Candidate) -> tuple[str, str]:
    return candidate.photo.name, candidate.photo.stamp


def _one(data: bytes) -> tuple[bytes, ...]:
    return (data,)
