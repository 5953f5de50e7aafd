"""Dataclasses to rows and back by equal names: the field `decision.label` is the column `decision_label`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, TypeVar, get_args, get_type_hints

from sqlalchemy import Row

T = TypeVar("T")


def to_row(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by column; the fields of a nested dataclass have its name before them."""
    kind: Any = type(value)
    columns, read = _fields(kind)
    return dict(zip(columns, read(value), strict=True))


def from_row(kind: type[T], row: Row[Any]) -> T:
    """The value that `to_row` was given. Columns that are no field of `kind` are ignored."""
    wanted: Any = kind
    return _builder(wanted, "")(row._mapping)  # type: ignore[no-any-return]  # noqa: SLF001  public, see Row


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
