"""Publish models, promote them and roll them back: the use cases on a registry.

A change is written to the registry, which has the whole history, and then to the audit log and to the webhooks of this
system, if it has a database. If that fails, the change stands, and the log says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.advice import meant
from shoplens.bundles.builtin import builtin_version, prepare_builtin
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.signing import Trust
from shoplens.bundles.store import installed_bundles, require_trust, resolve_bundle
from shoplens.db import Database
from shoplens.errors import BundleError, BundleUntrusted, DatabaseUnavailable, ModelNotFound
from shoplens.registry.entities import (
    CHALLENGER,
    CHAMPION,
    Alias,
    Aliases,
    Figures,
    HistoryEntry,
    HistoryPage,
    RegisteredVersion,
    live_at,
    previous_champion,
)
from shoplens.registry.errors import NoEarlierChampion
from shoplens.registry.registry import Registry
from shoplens.telemetry.logs import get_logger
from shoplens.webhooks.outbox import emit

PROMOTED_EVENT: Final = "model.promoted"
_VERSIONS_NAMED: Final = 5
_READ_AT_ONCE: Final = 100
_MOST_READ: Final = 1_000
"""Entries of a history in which the version is looked for that was champion before."""
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A model in the registry: its versions by rising number, its aliases, and the newest part of their history, from
    old to new; `earlier` is the cursor of what was before, None if that is all. `built_in` is the version of the
    built-in model of this name, which answers where no version is champion; None where there is no such model.
    """

    name: str
    versions: tuple[RegisteredVersion, ...]
    aliases: Aliases
    history: tuple[HistoryEntry, ...]
    earlier: str | None
    built_in: str | None = None

    @property
    def live(self) -> HistoryEntry | None:
        """The change by which the present champion became it; None where there is no champion."""
        return self._last(CHAMPION)

    @property
    def challenged(self) -> HistoryEntry | None:
        """The change by which the present challenger became it; None where there is none."""
        return self._last(CHALLENGER)

    @property
    def previous(self) -> str | None:
        """The version to which a roll-back leads: the earlier champion, else the built-in model."""
        earlier = previous_champion(self.history)
        if earlier is None and self.aliases.champion not in (None, self.built_in):
            return self.built_in
        return earlier

    @property
    def is_explained(self) -> bool:
        """Whether `history` reaches back to the changes that led to the present aliases, and to a roll-back."""
        there = {entry.alias for entry in self.history}
        known = self.aliases.champion is None or previous_champion(self.history) is not None
        return set(self.aliases.by_alias) <= there and known

    def _last(self, alias: Alias) -> HistoryEntry | None:
        last = next((entry for entry in reversed(self.history) if entry.alias == alias), None)
        return last if last is not None and last.after is not None else None


class RegistryService:
    """Use cases for API, pages and commands. Blocks. All methods raise Unavailable if the registry is away.

    `database` and `audit` are None for a command where there is no database. Built-in models are in `models_dir`.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        models_dir: Path,
        trust: Trust,
        database: Database | None,
        audit: AuditLog | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._registry = registry
        self._models_dir = models_dir
        self._trust = trust
        self._database = database
        self._audit = audit
        self._clock = clock

    @property
    def place(self) -> str:
        """The address of the registry."""
        return self._registry.place

    def names(self) -> list[str]:
        """All models in alphabetical order."""
        return self._registry.names()

    def all(self) -> list[RegisteredModel]:
        """All models in alphabetical order."""
        return [self.model(name) for name in self.names()]

    def model(self, name: str) -> RegisteredModel:
        """One model. Of its history as much as says how its aliases came to be. Raises ModelNotFound."""
        versions = tuple(self._registry.versions(name))
        aliases = self._registry.aliases(name)
        if not versions and aliases.etag is None:
            raise self._unknown(name)
        entries: list[HistoryEntry] = []
        cursor: str | None = None
        while True:
            page = self._registry.changes(name, before=cursor, limit=_READ_AT_ONCE)
            entries = [*reversed(page.entries), *entries]
            cursor = page.next
            model = RegisteredModel(
                name=name,
                versions=versions,
                aliases=aliases,
                history=tuple(entries),
                earlier=cursor,
                built_in=builtin_version(name),
            )
            if cursor is None or len(entries) >= _MOST_READ or model.is_explained:
                return model

    def changes(self, name: str, *, before: str | None = None, limit: int) -> HistoryPage:
        """A page of the history, newest first. Raises ModelNotFound, and RequestInvalid for what is no cursor."""
        page = self._registry.changes(name, before=before, limit=limit)
        if not page.entries and before is None and not self._registry.versions(name):
            raise self._unknown(name)
        return page

    def _unknown(self, name: str) -> ModelNotFound:
        known = self._registry.names()
        return ModelNotFound(f"There is no model {name[:80]!r} in the registry{meant(name, known)}. Publish it first.")

    def live(self, name: str, moment: datetime | None = None) -> HistoryEntry | None:
        """What was champion at `moment`, now if unset: the entry by which it became it; None before the first one.

        Raises ModelNotFound.
        """
        moment, cursor = moment or self._clock(), None
        while True:
            page = self.changes(name, before=cursor, limit=_READ_AT_ONCE)
            found = live_at(tuple(reversed(page.entries)), moment)
            cursor = page.next
            if found is not None or cursor is None:
                return found

    def publish(self, bundle: Bundle, principal: Principal, *, why: str, figures: Figures) -> RegisteredVersion:
        """Publish a bundle; without `figures` with those of its evaluation. Raises BundleUntrusted, and as the port."""
        require_trust(bundle, self._trust)
        figures = figures or figures_of(bundle)
        version = self._registry.publish(bundle, by=principal.name, why=why, figures=figures)
        if (version.by, version.note) == (principal.name, why):  # else it was published before
            self._tell(principal, "model.published", str(version.ref), {"digest": version.digest, "why": why})
        return version

    def unpublished(self) -> list[ModelRef]:
        """The models that are installed on this machine and not in the registry, but for the built-in versions."""
        own = [ref for ref in self._installed() if ref.version != builtin_version(ref.name)]
        known = {each.ref for name in {ref.name for ref in own} for each in self._registry.versions(name)}
        return [ref for ref in own if ref not in known]

    def publish_installed(self, ref: ModelRef, principal: Principal, *, why: str) -> RegisteredVersion:
        """Publish a model that is installed on this machine. Raises ModelNotFound, BundleError, and as the port."""
        if ref not in self._installed():
            raise ModelNotFound(f"There is no model {ref.name[:80]}@{ref.version[:80]} on this machine.")
        bundle = resolve_bundle(str(ref), self._models_dir, trust=self._trust)
        return self.publish(bundle, principal, why=why, figures={})

    def _installed(self) -> list[ModelRef]:
        return [bundle.ref for bundle in installed_bundles(self._models_dir)]

    def set_alias(
        self,
        name: str,
        alias: Alias,
        version: str | None,
        principal: Principal,
        *,
        why: str,
        figures: Figures | None = None,
        expected: Aliases | None = None,
    ) -> HistoryEntry:
        """Give `alias` to `version`, without `figures` with those of the version. None takes the alias away.

        The first champion of a built-in model's name takes the place of that model, which is published and recorded
        as the champion before it: so the history is complete, and a roll-back leads back to it.

        `expected` are the aliases on which the decision was made; unset, those that are there now. Raises
        ModelNotFound, BundleUntrusted for a version that no server would load, and as the port.
        """
        present = self._registry.aliases(name)
        expected = expected or present
        if version is not None:
            found = {each.ref.version: each for each in self._registry.versions(name)}
            if not found:
                raise self._unknown(name)
            if version not in found:
                known = ", ".join(list(found)[-_VERSIONS_NAMED:])
                raise ModelNotFound(
                    f"There is no model {name[:80]}@{version[:80]} in the registry. The newest versions of {name} are: "
                    f"{known}."
                )
            if self._trust.required and found[version].signed_by not in self._trust.keys:
                raise BundleUntrusted(
                    f"{name}@{version} is not signed by a trusted key, so no server would load it. Sign and publish it "
                    "where it was made."
                )
            figures = figures or found[version].figures
            is_first = alias == CHAMPION and present.champion is None and expected.etag == present.etag
            if is_first and builtin_version(name) not in (None, version):
                expected = self._with_builtin(name, principal, present)
        entry = self._registry.set_alias(
            name, alias, version, by=principal.name, why=why, figures=figures or {}, expected=expected
        )
        self._announce(entry, principal, "model.promoted")
        return entry

    def roll_back(self, name: str, principal: Principal, *, why: str, expected: Aliases | None = None) -> HistoryEntry:
        """Make the earlier champion the champion again, or the built-in model where no other version was before.

        Raises NoEarlierChampion, BundleError for a built-in model that cannot be published, and as `set_alias`.
        """
        model = self.model(name)
        if model.previous is None:
            raise NoEarlierChampion(
                f"No other version of {name} was champion before {model.aliases.champion or 'now'}: there is nothing "
                "to roll back to. Promote a version instead."
            )
        figures = {each.ref.version: each.figures for each in model.versions}.get(model.previous)
        if figures is None and model.previous == model.built_in:
            figures = self._publish_builtin(name, principal).figures
        entry = self._registry.set_alias(
            name,
            CHAMPION,
            model.previous,
            by=principal.name,
            why=why,
            figures=figures or {},
            expected=expected or model.aliases,
        )
        self._announce(entry, principal, "model.rolled_back")
        return entry

    def _with_builtin(self, name: str, principal: Principal, present: Aliases) -> Aliases:
        """The aliases after the built-in model became champion; `present` where it could not.

        It answers already, so an end between this change and the next one changes no answer.
        """
        try:
            version = self._publish_builtin(name, principal)
        except BundleError as error:
            _log.warning("registry.builtin_not_published", model=name, code=error.code, reason=str(error))
            return present
        self._registry.set_alias(
            name,
            CHAMPION,
            version.ref.version,
            by=principal.name,
            why="The built-in model, which answered until a version of the registry took its place.",
            figures=version.figures,
            expected=present,
        )
        after = self._registry.aliases(name)
        return after if after.champion == version.ref.version else present

    def _publish_builtin(self, name: str, principal: Principal) -> RegisteredVersion:
        """So that every server can go back to it, one with another release of this program, too. Raises BundleError."""
        bundle = prepare_builtin(name, self._models_dir)
        return self.publish(bundle, principal, why="The built-in model, so that there is a way back to it.", figures={})

    def _announce(self, entry: HistoryEntry, principal: Principal, action: str) -> None:
        facts = {
            "name": entry.name,
            "alias": entry.alias,
            "before": entry.before,
            "after": entry.after,
            "why": entry.why,
            "by": entry.by,
            "at": entry.at.isoformat(),
        }
        _log.info(action, **facts)
        self._tell(principal, action, entry.name, facts, event=facts)

    def _tell(
        self,
        principal: Principal,
        action: str,
        target: str,
        details: Mapping[str, object],
        event: Mapping[str, object] | None = None,
    ) -> None:
        """Write the audit entry and the event. The change is made: what fails here is only logged."""
        if self._database is None or self._audit is None:
            return
        try:
            with self._database.transaction() as tx:
                if event is not None:
                    emit(tx, PROMOTED_EVENT, dict(event), now=self._clock())
                self._audit.record(tx, principal, action, target=target, details=details)
        except DatabaseUnavailable as error:
            _log.error("registry.change_not_announced", action=action, target=target, reason=str(error))


def figures_of(bundle: Bundle) -> dict[str, float]:
    """The main measurements of a bundle's evaluation, as far as it has one."""
    if bundle.evaluation is None:
        return {}
    part = bundle.evaluation.headline
    return {"samples": float(part.samples), "accuracy": part.accuracy, "macro_f1": part.macro_f1, "ece": part.ece}
