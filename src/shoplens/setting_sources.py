"""Where each setting comes from: what the sources of the settings gave, and every value with the one that counts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shoplens.telemetry.secrets import without_passwords

ENVIRONMENT_PREFIX: Final = "SHOPLENS_"
CONFIG_FILE_VARIABLE: Final = "SHOPLENS_CONFIG"
DEFAULT_CONFIG_FILE: Final = "shoplens.toml"
ORIGINS_VARIABLE: Final = "SHOPLENS_ORIGINS"
"""Says in a process that another one started where that one's settings come from."""
OTHER_VARIABLES: Final = ("ORIGINS", "AIRFLOW_", "HOME", "IMAGE", "UID", "GID", "LOAD_", "TEST_")
"""Continuations of the prefix in names that deployment files, the load test and the tests use."""
NamePath: TypeAlias = tuple[str, ...]
"""The names that lead to a setting: `("channels", "returns", "accept_at")`."""

MASKED: Final = "***"
_SECRET_NAMES: Final = ("secret", "password", "passphrase", "headers", "api_key", "token")
"""How names of settings end whose values are never shown, beside those that are hidden in messages."""


class SourceKind(StrEnum):
    """What can give a setting its value; the first that gives one counts."""

    OPTION = "option"
    ENVIRONMENT = "environment"
    FILE = "file"
    PAGE = "page"
    """The page Settings. Only thresholds can be edited there."""
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a value comes from. `where` is the variable, the file, or who edited it when; "" for a default."""

    kind: SourceKind = SourceKind.DEFAULT
    where: str = ""

    @property
    def words(self) -> str:
        """For people, such as `environment: SHOPLENS_PORT`."""
        return f"{self.kind.value}: {self.where}" if self.where else self.kind.value

    @property
    def is_fixed(self) -> bool:
        """Whether the operator wrote it, so that nobody can change it on a page."""
        return self.kind not in (SourceKind.DEFAULT, SourceKind.PAGE)


DEFAULT: Final = Source()


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one source gave: the paths of its values, without the values."""

    source: Source
    paths: frozenset[NamePath]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """All that was given, the source that wins first. It is no part of what makes two settings equal."""

    given: tuple[Given, ...] = field(default=(), compare=False)

    def source_of(self, path: NamePath) -> Source:
        """The source of the value at a path: the first that gave it, the table around it, or a part of it."""
        for each in self.given:
            if any(_same_way(path, other) for other in each.paths):
                return each.source
        return DEFAULT

    def as_json(self) -> str:
        """For the environment of another process: `read_origins` reads it there."""
        return orjson.dumps(
            [[each.source.kind, each.source.where, sorted(each.paths)] for each in self.given]
        ).decode()  # fmt: skip


def read_origins(text: str) -> Origins | None:
    """What another process wrote with `as_json`; None for anything else."""
    try:
        return Origins(
            given=tuple(
                Given(source=Source(kind=SourceKind(kind), where=where), paths=frozenset(map(tuple, paths)))
                for kind, where, paths in orjson.loads(text)
            )
        )
    except (ValueError, TypeError):
        return None


def given_by(source: Source, values: Mapping[str, Any]) -> list[Given]:
    """What an argument or a file gave; nothing where it gave no value."""
    paths = frozenset(_leaves(values))
    return [Given(source=source, paths=paths)] if paths else []


def given_by_variables(prefix: str, values: Mapping[str, Any], variables: Iterable[str]) -> list[Given]:
    """What the environment gave, each value with its variable: the one of the value itself, or of a table around it."""
    names = {name.upper(): name for name in variables}
    by_variable: dict[str, set[NamePath]] = {}
    for path in _leaves(values):
        ways = (f"{prefix}{'__'.join(path[:length])}".upper() for length in range(len(path), 0, -1))
        found = next((names[way] for way in ways if way in names), prefix)
        by_variable.setdefault(found, set()).add(path)
    return [
        Given(source=Source(kind=SourceKind.ENVIRONMENT, where=name), paths=frozenset(paths))
        for name, paths in sorted(by_variable.items(), reverse=True)  # that of a value before that of its table
    ]


def settings_file() -> Path:
    """The file that is read where it exists."""
    return Path(os.environ.get(CONFIG_FILE_VARIABLE, DEFAULT_CONFIG_FILE))


def variables() -> list[str]:
    """The names of the variables of this process that could be settings."""
    return sorted(name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX))


def settings_in_use() -> list[str]:
    """What the settings of this process are read from: the file, where there is one, and names of variables."""
    file = settings_file()
    return [*([str(file.absolute())] if file.is_file() else []), *variables()]


def origins_of(given: Mapping[str, Mapping[str, Any]]) -> Origins:
    """Where the values come from that each source of pydantic-settings gave, by the names of their classes."""
    from_options = given_by(Source(kind=SourceKind.OPTION), given.get("InitSettingsSource", {}))
    inherited = read_origins(os.environ.get(ORIGINS_VARIABLE, ""))
    if inherited is not None:  # the process that started this one wrote all of its settings into variables
        return Origins(given=(*from_options, *inherited.given))
    from_variables = given_by_variables(ENVIRONMENT_PREFIX, given.get("EnvSettingsSource", {}), variables())
    file = Source(kind=SourceKind.FILE, where=str(settings_file().absolute()))
    from_file = given_by(file, given.get("TomlConfigSettingsSource", {}))
    return Origins(given=(*from_options, *from_variables, *from_file))


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingValue:
    """One setting as people may see it: `value` is plain (text, number, list, table), without secrets."""

    path: NamePath
    value: Any
    source: Source
    description: str = ""

    @property
    def name(self) -> str:
        """As in `shoplens.toml`, with dots."""
        return ".".join(self.path)

    @property
    def text(self) -> str:
        """The value as a text; "unset" where it has none."""
        if self.value is None:
            return "unset"
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, str):
            return self.value
        return orjson.dumps(self.value, option=orjson.OPT_NON_STR_KEYS).decode()


def setting_values(settings: BaseModel, origins: Origins) -> list[SettingValue]:
    """Every setting with its source, in the order of the model. Passwords and secrets are masked."""
    return [
        SettingValue(
            path=path,
            value=_shown(path, value, info),
            source=origins.source_of(path),
            description=info.description or "",
        )
        for path, value, info in _walk(settings, ())
    ]


def _walk(model: BaseModel, prefix: NamePath) -> Iterator[tuple[NamePath, Any, FieldInfo]]:
    for name, info in type(model).model_fields.items():
        value, path = getattr(model, name), (*prefix, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, path)
        elif isinstance(value, dict) and value and all(isinstance(each, BaseModel) for each in value.values()):
            for key, each in value.items():
                yield from _walk(each, (*path, key))
        else:
            yield path, value, info


def _shown(path: NamePath, value: Any, info: FieldInfo) -> Any:
    """The value as plain data; a secret as `***`, also the password within an address."""
    if value is None:
        return None
    is_address = isinstance(value, str) and "://" in value
    if path[-1].endswith(_SECRET_NAMES) or (info.repr is False and not is_address):
        return MASKED
    return _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return _plain(value.model_dump(mode="json"))
        case Path():
            return str(value)
        case str():
            return without_passwords(value)
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value


def _leaves(values: Mapping[str, Any], prefix: NamePath = ()) -> Iterator[NamePath]:
    for name, value in values.items():
        path = (*prefix, str(name))
        inner = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, path)
        else:
            yield path


def _same_way(one: NamePath, other: NamePath) -> bool:
    return all(left == right for left, right in zip(one, other, strict=False))
