"""The manifest of a label set: its columns, its digest, and how it is written and read as Parquet.

Labels go through one at a time or in groups of rows, so that a set of millions needs little memory.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from typing import IO, Any, Final

import orjson

from shoplens.errors import ShoplensError
from shoplens.labels.entities import Label

COLUMNS: Final = (
    "sample_id", "source", "channel", "label", "given_at", "given_by", "model", "image_sha256", "image_key",
    "image_phash", "designation", "description", "group",
)  # fmt: skip
_OPTIONAL: Final = frozenset({"given_by", "image_key", "image_phash", "designation", "description"})
_ROWS: Final = 10_000
_PIECE: Final = 1 << 20
_values: Final = attrgetter(*COLUMNS)


def row_of(label: Label) -> tuple[object, ...]:
    """The values of `COLUMNS`, times as text in UTC."""
    values: tuple[object, ...] = _values(label)
    return tuple(
        value.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(value, datetime) else value
        for value in values
    )


class Counted:
    """Labels on their way into a file: how many there were, and the digest over them. Iterate once, to the end."""

    def __init__(self, labels: Iterable[Label]) -> None:
        self._labels = labels
        self._hash = hashlib.sha256()
        self.count = 0

    def __iter__(self) -> Iterator[Label]:
        for label in self._labels:
            self.count += 1
            self._hash.update(orjson.dumps(row_of(label), option=orjson.OPT_APPEND_NEWLINE))
            yield label

    @property
    def digest(self) -> str:
        """The SHA-256 of all rows as JSON, in 64 hex digits."""
        return self._hash.hexdigest()


def write(labels: Iterable[Label], file: IO[bytes]) -> None:
    """Write labels as Parquet into a file that can be sought in. Raises the ShoplensError of `labels`, if one."""
    from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
    from arro3.io import write_parquet

    text, moment = DataType.string(), DataType.timestamp("us", tz="UTC")
    types = {"given_at": moment, "group": DataType.int64()}
    types = {name: types.get(name, text) for name in COLUMNS}
    schema = Schema([Field(name, types[name], nullable=name in _OPTIONAL) for name in COLUMNS])

    def column(name: str, values: tuple[Any, ...]) -> Array:
        if name != "given_at":
            return Array(values, type=types[name])
        return Array([round(value.timestamp() * 1e6) for value in values], type=DataType.int64()).cast(moment)

    failures: list[ShoplensError] = []

    def batches() -> Iterator[RecordBatch]:
        rows = iter(labels)
        try:
            while chunk := [_values(label) for label in islice(rows, _ROWS)]:
                columns = zip(COLUMNS, zip(*chunk, strict=True), strict=True)
                yield RecordBatch.from_arrays([column(*each) for each in columns], schema=schema)
        except ShoplensError as error:
            failures.append(error)
            raise

    try:
        write_parquet(RecordBatchReader.from_batches(schema, batches()), file, compression="zstd(3)")
    finally:
        if failures:  # the writer reports a failing reader as text only
            raise failures[0] from None


def read(pieces: Iterable[bytes]) -> Iterator[Label]:
    """The labels of a Parquet file, in its order. A file of an earlier release may lack the last columns."""
    with tempfile.TemporaryFile() as file:
        for piece in pieces:
            file.write(piece)
        yield from read_file(file)


def read_file(file: IO[bytes]) -> Iterator[Label]:
    """As `read`, from a file that can be sought in."""
    from arro3.io import read_parquet

    file.seek(0)
    for batch in read_parquet(file, batch_size=_ROWS):
        names = [name for name in COLUMNS if name in batch.schema.names]
        columns = [batch.column(name).to_pylist() for name in names]
        for values in zip(*columns, strict=True):
            yield Label(**dict(zip(names, values, strict=True)))


def pieces_of(file: IO[bytes]) -> Iterator[bytes]:
    """The content of a file from its beginning."""
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece
