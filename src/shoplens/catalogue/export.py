"""Export products as a table, as Parquet, or in the two files of the Rakuten challenge; a page in memory at a time."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count, islice
from typing import IO, Any, Final

from shoplens.catalogue.entities import Product, ProductPhoto
from shoplens.catalogue.products import MAX_PAGE, ProductService
from shoplens.catalogue.repository import ProductFilter
from shoplens.errors import ShoplensError
from shoplens.spreadsheets import csv_chunks

COLUMNS: Final = (
    "reference", "designation", "description", "category", "category_path", "state", "answer", "answer_path", "score",
    "suggestions", "needs_review", "kind", "model", "tree", "decided_by", "decided_at", "photos", "failure_code",
)  # fmt: skip
"""Those that an import reads again have the names that it knows."""
_TYPES: Final = {"score": "float64", "tree": "int32", "needs_review": "bool", "decided_at": "timestamp"}
_ROWS: Final = 5_000
_PIECE: Final = 1 << 20
_CHALLENGE_PHOTO: Final = re.compile(r"image_(?P<image>[^_/]+)_product_[^/]+\.jpg$")


class ProductFormat(StrEnum):
    """What an export is written as. `x` and `y` are the two files of the Rakuten challenge, row by row alike."""

    CSV = "csv"
    PARQUET = "parquet"
    X = "x"
    Y = "y"

    @property
    def file_name(self) -> str:
        """The name of a downloaded file."""
        return {"csv": "products.csv", "parquet": "products.parquet", "x": "X.csv", "y": "Y.csv"}[self.value]

    @property
    def media_type(self) -> str:
        """The type of its content."""
        return "application/vnd.apache.parquet" if self is ProductFormat.PARQUET else "text/csv; charset=utf-8"


class ExportProducts:
    """Exports products. `paths_of` gives the paths of categories in a channel's live tree."""

    def __init__(self, products: ProductService, *, paths_of: Callable[[str], Callable[[str], str]]) -> None:
        self._products = products
        self._paths_of = paths_of

    def __call__(self, wanted: ProductFilter, kind: ProductFormat) -> Iterator[bytes]:
        """The file in pieces, in the order of the products' ids. CSV is safe to open in a spreadsheet."""
        if kind is ProductFormat.PARQUET:
            return self._parquet(wanted)
        if kind is ProductFormat.X:
            chunks = csv_chunks(("", "designation", "description", "productid", "imageid"), self._challenge(wanted))
        elif kind is ProductFormat.Y:
            codes = ((row, product.category) for row, (product, _) in zip(count(), self._each(wanted), strict=False))
            chunks = csv_chunks(("", "prdtypecode"), codes)
        else:
            chunks = csv_chunks(COLUMNS, map(tuple, self._rows(wanted)))
        return (chunk.encode() for chunk in chunks)

    def _each(self, wanted: ProductFilter) -> Iterator[tuple[Product, tuple[ProductPhoto, ...]]]:
        after: str | None = None
        while True:
            page = self._products.page(wanted, limit=MAX_PAGE, after=after)
            for product in page.products:
                yield product, page.photos.get(product.id, ())
            if (after := page.next) is None:
                return

    def _rows(self, wanted: ProductFilter) -> Iterator[list[Any]]:
        path_of = self._paths_of(wanted.channel)
        for product, photos in self._each(wanted):
            named: dict[str, Any] = {
                "category_path": None if product.category is None else path_of(product.category),
                "answer_path": None if product.answer is None else path_of(product.answer),
                "suggestions": "|".join(f"{each.category}:{each.score:.4f}" for each in product.suggestions),
                "photos": "|".join(photo.name for photo in photos),
                "state": product.state.value,
            }
            yield [named[column] if column in named else getattr(product, column) for column in COLUMNS]

    def _challenge(self, wanted: ProductFilter) -> Iterator[tuple[object, ...]]:
        for row, (product, photos) in enumerate(self._each(wanted)):
            found = _CHALLENGE_PHOTO.search(photos[0].name) if photos else None
            image = found["image"] if found else ""
            yield row, product.designation, product.description, product.reference, image

    def _parquet(self, wanted: ProductFilter) -> Iterator[bytes]:
        with tempfile.TemporaryFile() as file:
            write_parquet(self._rows(wanted), file)
            file.seek(0)
            while piece := file.read(_PIECE):
                yield piece


def write_parquet(rows: Iterator[list[Any]], file: IO[bytes]) -> None:
    """Write rows of `COLUMNS` into a file that can be sought in. Raises the ShoplensError of `rows`, if one."""
    from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
    from arro3.io import write_parquet as write

    kinds = {
        "float64": DataType.float64(), "int32": DataType.int32(), "bool": DataType.bool(),
        "timestamp": DataType.timestamp("us", tz="UTC"),
    }  # fmt: skip
    types = {column: kinds[_TYPES[column]] if column in _TYPES else DataType.string() for column in COLUMNS}
    schema = Schema([Field(column, types[column], nullable=True) for column in COLUMNS])

    def column_of(name: str, values: Sequence[Any]) -> Array:
        if name != "decided_at":
            return Array(values, type=types[name])
        return Array([_microseconds(each) for each in values], type=DataType.int64()).cast(types[name])

    failures: list[ShoplensError] = []

    def batches() -> Iterator[RecordBatch]:
        try:
            while chunk := list(islice(rows, _ROWS)):
                columns = zip(COLUMNS, zip(*chunk, strict=True), strict=True)
                yield RecordBatch.from_arrays([column_of(*each) for each in columns], schema=schema)
        except ShoplensError as error:
            failures.append(error)
            raise

    try:
        write(RecordBatchReader.from_batches(schema, batches()), file, compression="zstd(3)")
    finally:
        if failures:  # the writer reports a failing reader as text only
            raise failures[0] from None


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.astimezone(UTC).timestamp() * 1e6)
