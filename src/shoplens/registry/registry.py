"""The port for registries: where bundles are published, which version is live, and since when and why."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.signing import Trust
from shoplens.registry.entities import Alias, Aliases, Figures, HistoryEntry, HistoryPage, RegisteredVersion


class Registry(Protocol):
    """Published bundles by name. Thread-safe; all methods block.

    Every method raises Unavailable (StorageUnavailable, RegistryUnavailable) if the registry cannot be reached.
    """

    place: str
    """Its address, for messages."""

    def publish(self, bundle: Bundle, *, by: str, why: str, figures: Figures) -> RegisteredVersion:
        """Publish `bundle` completely or not at all; no alias changes. Publishing it again changes nothing.

        Raises BundleInvalid if another bundle has its name and version, BundleTampered if a file changes meanwhile,
        RequestInvalid for a change without a reason.
        """
        ...

    def names(self) -> list[str]:
        """The names of all models that have a version, in alphabetical order."""
        ...

    def versions(self, name: str) -> list[RegisteredVersion]:
        """The published versions by rising number; empty for an unknown name."""
        ...

    def aliases(self, name: str, seen: Aliases | None = None) -> Aliases:
        """The present aliases; none for an unknown name.

        If the state is still that of `seen`, the answer is `seen` itself: the cheap question of one who polls.
        """
        ...

    def set_alias(
        self, name: str, alias: Alias, version: str | None, *, by: str, why: str, figures: Figures, expected: Aliases
    ) -> HistoryEntry:
        """Give `alias` to `version` (None: to no version) and record it, if the aliases are still `expected`.

        A challenger that becomes champion is no longer the challenger. Raises AliasChanged if somebody else was faster,
        AliasUnchanged if there is nothing to change, ModelNotFound if the version is not published, RequestInvalid for
        a change without a reason.
        """
        ...

    def history(self, name: str) -> list[HistoryEntry]:
        """Every change of an alias, from old to new. Raises RegistryDamaged if a part is missing."""
        ...

    def changes(self, name: str, *, before: str | None = None, limit: int) -> HistoryPage:
        """The newest `limit` changes, or those before the cursor `before`; empty for an unknown name.

        A change has two entries if a challenger became champion. Raises RegistryDamaged if one of them is missing,
        RequestInvalid for what is no cursor.
        """
        ...

    def fetch(self, ref: ModelRef, models_dir: Path, trust: Trust) -> Bundle:
        """Download a version, verify it and its signature, and install it as `<models_dir>/<name>/<version>/`.

        Raises ModelNotFound, BundleError if the verification fails, Misconfigured if `models_dir` cannot be written.
        """
        ...
