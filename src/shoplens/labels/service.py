"""Build label sets, list and export them, and take erased samples out of them."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import IO, Final

from sqlalchemy import Connection

from shoplens.accounts.entities import Principal
from shoplens.db import Database
from shoplens.db.database import hold_labels
from shoplens.db.tables import new_id
from shoplens.errors import BlobNotFound, RecordRefused
from shoplens.labels import manifest
from shoplens.labels.entities import Label, LabelSet
from shoplens.labels.errors import LabelSetNotFound, NothingLabelled
from shoplens.labels.groups import Groups
from shoplens.labels.manifest import Counted
from shoplens.labels.repository import FeedbackLabelRepository, LabelSetRepository
from shoplens.messages import marked
from shoplens.spreadsheets import csv_chunks
from shoplens.storage import Store

FOLDER: Final = "labels"
_PAGE: Final = 1_000
_TRIES: Final = 3

LabelSource = Callable[[str], Iterator[Label]]
"""The labels of a channel that one feature has, in the order of their sample ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """In how many sets samples were, of how many sets that there were."""

    changed: int
    sets: int


class LabelService:
    """All methods block. `sources` give the labels of a channel; a sample has one of them at most."""

    def __init__(
        self, database: Database, store: Store, *, sources: Sequence[LabelSource], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._store = store
        self._sources = sources
        self._clock = clock
        self._forgetting = threading.Lock()

    def build(self, channel: str, *, by: Principal) -> LabelSet:
        """Freeze what people have said until now as a new version; the newest one where nothing has changed since.

        A set in which samples may be that were removed meanwhile is built again. Raises NothingLabelled.
        """
        built = None
        again = False
        while built is None:
            with self._database.reading() as tx:
                removals = LabelSetRepository(tx).removals()
            built = self._built(channel, by, removals)
            again = again or built is None
        if again:
            self._remove_left_files()
        return built

    def _built(self, channel: str, by: Principal, removals: int) -> LabelSet | None:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as file:
            groups = Groups()
            manifest.write(groups.watch(self.said(channel)), given)
            grouped = zip(manifest.read_file(given), groups.leaders(), strict=True)
            labels = Counted(replace(label, group=group) for label, group in grouped)
            manifest.write(labels, file)
            if not labels.count:
                raise NothingLabelled(f"Nobody has labelled a sample of the channel {channel} yet.")
            for _ in range(_TRIES - 1):
                with suppress(RecordRefused):  # another process built this version meanwhile
                    return self._add(channel, labels, file, by, removals)
            return self._add(channel, labels, file, by, removals)

    def said(self, channel: str) -> Iterator[Label]:
        """What people have said until now in a channel, the label of each sample; in no order and without groups."""
        return chain.from_iterable(source(channel) for source in self._sources)

    def all(self, channel: str | None = None) -> list[LabelSet]:
        """Every set, newest version first."""
        with self._database.reading() as tx:
            return LabelSetRepository(tx).all(channel)

    def get(self, channel: str, version: int | None = None) -> LabelSet:
        """One version, or the newest. Raises LabelSetNotFound."""
        with self._database.reading() as tx:
            sets = LabelSetRepository(tx)
            found = sets.newest(channel) if version is None else sets.get(channel, version)
        if found is None:
            what = marked("no label set yet") if version is None else marked(f"no label set {version}")
            raise LabelSetNotFound(f"The channel {channel[:80]!r} has {what}. Build one first.")
        return found

    def labels(self, wanted: LabelSet) -> Iterator[Label]:
        """The labels of a set, a group of rows in memory at a time. Raises BlobNotFound."""
        return manifest.read(self._store.pieces(wanted.key))

    def parquet(self, wanted: LabelSet) -> Iterator[bytes]:
        """The file of a set, in pieces. Raises BlobNotFound."""
        return self._store.pieces(wanted.key)

    def csv(self, wanted: LabelSet) -> Iterator[str]:
        """The same as CSV, in chunks. Raises BlobNotFound."""
        yield from csv_chunks(manifest.COLUMNS, map(manifest.row_of, self.labels(wanted)))

    def forget(self, sample_ids: Collection[str]) -> Forgotten:
        """Write every set that names one of these samples again without them. Call it before they are removed.

        Safe to repeat: files that an interrupted call left behind are deleted too. Without samples no set is read.
        """
        if not sample_ids:
            with self._database.reading() as tx:
                return Forgotten(changed=0, sets=LabelSetRepository(tx).count())
        with self._forgetting:
            sets = self.all()
            changed = sum(self._forget_in(each, sample_ids) for each in sets)
            self._remove_left_files()
        return Forgotten(changed=changed, sets=len(sets))

    def removed(self, tx: Connection, forgotten: Forgotten) -> bool:
        """Call it in the transaction that removes the samples: sets that are being built are then built again.

        False where a set was added since `forget`, which may name them: then remove nothing, and forget them again.
        """
        hold_labels(tx)
        sets = LabelSetRepository(tx)
        if sets.count() != forgotten.sets:
            return False
        sets.add_removal()
        return True

    def _add(self, channel: str, labels: Counted, file: IO[bytes], by: Principal, removals: int) -> LabelSet | None:
        """The new set, or the newest one if it is the same; None where samples were removed since `removals`."""
        now = self._clock()
        with self._database.reading() as tx:
            newest = LabelSetRepository(tx).newest(channel)
        if newest is not None and newest.digest == labels.digest:
            return newest
        version = 1 if newest is None else newest.version + 1
        new = LabelSet(
            id=new_id(now),
            created_at=now,
            channel=channel,
            version=version,
            labels=labels.count,
            digest=labels.digest,
            key=_key(channel, version, labels.digest),
            created_by=by.name,
        )
        self._store.put_pieces(new.key, manifest.pieces_of(file))
        with self._database.transaction() as tx:
            hold_labels(tx)
            sets = LabelSetRepository(tx)
            if sets.removals() == removals:
                sets.add(new)
                return new
        return None

    def _forget_in(self, known: LabelSet, sample_ids: Collection[str]) -> bool:
        """Whether the set named one of them. If another process wrote it again meanwhile, this starts from there."""
        while True:
            try:
                done = self._rewritten(known, sample_ids)
            except BlobNotFound:
                if self.get(known.channel, known.version).key == known.key:
                    raise
                done = None
            if done is not None:
                return done
            known = self.get(known.channel, known.version)

    def _rewritten(self, known: LabelSet, sample_ids: Collection[str]) -> bool | None:
        """Whether the set was changed; None where it is no longer as `known`."""
        with tempfile.TemporaryFile() as file:
            kept = Counted(label for label in self.labels(known) if label.sample_id not in sample_ids)
            manifest.write(kept, file)
            if kept.digest == known.digest:
                return False
            key = _key(known.channel, known.version, kept.digest)
            changed = replace(known, labels=kept.count, digest=kept.digest, key=key, changed_at=self._clock())
            self._store.put_pieces(key, manifest.pieces_of(file))
        with self._database.transaction() as tx:
            if not LabelSetRepository(tx).change(changed, seen=known.digest):
                return None
        self._store.delete(known.key)
        return True

    def _remove_left_files(self) -> None:
        """Files of known versions that no row names: the old ones of sets that were written again."""
        sets = self.all()
        named = {each.key for each in sets}
        prefixes = tuple(_key(each.channel, each.version, "") for each in sets)
        for key in list(self._store.list(FOLDER)):
            if key not in named and key.startswith(prefixes):
                with suppress(BlobNotFound):
                    self._store.delete(key)


def feedback_labels(database: Database) -> LabelSource:
    """The labels that come from feedback on predictions; a page in memory at a time."""

    def labels(channel: str) -> Iterator[Label]:
        last = ""
        while True:
            with database.reading() as tx:
                page = FeedbackLabelRepository(tx).page(channel, after=last, limit=_PAGE)
            if not page:
                return
            yield from (label for _, label in page if label is not None)
            last = page[-1][0]

    return labels


def _key(channel: str, version: int, digest: str) -> str:
    return f"{FOLDER}/{channel}/{version:06}-{digest[:16]}{'.parquet' if digest else ''}"
