"""Import products from a table: read, clean, store photos, commit; what a row lacks is listed and stops nothing.

The products of a commit and the progress of the import are one transaction. So an import that is killed goes on after
the last row that it committed, and one that is repeated changes nothing.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import IO, Final

from shoplens.batch.sidecars import readable
from shoplens.catalogue.entities import ImportFault, ImportJob
from shoplens.catalogue.errors import ImportInvalid, NothingToCategorise
from shoplens.catalogue.imports.columns import Columns, columns_of
from shoplens.catalogue.imports.photo_sources import ADDRESSES, PhotoNotFound, PhotoReader
from shoplens.catalogue.imports.repository import ImportRepository
from shoplens.catalogue.imports.rows import BadRow, ProductTable, TableRow
from shoplens.catalogue.products import MOST_PHOTOS, NewPhoto, NewProduct, ProductService, SaveOutcome, is_reference
from shoplens.catalogue.tree.categories import Tree, split_path
from shoplens.db import Database
from shoplens.errors import RequestInvalid, SampleError
from shoplens.telemetry.logs import get_logger
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS

OnProgress = Callable[[ImportJob], None]

_COMMIT_ROWS: Final = 200
_COMMIT_CHARACTERS: Final = 4_000_000
_LONGEST_CODE: Final = 2_000
_THREADS: Final = 8
_MOST_AHEAD: Final = 100_000
_MOST_UNNAMED: Final = 200
_IMPORTED_BY: Final = "import"
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSource:
    """The files of an import. `codes` gives the categories of a table in the format of the Rakuten challenge (`Y`).

    `chosen` names the columns of fields that are not guessed.
    """

    table: IO[bytes]
    codes: IO[bytes] | None = None
    photos: PhotoReader
    chosen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What one row gives: a product, perhaps with remarks on what it lacks; or None and why it cannot be used."""

    product: NewProduct | None
    faults: tuple[BadRow, ...] = ()


class ProductImporter:
    """Imports tables into the channels of the catalogue. Thread-safe. `tree_of` gives the live tree of a channel."""

    def __init__(
        self,
        database: Database,
        products: ProductService,
        *,
        tree_of: Callable[[str], Tree],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._products = products
        self._tree_of = tree_of
        self._clock = clock

    def check(self, table: IO[bytes], chosen: Mapping[str, str]) -> Columns:
        """The columns that an import of `table` would use. Raises ImportInvalid."""
        columns = columns_of(ProductTable(table).columns, chosen)
        table.seek(0)
        return columns

    def count(self, table: IO[bytes]) -> int:
        """How many rows `table` has, those that cannot be used among them."""
        rows = sum(1 for _ in ProductTable(table))
        table.seek(0)
        return rows

    def run(
        self,
        job: ImportJob,
        source: ImportSource,
        *,
        on_progress: OnProgress = lambda _: None,
        stopping: threading.Event | None = None,
    ) -> ImportJob:
        """Import everything after the rows that `job` has done already. The job at its end.

        Calls `on_progress` after each commit; ends early, to be continued, when `stopping` is set. Raises
        ImportInvalid, which ends the job, StorageUnavailable, SourceUnavailable and DatabaseUnavailable, after which
        it can be continued.
        """
        try:
            table = ProductTable(source.table)
            columns = columns_of(table.columns, source.chosen)
            codes = None if source.codes is None else _Codes(ProductTable(source.codes))
        except ImportInvalid as error:
            self._finish(replace(job, error=str(error)))
            raise
        tree = self._tree_of(job.channel)
        reader = _RowReader(self._products, columns, codes, channel=job.channel, photos=source.photos, tree=tree)
        rows = iter(table)
        for row in islice(rows, job.rows):
            reader.skip(row)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="import") as threads:
            while chunk := _some(rows):
                if stopping is not None and stopping.is_set():
                    return job
                prepared = [reader.prepared(row) for row in chunk]
                reader.look_up(job.channel, prepared)
                read = list(threads.map(reader.read, prepared))
                job = self._commit(job, read)
                on_progress(job)
        job = self._finish(_with_unnamed(job, source.photos.unnamed()))
        on_progress(job)
        _log.info(
            "catalogue.imported", channel=job.channel, id=job.id, rows=job.rows, added=job.added, changed=job.changed,
            unchanged=job.unchanged, faults=job.faults, unnamed_photos=job.unnamed_photos,
        )  # fmt: skip
        return job

    def _commit(self, job: ImportJob, read: list[_Read]) -> ImportJob:
        faults = [fault for each in read for fault in each.faults]
        new = [each.product for each in read if each.product is not None]
        job = replace(job, rows=job.rows + len(read), faults=job.faults + len(faults), beat_at=self._clock())
        after = job

        def note(outcomes: list[SaveOutcome], imports: ImportRepository) -> None:
            nonlocal after
            after = replace(
                job,
                added=job.added + outcomes.count(SaveOutcome.ADDED),
                changed=job.changed + outcomes.count(SaveOutcome.CHANGED),
                unchanged=job.unchanged + outcomes.count(SaveOutcome.UNCHANGED),
            )
            imports.update(after)
            imports.add_faults(
                ImportFault(
                    import_id=job.id, line=each.line, code=each.code, reason=each.reason, reference=each.reference
                )
                for each in faults
            )

        self._products.save_many(
            job.channel,
            new,
            by=_IMPORTED_BY,
            import_id=job.id,
            also=lambda tx, saved: note([each.outcome for each in saved], ImportRepository(tx)),
        )
        return after

    def _finish(self, job: ImportJob) -> ImportJob:
        job = replace(job, finished_at=self._clock(), beat_at=self._clock())
        with self._database.transaction() as tx:
            ImportRepository(tx).update(job)
        return job


def _with_unnamed(job: ImportJob, names: Sequence[str]) -> ImportJob:
    """With the photos that were sent for no product: how many, and the first ones by name."""
    if not names:
        return job
    shown = [readable(name)[:200] for name in names[:_MOST_UNNAMED]]
    return replace(job, options={**job.options, "unnamed": {"count": len(names), "names": shown}})


def _some(rows: Iterator[TableRow | BadRow]) -> list[TableRow | BadRow]:
    """The next rows, fewer where they are very long."""
    some: list[TableRow | BadRow] = []
    size = 0
    for row in islice(rows, _COMMIT_ROWS):
        some.append(row)
        size += 0 if isinstance(row, BadRow) else sum(map(len, row.values.values()))
        if size > _COMMIT_CHARACTERS:
            break
    return some


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A row with what only the order of rows can tell: its category in the second file, and whether it repeats."""

    row: TableRow | BadRow
    category: str | None = None
    repeats: bool = False


class _RowReader:
    """Turns rows into products. `prepared` and `skip` are called in the order of rows, `read` in any thread."""

    def __init__(
        self,
        products: ProductService,
        columns: Columns,
        codes: _Codes | None,
        *,
        channel: str,
        photos: PhotoReader,
        tree: Tree,
    ) -> None:
        self._products = products
        self._channel = channel
        self._columns = columns
        self._codes = codes
        self._photos = photos
        self._tree = tree
        self._seen: set[bytes] = set()
        self._known: Mapping[tuple[str, str], NewPhoto] = {}

    def skip(self, row: TableRow | BadRow) -> None:
        """A row that was imported before: its reference is taken."""
        self.prepared(row)

    def prepared(self, row: TableRow | BadRow) -> _Prepared:
        if isinstance(row, BadRow):
            return _Prepared(row=row)
        columns = self._columns
        self._photos.note(columns.photos_of(row.values))
        category = row.values.get(columns.category, "").strip() if columns.category else ""
        if self._codes is not None and columns.index is not None:
            category = self._codes.of(row.values.get(columns.index, "").strip()) or category
        # Eight bytes for each reference, however long it is: so the memory of an import hardly grows.
        digest = blake2b(row.values.get(columns.reference, "").strip().encode(), digest_size=8).digest()
        repeats = digest in self._seen
        self._seen.add(digest)
        return _Prepared(row=row, category=category or None, repeats=repeats)

    def look_up(self, channel: str, prepared: Sequence[_Prepared]) -> None:
        """Which photos of these rows were fetched by their addresses before: they are not fetched again."""
        if self._columns.photos:
            rows = [each.row for each in prepared if isinstance(each.row, TableRow)]
            references = {row.values.get(self._columns.reference, "").strip() for row in rows}
            self._known = self._products.named_photos(channel, references)

    def read(self, prepared: _Prepared) -> _Read:
        """Never raises what is the fault of the row alone."""
        row = prepared.row
        if isinstance(row, BadRow):
            return _Read(product=None, faults=(row,))
        reference = row.values.get(self._columns.reference, "").strip()
        fault = partial(BadRow, line=row.line, reference=reference[:200] or None)
        if not reference:
            reason = f"The column {self._columns.reference} is empty, and products are told apart by it."
            return _Read(product=None, faults=(fault(code="reference_missing", reason=reason),))
        if prepared.repeats:
            reason = f"An earlier row has the reference {reference[:80]!r} too; that one was imported."
            return _Read(product=None, faults=(fault(code="reference_repeated", reason=reason),))
        faults: list[BadRow] = []
        designation = self._text(row, self._columns.designation, TITLE_CHARACTERS, fault, faults)
        description = self._text(row, self._columns.description, DESCRIPTION_CHARACTERS, fault, faults)
        category = self._category(prepared.category, fault, faults)
        photos = self._photos_of(row, fault, faults)
        new = NewProduct(
            reference=reference, designation=designation, description=description, photos=photos, category=category
        )
        try:
            return _Read(product=new.cleaned(), faults=tuple(faults))
        except (RequestInvalid, NothingToCategorise) as error:
            return _Read(product=None, faults=(*faults, fault(code=error.code, reason=str(error))))

    def _text(
        self, row: TableRow, column: str | None, most: int, fault: Callable[..., BadRow], faults: list[BadRow]
    ) -> str:
        text = row.values.get(column, "") if column is not None else ""
        if len(text) > most:
            reason = f"The column {column} has {len(text):,} characters; markup does not count, and {most:,} are kept."
            faults.append(fault(code="text_shortened", reason=reason))
        return text

    def _category(self, given: str | None, fault: Callable[..., BadRow], faults: list[BadRow]) -> str | None:
        if given is None or given in self._tree:
            return given
        found = self._tree.at(split_path(given))
        if found is None:
            reason = f"The live tree has no category {given[:80]!r}; the product waits for a suggestion."
            faults.append(fault(code="category_not_found", reason=reason))
        return found

    def _photos_of(
        self, row: TableRow, fault: Callable[..., BadRow], faults: list[BadRow]
    ) -> tuple[NewPhoto, ...] | None:
        """None where the table has no photos, so that those of a known product stay."""
        if self._columns.image is None and not self._columns.photos:
            return None
        names = self._columns.photos_of(row.values)
        if len(names) > MOST_PHOTOS:
            reason = f"It names {len(names)} photos; the first {MOST_PHOTOS} were read."
            faults.append(fault(code="too_many_photos", reason=reason))
        reference = unicodedata.normalize("NFC", row.values.get(self._columns.reference, "").strip())
        if not is_reference(reference):  # the row is refused, and nothing may be stored for it
            return ()
        found = []
        for name in names[:MOST_PHOTOS]:
            known = self._known.get((reference, name)) if name.lower().startswith(ADDRESSES) else None
            if known is not None:
                found.append(known)
                continue
            try:
                data = self._photos.read(name)
                # Stored at once: the photos of all rows of a commit could be gigabytes.
                found.append(self._products.stored_photo(self._channel, reference, name, data))
            except PhotoNotFound as error:
                faults.append(fault(code="photo_not_found", reason=str(error)))
            except SampleError as error:
                faults.append(fault(code=error.code, reason=f"{name[:100]}: {error.public}"))
        return tuple(found)


class _Codes:
    """The categories of a second file by the number in its first column, read beside the table and not before it."""

    def __init__(self, table: ProductTable) -> None:
        columns = [name for name in table.columns[1:] if name]
        if not columns:
            raise ImportInvalid("The file with the categories needs two columns: the number of the row, and its code.")
        self._index, self._code = table.columns[0], columns[0]
        self._rows: Iterator[TableRow | BadRow] = iter(table)
        self._ahead: dict[str, str] = {}

    def of(self, index: str) -> str | None:
        """The code of a row. Raises ImportInvalid where the two files are not in nearly the same order."""
        if index in self._ahead:
            return self._ahead.pop(index)
        for row in self._rows:
            if isinstance(row, BadRow):
                continue
            found, code = row.values.get(self._index, "").strip(), row.values.get(self._code, "").strip()
            if found == index:
                return code
            if len(found) + len(code) <= _LONGEST_CODE:
                self._ahead[found] = code
            if len(self._ahead) > _MOST_AHEAD:
                raise ImportInvalid("The rows of the file with the categories are in another order. Sort both alike.")
        return None
