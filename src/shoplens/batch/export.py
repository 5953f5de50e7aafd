"""Write the table of returned items as CSV, JSON Lines or Parquet, row by row in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from shoplens.batch import table_formats
from shoplens.batch.entities import ItemFilter
from shoplens.batch.item_table import TableRow
from shoplens.db import Database


class ExportFormat(StrEnum):
    """How a table is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES: Final = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}

_WRITERS: Final[dict[ExportFormat, Callable[[Iterator[TableRow]], Iterator[bytes]]]] = {
    ExportFormat.CSV: table_formats.as_csv,
    ExportFormat.JSONL: table_formats.as_jsonl,
    ExportFormat.PARQUET: table_formats.as_parquet,
}


class ExportItems:
    """All formats have the same columns (`table_formats.COLUMNS`). Iterating blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stream(self, wanted: ItemFilter, format: ExportFormat) -> Iterator[bytes]:
        """Chunks of the file, in the order of arrival. An empty table has its header or schema.

        With a run, its table is written: its items, and the duplicates and refused files that arrived since the run
        before. Without, everything. Raises RunNotFound, at the call and not in the middle of the file.
        """
        with self._database.read_uow() as work:
            within = None if wanted.run_id is None else work.item_table.range_of(work.batch_runs.get(wanted.run_id))

        def chunks() -> Iterator[bytes]:
            with self._database.read_uow() as work:
                yield from _WRITERS[format](work.item_table.rows(wanted, within))

        return chunks()
