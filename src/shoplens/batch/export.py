"""Export items as CSV, JSON Lines or Parquet, row by row in bounded memory."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final

import orjson

from shoplens.batch.entities import ItemFilter, RunRange, TableRow
from shoplens.batch.repository import TABLE_PAGE, ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.spreadsheets import spreadsheet_safe

TEXT: Final = "text"
CATEGORY: Final = "category"
NUMBER: Final = "number"
TIME: Final = "time"

COLUMNS: Final = {
    "id": TEXT,
    "item": TEXT,
    "order": TEXT,
    "reason": TEXT,
    "received_at": TIME,
    "source_name": TEXT,
    "state": CATEGORY,
    "label": CATEGORY,
    "predicted": CATEGORY,
    "score": NUMBER,
    "corrected_at": TIME,
    "run": CATEGORY,
    "model": CATEGORY,
    "model_version": CATEGORY,
    "threshold": NUMBER,
    "photo": TEXT,
    "failure_code": CATEGORY,
    "failure": TEXT,
    "duplicate_of": TEXT,
    "finished_at": TIME,
    "work_ms": NUMBER,
    "answer": CATEGORY,
    "proposed": TEXT,
    "retried_as": TEXT,
}
"""The columns of every format with the type of their values."""

_NOT_NULL: Final = {"id", "received_at", "source_name", "state"}
_ROWS_PER_CHUNK: Final = 500
_ROWS_PER_BATCH: Final = 5_000
_ROWS_PER_GROUP: Final = 50_000
_READ_BYTES: Final = 1 << 16


class ExportFormat(StrEnum):
    """The format of a table."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES: Final = {
    ExportFormat.CSV: "text/csv; charset=utf-8",
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
}


class ExportItems:
    """All formats have the columns `COLUMNS`. Iterating blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stream(self, wanted: ItemFilter, format: ExportFormat) -> Iterator[bytes]:
        """Chunks of the file, in the order of arrival. An empty table has its header or schema.

        With a run: its items, and the duplicates and refused files that arrived since the previous run. Without: all
        items. Raises RunNotFound at the call, not while iterating.
        """
        with self._database.reading() as tx:
            within = (
                None if wanted.run_id is None else ItemRepository(tx).range_of(RunRepository(tx).get(wanted.run_id))
            )
        return write_table(stream_rows(self._database, wanted, within), format)


def stream_rows(database: Database, wanted: ItemFilter, within: RunRange | None) -> Iterator[TableRow]:
    """Every row that matches, in the order of arrival, a page in memory at a time; later arrivals do not appear.

    `within` stands for `wanted.run_id`. Each page is a transaction of its own, so a slow reader keeps nothing open.
    """
    with database.reading() as tx:
        last, bound = ItemRepository(tx).table_span(within)
    while last < bound:
        with database.reading() as tx:
            page = ItemRepository(tx).table_page(wanted, within, after=last, bound=bound)
        yield from page
        last = page[-1].item.seq if len(page) == TABLE_PAGE else bound


def write_table(rows: Iterable[TableRow], format: ExportFormat) -> Iterator[bytes]:
    """Chunks of the file, in bounded memory."""
    return {ExportFormat.CSV: _as_csv, ExportFormat.JSONL: _as_jsonl, ExportFormat.PARQUET: _as_parquet}[format](rows)


def _as_csv(rows: Iterable[TableRow]) -> Iterator[bytes]:
    """UTF-8 with a header, safe to open in a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for chunk in _chunks(rows, _ROWS_PER_CHUNK):
        writer.writerows(map(_cell, _values(row)) for row in chunk)
        yield _taken(buffer)
    if buffer.tell():
        yield _taken(buffer)


def _as_jsonl(rows: Iterable[TableRow]) -> Iterator[bytes]:
    """An object per line; unknown values are null. An empty table is an empty file."""
    for chunk in _chunks(rows, _ROWS_PER_CHUNK):
        objects = (dict(zip(COLUMNS, _values(row), strict=True)) for row in chunk)
        yield b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in objects)


def _as_parquet(rows: Iterable[TableRow]) -> Iterator[bytes]:
    """Typed columns in row groups. The index is at the end of the file, so it is written to a temporary file first."""
    from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
    from arro3.io import write_parquet

    text, time_type = DataType.string(), DataType.timestamp("us", tz="UTC")
    types = {TEXT: text, CATEGORY: text, NUMBER: DataType.float64(), TIME: time_type}
    schema = Schema(
        [Field(name, types[type_name], nullable=name not in _NOT_NULL) for name, type_name in COLUMNS.items()]
    )

    def column(values: tuple[Any, ...], type_name: str) -> Array:
        if type_name != TIME:
            return Array(values, type=types[type_name])
        return Array([_microseconds(value) for value in values], type=DataType.int64()).cast(time_type)

    failures: list[Exception] = []

    def batches() -> Iterator[RecordBatch]:
        try:
            for chunk in _chunks(rows, _ROWS_PER_BATCH):
                columns = zip(zip(*map(_values, chunk), strict=True), COLUMNS.values(), strict=True)
                yield RecordBatch.from_arrays([column(*each) for each in columns], schema=schema)
        except Exception as error:
            failures.append(error)
            raise

    with tempfile.TemporaryFile() as file:
        stream = RecordBatchReader.from_batches(schema, batches())
        try:
            write_parquet(stream, file, max_row_group_size=_ROWS_PER_GROUP, compression="zstd(3)")
        except Exception:
            # The writer reports a failing reader as text only.
            if failures:
                raise failures[0] from None
            raise
        file.seek(0)
        while piece := file.read(_READ_BYTES):
            yield piece


def _values(row: TableRow) -> tuple[Any, ...]:
    """In the order of `COLUMNS`. `photo` is the photo's key, or its target while it is moved."""
    item, model = row.item, row.model
    references = item.references
    return (
        item.id,
        references.item,
        references.order,
        references.reason,
        item.received_at,
        item.source_name,
        item.state.value,
        item.label,
        item.predicted,
        item.score,
        item.corrected_at,
        item.run_id,
        model.name if model else None,
        model.version if model else None,
        row.threshold,
        item.target_key or item.key,
        item.failure_code,
        item.failure,
        item.duplicate_of,
        item.finished_at,
        item.work_ms,
        item.answer.value if item.answer else None,
        item.proposed,
        item.retried_as,
    )


def _cell(value: Any) -> Any:
    """Only text can run as a formula; the writer leaves cells of None empty."""
    if isinstance(value, str):
        return spreadsheet_safe(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _microseconds(value: datetime | None) -> int | None:
    """Since 1970 in UTC, exactly: a float of seconds would round."""
    if value is None:
        return None
    whole = int(value.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + value.microsecond


def _chunks(rows: Iterable[TableRow], size: int) -> Iterator[list[TableRow]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode("utf-8", "replace")
