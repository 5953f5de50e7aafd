"""A registry on any store of objects: a directory, S3.

Beside the bundles (see `bundles/store.py`) a model has

<name>/<version>/published-<digest>.json   who published it, when and why; written before the bundle becomes visible
<name>/_aliases.json                       the aliases, and the change that led to them
<name>/_history/000001.json                each earlier change

The aliases and their last change are one object, so that both change in one conditional write: an alias never changes
without a record. A writer first copies the last change to the history, which any number of writers may do at once,
and then replaces the object if it is still the one that was read. So a writer may be killed at any moment, and of two
writers one is refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.bundles.signing import Trust
from shoplens.bundles.store import PublishedBundle, SharedBundles, by_number
from shoplens.errors import BlobNotFound, BundleInvalid, ModelNotFound, RequestInvalid
from shoplens.registry.entities import (
    Alias,
    Aliases,
    Figures,
    HistoryEntry,
    HistoryPage,
    Reason,
    RegisteredVersion,
    alias_changes,
)
from shoplens.registry.errors import AliasChanged, RegistryDamaged
from shoplens.storage import Store

_NAME: Final = re.compile(NAME_PATTERN)
_REQUESTS_AT_ONCE: Final = 8
_MAX_NUMBER: Final = 12
"""Digits of the number of a change."""
_ALIASES: Final = "/_aliases.json"
_HISTORY: Final = "/_history/"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One change of the aliases. `id` is random: by it a writer knows its own change again."""

    number: Annotated[int, Field(ge=1)]
    id: str
    entries: Annotated[tuple[HistoryEntry, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """`_aliases.json`: which version has which alias, the digests of these versions, and the last change."""

    by_alias: dict[Alias, str]
    digests: dict[str, str]
    change: _Change


@dataclass(frozen=True, slots=True, kw_only=True)
class _Publication:
    """`published-<digest>.json`."""

    at: datetime
    by: str
    why: str
    figures: dict[str, float]


_CHANGE: Final = TypeAdapter(_Change)
_STATE: Final = TypeAdapter(_State)
_PUBLICATION: Final = TypeAdapter(_Publication)


class ObjectRegistry:
    """A `Registry` in `store`; `place` is its address for messages. All methods raise StorageUnavailable."""

    def __init__(self, store: Store, place: str, *, clock: Callable[[], datetime]) -> None:
        self.place = place
        self._store = store
        self._bundles = SharedBundles(store, place)
        self._clock = clock

    def publish(self, bundle: Bundle, *, by: str, why: str, figures: Figures) -> RegisteredVersion:
        """As `Registry.publish`. The record of the first who published a bundle stays."""
        reason = Reason(by=by, why=why, figures=figures)
        published = _Publication(at=self._clock(), by=reason.by, why=reason.why, figures=dict(reason.figures))
        key = _publication_key(bundle.ref, bundle.digest)
        self._store.put_if(key, _PUBLICATION.dump_json(published), seen=None)
        try:
            self._bundles.push(bundle)
        except BundleInvalid:
            self._store.delete(key)
            raise
        version = self._version(bundle.ref)
        if version is None:
            raise RegistryDamaged(f"{bundle.ref} was removed from {self.place} while it was published. Try again.")
        return version

    def names(self) -> list[str]:
        """As `Registry.names`."""
        return sorted({ref.name for ref in self._bundles.published()})

    def versions(self, name: str) -> list[RegisteredVersion]:
        """As `Registry.versions`. Raises BundleError for a damaged list of files or signature."""
        refs = [ModelRef(name=name, version=version) for version in sorted(self._bundles.versions(name), key=by_number)]
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
            return [version for version in threads.map(self._version, refs) if version is not None]

    def aliases(self, name: str, seen: Aliases | None = None) -> Aliases:
        """As `Registry.aliases`."""
        if not _NAME.fullmatch(name):
            return Aliases()
        if seen is not None and seen.etag == self._store.version(_state_key(name)):
            return seen
        state, etag = self._state(name)
        return Aliases(by_alias=state.by_alias, digests=state.digests, etag=etag) if state else Aliases()

    def set_alias(
        self, name: str, alias: Alias, version: str | None, *, by: str, why: str, figures: Figures, expected: Aliases
    ) -> HistoryEntry:
        """As `Registry.set_alias`."""
        reason = Reason(by=by, why=why, figures=figures)
        published = None
        if version is not None:
            published = self._bundles.describe(_ref(name, version))
            if published is None:
                raise ModelNotFound(f"There is no model {name}@{version} at {self.place}. Publish it first.")
        state, etag = self._state(name)
        if etag != expected.etag:
            raise self._changed(name, state)
        last = state.change if state else None
        # Clocks of machines differ: a later change never has an earlier time.
        at = max([self._clock(), *(entry.at for entry in (last.entries if last else ()))])
        present = Aliases(by_alias=state.by_alias if state else {})
        change = _Change(
            number=last.number + 1 if last else 1,
            id=secrets.token_hex(16),
            entries=alias_changes(present, name, alias, version, reason=reason, at=at),
        )
        if last is not None:
            self._archive(name, last)
        new = _STATE.dump_json(_following(state, change, published))
        # A client that repeats a write whose answer was lost is refused, although it is the one that wrote.
        if not self._store.put_if(_state_key(name), new, seen=etag) and not self._happened(name, change):
            raise self._changed(name, self._state(name)[0])
        return change.entries[0]

    def history(self, name: str) -> list[HistoryEntry]:
        """As `Registry.history`."""
        state = self._state(name)[0] if _NAME.fullmatch(name) else None
        if state is None:
            return []
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
            earlier = threads.map(lambda number: self._change(name, number), range(1, state.change.number))
            return [entry for change in (*earlier, state.change) for entry in change.entries]

    def changes(self, name: str, *, before: str | None = None, limit: int) -> HistoryPage:
        """As `Registry.changes`. The cursor is the number of a change."""
        if before is not None and not (before.isascii() and before.isdecimal() and len(before) < _MAX_NUMBER):
            raise RequestInvalid(f"{before[:50]!r} is no cursor of a history. Leave it out to begin with the newest.")
        state = self._state(name)[0] if _NAME.fullmatch(name) else None
        if state is None:
            return HistoryPage(entries=(), next=None)
        newest = state.change
        first = newest.number if before is None else min(newest.number, int(before) - 1)
        numbers = range(first, max(0, first - limit), -1)
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
            found = threads.map(lambda each: newest if each == newest.number else self._change(name, each), numbers)
            entries = tuple(entry for change in found for entry in reversed(change.entries))
        return HistoryPage(entries=entries, next=str(numbers[-1]) if numbers and numbers[-1] > 1 else None)

    def fetch(self, ref: ModelRef, models_dir: Path, trust: Trust) -> Bundle:
        """As `Registry.fetch`."""
        return self._bundles.fetch(ref, models_dir, trust)

    def _version(self, ref: ModelRef) -> RegisteredVersion | None:
        published = self._bundles.describe(ref)
        if published is None:
            return None
        version = RegisteredVersion(
            ref=ref,
            digest=published.digest,
            created_at=None,
            size_bytes=published.size_bytes,
            signed_by=published.signed_by,
            figures={},
            note="",
        )
        try:
            record = _PUBLICATION.validate_json(self._store.get(_publication_key(ref, published.digest)))
        except BlobNotFound:
            return version
        except ValidationError as error:
            raise RegistryDamaged(f"The record of {ref} at {self.place} cannot be read. Publish it again.") from error
        return replace(version, created_at=record.at, by=record.by, note=record.why, figures=record.figures)

    def _state(self, name: str) -> tuple[_State | None, str | None]:
        """What is stored, and its version, which is read first: at worst it is older, and a write is refused."""
        key = _state_key(name)
        etag = self._store.version(key)
        if etag is None:
            return None, None
        try:
            return _STATE.validate_json(self._store.get(key)), etag
        except BlobNotFound:
            return None, None
        except ValidationError as error:
            raise RegistryDamaged(
                f"{key} at {self.place} cannot be read. Restore it from a backup or an earlier version of the object."
            ) from error

    def _change(self, name: str, number: int) -> _Change:
        key = _change_key(name, number)
        try:
            return _CHANGE.validate_json(self._store.get(key))
        except (BlobNotFound, ValidationError) as error:
            raise RegistryDamaged(
                f"The history of {name} is not complete: {key} at {self.place} is missing or damaged. Restore it from "
                "a backup."
            ) from error

    def _archive(self, name: str, change: _Change) -> None:
        """Copy the last change to the history, where another writer may have copied it before."""
        stored = self._store.put_if(_change_key(name, change.number), _CHANGE.dump_json(change), seen=None)
        if not stored and self._change(name, change.number) != change:
            raise RegistryDamaged(
                f"The history of {name} has another change under number {change.number} than its aliases: one of both "
                f"was restored from a backup. Restore {name}/_history and {_state_key(name)} from the same one."
            )

    def _happened(self, name: str, change: _Change) -> bool:
        """Whether this change is the last one or an earlier one."""
        state, _ = self._state(name)
        if state is None or state.change.number < change.number:
            return False
        last = state.change.number == change.number
        return change.id == (state.change if last else self._change(name, change.number)).id

    def _changed(self, name: str, state: _State | None) -> AliasChanged:
        if state is None:
            return AliasChanged(f"The aliases of {name} were removed meanwhile. Look at the registry and try again.")
        last = state.change.entries[0]
        return AliasChanged(
            f"The aliases of {name} have changed: {last.by} made {last.after or 'no version'} the {last.alias} at "
            f"{last.at:%Y-%m-%d %H:%M} UTC. Look at the registry and try again."
        )


def copy_registry(source: Store, target: Store, *, replace_aliases: bool) -> None:
    """Copy what `target` lacks, while others publish and promote; the copy is as `source` was at one moment.

    The aliases come first and are written last, so what they name is there. Those that are in `target` stay unless
    `replace_aliases`. Raises StorageUnavailable and RegistryDamaged.
    """
    keys = list(source.list(""))
    states = {key: source.get(key) for key in keys if key.endswith(_ALIASES)}
    for key in source.list(""):
        if not key.endswith(_ALIASES) and _HISTORY not in key and not target.exists(key):
            target.put_pieces(key, source.pieces(key))
    for key, data in states.items():
        name = key.removesuffix(_ALIASES)
        try:
            last = _STATE.validate_json(data).change.number
        except ValidationError as error:
            raise RegistryDamaged(f"{key} cannot be read. Restore it from a backup.") from error
        for earlier in (_change_key(name, number) for number in range(1, last)):
            target.put_if(earlier, source.get(earlier), seen=None)
        if not target.put_if(key, data, seen=None) and replace_aliases:
            target.put_pieces(key, [data])


def _following(state: _State | None, change: _Change, published: PublishedBundle | None) -> _State:
    """The state after `change`; `published` is the version that gets an alias."""
    by_alias = dict(state.by_alias) if state else {}
    for entry in change.entries:
        by_alias.pop(entry.alias, None)
        if entry.after is not None:
            by_alias[entry.alias] = entry.after
    digests = dict(state.digests) if state else {}
    if published is not None:
        digests[published.ref.version] = published.digest
    return _State(
        by_alias=by_alias, digests={version: digests[version] for version in by_alias.values()}, change=change
    )


def _ref(name: str, version: str) -> ModelRef:
    """Raises ModelNotFound for what cannot be one."""
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
        raise ModelNotFound(f"There is no model {name[:80]}@{version[:80]}.")
    return ModelRef(name=name, version=version)


def _state_key(name: str) -> str:
    return f"{name}{_ALIASES}"


def _change_key(name: str, number: int) -> str:
    return f"{name}{_HISTORY}{number:06}.json"


def _publication_key(ref: ModelRef, digest: str) -> str:
    return f"{ref.name}/{ref.version}/published-{digest}.json"
