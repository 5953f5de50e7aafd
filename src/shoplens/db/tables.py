"""What the tables of all features share: the metadata, the column types, ids, and dataclasses as rows.

Each feature has its own `tables.py`. The field `decision.label` of an entity is the column `decision_label`.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeVar, get_args, get_type_hints

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Text,
    TypeDecorator,
    func,
    select,
)
from sqlalchemy.types import TypeEngine

T = TypeVar("T")

ID_LENGTH: Final = 26
_ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone in Python, UTC in the database. SQLite stores no zone, so it is dropped and added again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC. Raises ValueError for a time without a zone, which would mean another moment on another machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time to store must carry its zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def string(length: int) -> TypeEngine[str]:
    """Text of at most `length` characters, compared byte by byte on every database, as SQLite does."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text of any length, compared byte by byte on every database."""

SEQUENCE: Final = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database counts up; SQLite does that only for a plain INTEGER primary key."""


def required(name: str, kind: Any, *more: Any, unique: bool = False) -> Column[Any]:
    """A column that is never NULL."""
    return Column(name, kind, *more, nullable=False, unique=unique)


_newest: tuple[int, int] = (-1, 0)
"""The moment and the random part of the newest id."""
_newest_lock: Final = threading.Lock()


def make_id(unix_ms: int, entropy: bytes) -> str:
    """An id that sorts by time: 48 bits of milliseconds and 80 random bits, laid out as in github.com/ulid/spec.

    26 characters of lower-case Crockford base 32; `entropy` is 10 random bytes. Raises ValueError otherwise.
    """
    if len(entropy) != 10 or not 0 <= unix_ms < 1 << 48:
        raise ValueError("an id needs a time in milliseconds of 48 bits and 10 random bytes")
    number = unix_ms << 80 | int.from_bytes(entropy)
    return "".join(_ID_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def new_id(now: datetime) -> str:
    """An id of this moment that no other row has. Those that one process makes within a millisecond sort as made."""
    global _newest  # noqa: PLW0603 - the order is that of the process
    unix_ms = int(now.timestamp() * 1000)
    with _newest_lock:
        before_ms, before = _newest
        fresh = int.from_bytes(os.urandom(10)) >> 1
        entropy = before + 1 + (fresh >> 40) if unix_ms == before_ms else fresh
        _newest = unix_ms, entropy
    return make_id(unix_ms, entropy.to_bytes(10))


def time_of(row_id: str) -> datetime:
    """When an id was made, in UTC, to the millisecond."""
    number = 0
    for character in row_id:
        number = number << 5 | _ID_ALPHABET.index(character)
    return datetime.fromtimestamp((number >> 80) / 1000, UTC)


def is_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return len(text) == ID_LENGTH and all(character in _ID_ALPHABET for character in text)


def to_row(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by column; the fields of a nested dataclass have its name before them."""
    kind: Any = type(value)
    columns, read = _fields(kind)
    return dict(zip(columns, read(value), strict=True))


def from_row(kind: type[T], row: Row[Any]) -> T:
    """The value that `to_row` was given. Columns that are no field of `kind` are ignored."""
    wanted: Any = kind
    return _builder(wanted, "")(row._mapping)  # type: ignore[no-any-return]  # noqa: SLF001  public, see Row


def distinct(column: ColumnElement[str]) -> Select[tuple[str]]:
    """The distinct values of the first column of an index, each found by one search: a "loose index scan".

    Source: wiki.postgresql.org/wiki/Loose_indexscan.
    """
    values = select(func.min(column).label("value")).cte("distinct_values", recursive=True)
    following = select(func.min(column)).where(column > values.c.value).scalar_subquery()
    values = values.union_all(select(following).where(values.c.value.is_not(None)))
    return select(values.c.value).where(values.c.value.is_not(None))


@cache
def _fields(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    paths = tuple(_paths(kind))
    return tuple(path.replace(".", "_") for path in paths), attrgetter(*paths)


def _paths(kind: Any) -> Iterator[str]:
    for name, hint in _init_fields(kind):
        if dataclasses.is_dataclass(hint):
            yield from (f"{name}.{path}" for path in _paths(hint))
        else:
            yield name


@cache
def _builder(kind: Any, prefix: str) -> Callable[[Mapping[Any, Any]], Any]:
    readers: dict[str, Callable[[Mapping[Any, Any]], Any]] = {}
    for name, hint in _init_fields(kind):
        if dataclasses.is_dataclass(hint):
            nested: Any = hint
            readers[name] = _builder(nested, f"{prefix}{name}_")
        else:
            readers[name] = _reader(f"{prefix}{name}", hint)
    return lambda row: kind(**{name: read(row) for name, read in readers.items()})


def _reader(column: str, hint: Any) -> Callable[[Mapping[Any, Any]], Any]:
    """Enums are stored as their values; everything else comes from the driver as it was."""
    for choice in (hint, *get_args(hint)):
        if isinstance(choice, type) and issubclass(choice, Enum):
            return lambda row: None if row[column] is None else choice(row[column])
    return itemgetter(column)


def _init_fields(kind: Any) -> list[tuple[str, Any]]:
    hints = get_type_hints(kind)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(kind) if field.init]
