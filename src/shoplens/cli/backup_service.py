"""Copy what a shop cannot make again, while it goes on working: photos, models, rows; and put it back.

Photos are copied before the rows and once more after them, and nothing is removed from a copy. So what a row of the
copy names is in it: a photo that came since the first round is found by the second, one that was moved away before the
second lay where the row says during the first. Only one that both came and was moved on between the two is missed, as
when a night follows upon an ingest at once; whoever plans backups chooses another hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from shoplens.bundles.store import install_bundle, installed_bundles
from shoplens.errors import BlobNotFound
from shoplens.storage import Store

_THREADS: Final = 8
_PAGE: Final = 512
_PROBES: Final = "health/"
_REWRITTEN: Final = ".html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied now, and how much of it there was already."""

    files: int = 0
    byte_count: int = 0
    known: int = 0

    def __add__(self, other: Copied) -> Copied:
        """Of two rounds: what the second one finds to be there is what the first one brought."""
        files, byte_count = self.files + other.files, self.byte_count + other.byte_count
        return Copied(files=files, byte_count=byte_count, known=self.known)


def copy_blobs(source: Store, target: Store) -> Copied:
    """Copy what `target` lacks; nothing is removed. Raises StorageUnavailable.

    Under one key there is one content, reports excepted, which are written anew.
    """
    files = byte_count = known = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="backup") as threads:
        for page in _pages(source):
            for size in threads.map(lambda key: _copy(key, source, target), page):
                files, byte_count, known = files + (size > 0), byte_count + max(0, size), known + (size == 0)
    return Copied(files=files, byte_count=byte_count, known=known)


def copy_models(source: Path, target: Path) -> int:
    """Copy every installed model, verified; how many there are. Raises BundleError."""
    return len([install_bundle(bundle.root, target) for bundle in installed_bundles(source)])


def _pages(source: Store) -> Iterator[list[str]]:
    keys = (key for key in source.list("") if not key.startswith(_PROBES))
    while page := list(islice(keys, _PAGE)):
        yield page


def _copy(key: str, source: Store, target: Store) -> int:
    """How many bytes were copied; 0 for what was there, -1 for what has been moved away since it was listed."""
    known = target.exists(key)
    if known and not key.endswith(_REWRITTEN):
        return 0
    try:
        data = source.get(key)
    except BlobNotFound:
        return -1
    if known:
        if target.get(key) == data:
            return 0
        target.delete(key)
    target.put(key, data, durable=True)
    return len(data)
