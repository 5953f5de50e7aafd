"""A version in the registry, who has which alias, and the history of the aliases. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

from shoplens.bundles.manifest import ModelRef

Alias: TypeAlias = Literal["champion", "challenger"]
CHAMPION: Final[Alias] = "champion"
"""The version that answers."""
CHALLENGER: Final[Alias] = "challenger"
"""The version that is compared with the champion and answers nobody."""
ALIASES: Final[tuple[Alias, ...]] = (CHAMPION, CHALLENGER)

Figures: TypeAlias = Mapping[str, float]
"""Measurements by name, such as `weighted F1`."""

MAX_WHY: Final = 1_000
MAX_BY: Final = 200
MAX_FIGURES: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """A published bundle, which never changes. `digest` identifies every byte of it.

    `created_at`, `by` and `note` are None or empty for a bundle that was only pushed (`shoplens models push`).
    `signed_by` is the public key of its signature, as recorded; it is checked when the bundle is fetched.
    """

    ref: ModelRef
    digest: str
    created_at: datetime | None
    size_bytes: int
    signed_by: str | None
    figures: dict[str, float]
    note: str
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """Which version of a model has which alias, and the `etag` of this state; None where no alias was ever set."""

    by_alias: dict[str, str] = field(default_factory=dict)
    etag: str | None = None

    @property
    def champion(self) -> str | None:
        """The version that answers; None if the model has none."""
        return self.by_alias.get(CHAMPION)

    @property
    def challenger(self) -> str | None:
        """The version that is compared with the champion."""
        return self.by_alias.get(CHALLENGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One change of an alias: from the version `before` to `after`, None where there was or is no version.

    `figures` are those on which the decision was based.
    """

    at: datetime
    by: str
    name: str
    alias: Alias
    before: str | None
    after: str | None
    why: str
    figures: dict[str, float]


def live_at(history: Sequence[HistoryEntry], moment: datetime, alias: Alias = CHAMPION) -> HistoryEntry | None:
    """The entry, of a history from old to new, that was in force at `moment`: what `alias` meant since when and why.

    None before the first one.
    """
    return next((entry for entry in reversed(history) if entry.alias == alias and entry.at <= moment), None)


def previous_champion(history: Sequence[HistoryEntry]) -> str | None:
    """The version to roll back to: the one that was champion before the present one first became it.

    So each further roll-back goes one version further back, and not forth to the version that was rolled back.
    """
    line: list[str] = []
    for entry in history:
        if entry.alias != CHAMPION or entry.after is None:
            continue
        if entry.after in line:
            del line[line.index(entry.after) :]
        line.append(entry.after)
    return line[-2] if len(line) > 1 else None
