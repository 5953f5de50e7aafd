"""What the tables of all features share: the metadata and the column types. Each feature has its own `tables.py`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Integer, MetaData, String, Text, TypeDecorator
from sqlalchemy.types import TypeEngine

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
