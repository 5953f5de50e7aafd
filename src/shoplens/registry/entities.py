"""A version in the registry, who has which alias, and the history of the aliases. Values only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

from shoplens.bundles.manifest import ModelRef
from shoplens.errors import RequestInvalid
from shoplens.messages import marked
from shoplens.registry.errors import AliasUnchanged

Alias: TypeAlias = Literal["champion", "challenger"]
CHAMPION: Final[Alias] = "champion"
"""The version that answers."""
CHALLENGER: Final[Alias] = "challenger"
"""The version that is compared with the champion and answers nobody."""
ALIASES: Final[tuple[Alias, ...]] = (CHAMPION, CHALLENGER)

Figures: TypeAlias = Mapping[str, float]
"""Measurements by name, such as `weighted F1`."""

MAX_WHY: Final = 1_000
"""Characters of a reason."""
_MAX_NAME: Final = 200
_MAX_FIGURES: Final = 50
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tabs and line breaks, and marks that turn the direction of text."""


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
    """Which version of a model has which alias, and the `etag` of this state; None where no alias was ever set.

    `digests` has the digest of each of these versions: what is installed under the same name may be another bundle.
    """

    by_alias: dict[Alias, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """A part of a history, newest first. `next` is the cursor of the changes before it, None if there are none."""

    entries: tuple[HistoryEntry, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Who asks for a change, why, and on the basis of which measurements. Raises RequestInvalid."""

    by: str
    why: str
    figures: Figures = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.by.strip() or len(self.by) > _MAX_NAME:
            raise RequestInvalid(f"Say who changes the registry, in at most {_MAX_NAME} characters.")
        if not self.why.strip() or len(self.why) > MAX_WHY:
            raise RequestInvalid(f"Say why, in at most {MAX_WHY:,} characters: the history keeps it.")
        if len(self.figures) > _MAX_FIGURES:
            raise RequestInvalid(f"There are more than {_MAX_FIGURES} figures; the bundle's evaluation has them all.")
        if _CONTROL.search(self.by + self.why + "".join(self.figures)):
            raise RequestInvalid("There are control characters in what is to be kept in the history. Remove them.")
        for name, value in self.figures.items():
            if not name or len(name) > _MAX_NAME or not math.isfinite(value):
                raise RequestInvalid(f"The figure {name[:50]!r} needs a name and a finite number.")


def alias_changes(
    aliases: Aliases, name: str, alias: Alias, version: str | None, *, reason: Reason, at: datetime
) -> tuple[HistoryEntry, ...]:
    """The entries of a change: the wanted one, and, if the challenger becomes champion, the end of the challenger.

    Raises AliasUnchanged if `version` has the alias already, or a champion would become its own challenger.
    """
    if aliases.by_alias.get(alias) == version:
        state = marked(f"has no {alias}") if version is None else marked(f"has {version} as its {alias}")
        raise AliasUnchanged(f"The model {name} {state} already. Nothing was changed.")
    if alias == CHALLENGER and version is not None and version == aliases.champion:
        raise AliasUnchanged(f"{name}@{version} is the champion; the challenger must be another version.")
    moved: list[tuple[Alias, str | None]] = [(alias, version)]
    if alias == CHAMPION and version is not None and version == aliases.challenger:
        moved.append((CHALLENGER, None))
    return tuple(
        HistoryEntry(
            at=at,
            by=reason.by,
            name=name,
            alias=each,
            before=aliases.by_alias.get(each),
            after=after,
            why=reason.why,
            figures=dict(reason.figures),
        )
        for each, after in moved
    )


def live_at(history: Sequence[HistoryEntry], moment: datetime, alias: Alias = CHAMPION) -> HistoryEntry | None:
    """The entry, of a history from old to new, that was in force at `moment`: what `alias` meant since when and why.

    None before the first one.
    """
    return next((entry for entry in reversed(history) if entry.alias == alias and entry.at <= moment), None)


def previous_champion(history: Sequence[HistoryEntry]) -> str | None:
    """The version to roll back to: the one that was champion before the present one first became it.

    So each further roll-back goes one version further back, and not forth to the version that was rolled back. A
    history without its beginning gives the same, or None, unless something older than it was promoted again.
    """
    changes = [entry for entry in history if entry.alias == CHAMPION]
    line = [entry.before for entry in changes[:1] if entry.before is not None]
    for entry in changes:
        if entry.after is None:
            continue
        if entry.after in line:
            del line[line.index(entry.after) :]
        line.append(entry.after)
    if changes and changes[-1].after is not None:
        line.pop()
    return line[-1] if line else None
