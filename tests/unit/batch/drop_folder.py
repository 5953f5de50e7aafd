"""A drop folder with an importer over a real database and store, for tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shoplens.batch.entities import BatchItem, ItemFilter
from shoplens.batch.import_stats import ImportSummary
from shoplens.batch.importer import Importer, ImportRules
from shoplens.batch.repository import ItemRepository
from shoplens.batch.sidecars import compile_pattern
from shoplens.batch.sources import LocalSource, Source
from shoplens.db import Database
from shoplens.setting_groups import ChannelBatchSettings
from shoplens.storage import Store

QUIET_S = 10.0
LARGEST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Files are an hour old unless a test says otherwise."""

    folder: Path
    database: Database
    store: Store
    importer: Importer

    def ingest(self, source: str | None = None, **options: Any) -> ImportSummary:
        """Import from the folder, or from another source."""
        return self.importer.run(source, **options)

    def put(self, name: str | bytes, data: bytes | str, *, age_s: float = 3_600) -> Path:
        """A file, and the folders that its name needs."""
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        then = time.time() - age_s
        os.utime(path, (then, then))
        return path

    def left(self) -> list[str]:
        """The files in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir())

    def all_items(self) -> list[BatchItem]:
        """Every item, newest first."""
        with self.database.reading() as tx:
            return ItemRepository(tx).page(ItemFilter(), limit=100_000)

    def items(self) -> dict[str, BatchItem]:
        """The newest item of each source name."""
        return {item.source_name: item for item in reversed(self.all_items())}

    def stored(self) -> list[str]:
        """Everything in the store."""
        return sorted(self.store.list("returns"))

    def contents(self) -> dict[str, bytes]:
        """The stored content of the items, by source name."""
        return {name: self.store.get(item.key) for name, item in self.items().items() if item.key}

    def require_nothing_lost_or_doubled(self, sent: Iterable[bytes]) -> None:
        """Each content is in the store once, under the key of exactly one item."""
        keys = [item.key for item in self.all_items() if item.key]
        assert sorted(set(sent)) == sorted(self.store.get(key) for key in keys)
        assert self.stored() == sorted(keys)


def make_importer(
    database: Database,
    store: Store,
    source: str,
    *,
    open_source: Callable[[str], Source] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    **rules: Any,
) -> Importer:
    """With the usual settings, a limit of 100,000 bytes and batches of 8."""
    usual = {
        "channel": "returns",
        "name_pattern": compile_pattern(ChannelBatchSettings().name_pattern),
        "commit_items": 8,
        "threads": 3,
        "max_image_bytes": LARGEST,
    }
    return Importer(
        database,
        store,
        clock=clock,
        source=source,
        open_source=open_source or (lambda url: LocalSource(Path(url), quiet_s=QUIET_S, now=time.time)),
        rules=ImportRules(**{**usual, **rules}),
    )
