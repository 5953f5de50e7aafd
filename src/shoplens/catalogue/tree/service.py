"""The trees of a channel: which one is live, its versions, and a new one with what it changes.

Before any import the tree is version 0: that of the built-in model where it has one, else the model's own labels,
each of which is a path.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.catalogue.entities import TreeVersion
from shoplens.catalogue.errors import TreeChanged, TreeInvalid, TreeNotFound
from shoplens.catalogue.tree.categories import Tree
from shoplens.catalogue.tree.repository import TreeRepository
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RecordRefused

_FRESH_S: Final = 2.0
"""For how long a process goes on with the tree that it knows, where another one may have imported a new one."""
_SHOWN: Final = 50
_MOST_KEPT: Final = 200_000
"""Categories of older versions that a process keeps in memory, all versions together."""
_MOST_SEARCHED: Final = 20
"""How many older versions are searched for labels that the live tree lacks."""
_MOST_LABELS: Final = 100_000
_MOST_VERSIONS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChange:
    """What a new tree changes. `moved` are ids whose path is another one; `carried` counts products that go with
    their category to its successor, `uncertain` those whose category has none: people decide them again.
    """

    version: int
    categories: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]
    carried: int
    uncertain: int
    saved: bool

    @property
    def is_empty(self) -> bool:
        """Whether the live tree has the same ids and paths."""
        return not (self.added or self.removed or self.moved)


class TreeService:
    """The trees of one channel. Thread-safe. Every method raises DatabaseUnavailable."""

    def __init__(
        self,
        channel: str,
        database: Database,
        *,
        first: Callable[[], Tree],
        audit: AuditLog,
        clock: Callable[[], datetime],
    ) -> None:
        self.channel = channel
        self._database = database
        self._first = first
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._live: Tree | None = None
        self._looked_at = float("-inf")
        self._older: dict[int, Tree] = {}
        self._mappings: dict[int, Mapping[str, str | None]] = {}
        self._labels: tuple[int, dict[tuple[str, ...], str | None]] | None = None

    def live(self) -> Tree:
        """The tree that suggestions use now; at most two seconds older than the newest import of any process."""
        with self._lock:
            if self._live is None or time.monotonic() - self._looked_at > _FRESH_S:
                with self._database.reading() as tx:
                    repository = TreeRepository(tx)
                    newest = repository.newest_version(self.channel)
                    if self._live is None or self._live.version != newest:
                        self._live = repository.tree(self.channel, newest) or self._first()
                self._looked_at = time.monotonic()
            return self._live

    def get(self, version: int) -> Tree:
        """One version; 0 is what the model brought. Raises TreeNotFound."""
        with self._lock:
            if self._live is not None and self._live.version == version:
                return self._live
            if version in self._older:
                self._older[version] = self._older.pop(version)  # the last one is let go of last
                return self._older[version]
        if version > _MOST_VERSIONS:
            raise TreeNotFound(f"The channel {self.channel} has no tree of version {version}.")
        if version == 0:
            tree: Tree | None = self._first()
        else:
            with self._database.reading() as tx:
                tree = TreeRepository(tx).tree(self.channel, version)
        if tree is None:
            raise TreeNotFound(f"The channel {self.channel} has no tree of version {version}.")
        with self._lock:
            self._older[version] = tree
            while len(self._older) > 1 and sum(map(len, self._older.values())) > _MOST_KEPT:
                del self._older[next(iter(self._older))]
        return tree

    def versions(self) -> list[TreeVersion]:
        """All imports, newest first."""
        with self._database.reading() as tx:
            return TreeRepository(tx).versions(self.channel)

    def carried(self, category: str, version: int) -> str | None:
        """What a category of an older version is called in the live tree; None if it has no successor there."""
        live = self.live()
        found: str | None = category
        for step in range(version + 1, live.version + 1):
            mapping = self._mapping(step)
            found = mapping.get(found, found) if found is not None else None
        return found if found is not None and found in live else None

    def of_labels(self, paths: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
        """The live category of each of a model's labels, which are paths: in the live tree, or in the newest that has
        it. Labels without one are left out.

        Each older tree is read once at most, the newest `_MOST_SEARCHED` of them; what was found stays known until
        another tree is live.
        """
        live = self.live()
        with self._lock:
            if self._labels is None or self._labels[0] != live.version or len(self._labels[1]) > _MOST_LABELS:
                self._labels = live.version, {}
            known = self._labels[1]
        wanted = set(paths)
        missing = {path for path in wanted if path not in known}
        found: dict[tuple[str, ...], str | None] = {path: at for path in missing if (at := live.at(path)) is not None}
        for version in range(live.version - 1, max(-1, live.version - 1 - _MOST_SEARCHED), -1):
            missing -= found.keys()
            if not missing:
                break
            older = self.get(version)
            for path in missing:
                if (at := older.at(path)) is not None:
                    found[path] = self.carried(at, version)
        with self._lock:
            known.update({path: found.get(path) for path in wanted if path not in known})
            return {path: category for path in wanted if (category := known[path]) is not None}

    def compare(self, tree: Tree, mapping: Mapping[str, str | None]) -> TreeChange:
        """What importing `tree` would change. Raises TreeInvalid for a mapping to or from unknown categories."""
        with self._database.reading() as tx:
            repository = TreeRepository(tx)
            used = repository.categories_in_use(self.channel)
            newest = repository.newest_version(self.channel)
        return self._compare(self.get(newest), tree, mapping, used)

    def save(
        self, tree: Tree, mapping: Mapping[str, str | None], *, source: str, note: str, by: Principal
    ) -> TreeChange:
        """Make `tree` the live one and carry the decided products over, all in one transaction.

        Raises TreeInvalid as `compare`, TreeChanged where another import was quicker.
        """
        now = self._clock()
        try:
            with self._database.transaction() as tx:
                repository = TreeRepository(tx)
                newest = repository.newest_version(self.channel)
                used = repository.categories_in_use(self.channel)
                change = self._compare(self.get(newest), tree, mapping, used)
                new = TreeVersion(
                    id=new_id(now), channel=self.channel, version=newest + 1, created_at=now, created_by=by.name,
                    source=source, note=note, categories=len(tree), digest=tree.digest,
                )  # fmt: skip
                repository.add(new, tree, mapping)
                for before in used:
                    after = mapping.get(before, before if before in tree else None)
                    if after != before:
                        repository.move_products(self.channel, before, after)
                self._audit.record(
                    tx,
                    by,
                    "catalogue.tree_changed",
                    target=f"{self.channel}/{new.version}",
                    details={"categories": len(tree), "carried": change.carried, "uncertain": change.uncertain},
                )
        except RecordRefused as error:
            raise TreeChanged("Another import changed the tree at the same time. Look at it and try again.") from error
        with self._lock:
            self._looked_at = float("-inf")
        return replace(change, saved=True)

    def _mapping(self, version: int) -> Mapping[str, str | None]:
        with self._lock:
            found = self._mappings.get(version)
        if found is None:
            with self._database.reading() as tx:
                found = TreeRepository(tx).mapping(self.channel, version)
            with self._lock:
                self._mappings[version] = found
        return found

    def _compare(
        self, live: Tree, tree: Tree, mapping: Mapping[str, str | None], used: Mapping[str, int]
    ) -> TreeChange:
        if not len(tree):
            raise TreeInvalid("The tree has no categories.")
        for before, after in mapping.items():
            if before not in live:
                raise TreeInvalid(f"The mapping is about {before!r}, which the live tree does not have.")
            if after is not None and after not in tree:
                raise TreeInvalid(f"The mapping leads to {after!r}, which the new tree does not have.")
        successors = {each: mapping.get(each, each if each in tree else None) for each in used}
        return TreeChange(
            version=live.version + 1,
            categories=len(tree),
            added=tuple(each.id for each in tree if each.id not in live)[:_SHOWN],
            removed=tuple(each.id for each in live if each.id not in tree)[:_SHOWN],
            moved=tuple(each.id for each in tree if each.id in live and live[each.id].path != each.path)[:_SHOWN],
            carried=sum(used[each] for each, after in successors.items() if after not in (None, each)),
            uncertain=sum(used[each] for each, after in successors.items() if after is None),
            saved=False,
        )
