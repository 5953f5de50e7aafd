"""The one statement that runs for every answered photo, made cheap: rows of values in, all of them added or none.

SQLAlchemy builds a dictionary per row and runs a processor per value; with 24 columns that costs more than SQLite's
own work. The statement is therefore made once and fed with tuples. PostgreSQL would also plan it anew for each row:
it takes the group as a stream (COPY), a quarter of the time for a large group and no more for a single row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Dialect, insert
from sqlalchemy.exc import DBAPIError

from shoplens.db.tables import predictions

_INSERT: Final = insert(predictions)
_NAMES: Final = tuple(column.name for column in predictions.columns)
_COPY: Final = f"COPY predictions ({', '.join(_NAMES)}) FROM STDIN"

Row = tuple[Any, ...]


def insert_predictions(connection: Connection, rows: Sequence[Row]) -> None:
    """Add `rows`, each with one value per column in the table's order: all of them or, on an error, none."""
    if not rows:
        return
    prepare = _preparation(connection.dialect)
    prepared = [prepare(row) for row in rows]
    if connection.dialect.name == "postgresql":
        _copy(connection, prepared)
    else:
        connection.exec_driver_sql(_statement(connection.dialect), prepared)


def _copy(connection: Connection, rows: Sequence[Row]) -> None:
    """Straight at the driver, whose errors therefore are to be wrapped as SQLAlchemy does."""
    driver: Any = connection.connection.dbapi_connection
    base: Any = connection.dialect.loaded_dbapi.Error
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as stream:
            for row in rows:
                stream.write_row(row)
    except base as error:
        raise DBAPIError.instance(_COPY, None, error, base, hide_parameters=True, dialect=connection.dialect) from error


@lru_cache(maxsize=8)
def _statement(dialect: Dialect) -> str:
    return str(_INSERT.compile(dialect=dialect, column_keys=list(_NAMES)))


@lru_cache(maxsize=8)
def _preparation(dialect: Dialect) -> Callable[[Row], Row]:
    """What turns a row into what the driver takes: only two columns need a conversion."""
    moment_at, labels_at = _NAMES.index("created_at"), _NAMES.index("labels")
    to_moment, to_labels = _converter(dialect, "created_at"), _converter(dialect, "labels")

    def prepare(row: Row) -> Row:
        values = list(row)
        values[moment_at] = to_moment(values[moment_at])
        values[labels_at] = to_labels(values[labels_at])
        return tuple(values)

    return prepare


def _converter(dialect: Dialect, column: str) -> Callable[[Any], Any]:
    kind: Any = predictions.columns[column].type
    convert: Callable[[Any], Any] | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return convert or (lambda value: value)
