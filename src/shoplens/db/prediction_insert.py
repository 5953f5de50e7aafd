"""The one statement that runs for every answered photo, made cheap: rows of values in, one executemany out.

SQLAlchemy builds a dictionary per row and runs a processor per value; with 24 columns that costs more than SQLite's
own work. Where the driver takes positional parameters the statement is therefore compiled once and fed with tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Dialect, insert

from shoplens.db.tables import predictions

_INSERT: Final = insert(predictions)
_NAMES: Final = tuple(column.name for column in predictions.columns)

Row = tuple[Any, ...]


def insert_predictions(connection: Connection, rows: Sequence[Row]) -> None:
    """Add `rows`, each with one value per column in the table's order: all of them or, on an error, none."""
    if not rows:
        return
    if connection.dialect.positional:
        statement, prepare = _compiled(connection.dialect)
        connection.exec_driver_sql(statement, [prepare(row) for row in rows])
    else:
        connection.execute(_INSERT, [dict(zip(_NAMES, row, strict=True)) for row in rows])


@lru_cache(maxsize=8)
def _compiled(dialect: Dialect) -> tuple[str, Callable[[Row], Row]]:
    """The statement, and what turns a row into what the driver takes: only two columns need a conversion."""
    statement = str(_INSERT.compile(dialect=dialect, column_keys=list(_NAMES)))
    moment_at, labels_at = _NAMES.index("created_at"), _NAMES.index("labels")
    to_moment, to_labels = _converter(dialect, "created_at"), _converter(dialect, "labels")

    def prepare(row: Row) -> Row:
        values = list(row)
        values[moment_at] = to_moment(values[moment_at])
        values[labels_at] = to_labels(values[labels_at])
        return tuple(values)

    return statement, prepare


def _converter(dialect: Dialect, column: str) -> Callable[[Any], Any]:
    kind: Any = predictions.columns[column].type
    convert: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return convert or (lambda value: value)
