"""Back up and restore what a shop cannot make again: photos, models and, from SQLite, the rows.

A backup is a folder with `photos`, `models` and `shoplens.db`. Photos are copied before the rows and once more after
them, and nothing is removed from a copy, so every photo that a row of the copy names is in it: the second round finds
photos that came since the first, and a photo that was moved before the second round lay where its row says during the
first. Only a photo that both came and was moved between the two rounds is missed, as in a run right after an import: do
not schedule backups at that time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from shoplens.bundles.store import install_bundle, installed_bundles
from shoplens.db.online_copy import copy_database, file_of, restore_database
from shoplens.errors import BlobNotFound, Misconfigured
from shoplens.settings import Settings
from shoplens.storage import Store, open_store

PHOTOS: Final = "photos"
MODELS: Final = "models"
ROWS: Final = "shoplens.db"
_THREADS: Final = 8
_PAGE: Final = 512
_PROBES: Final = "health/"
_REWRITTEN: Final = ".html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """Objects that were copied, and how many were there already (`known`)."""

    files: int = 0
    byte_count: int = 0
    known: int = 0

    def __add__(self, other: Copied) -> Copied:
        """The sum of two rounds; what the second one finds there was copied by the first."""
        files, byte_count = self.files + other.files, self.byte_count + other.byte_count
        return Copied(files=files, byte_count=byte_count, known=self.known)


def copy_blobs(source: Store, target: Store) -> Copied:
    """Copy what `target` lacks; nothing is removed. Raises StorageUnavailable.

    An object never changes under its key, except for reports.
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
    """How many bytes were copied; 0 for an object that was there, -1 for one that was moved since it was listed."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was copied. `row_bytes` is None for a database on a server, which has tools of its own."""

    photos: Copied
    models: int
    row_bytes: int | None


def back_up(settings: Settings, folder: Path) -> Outcome:
    """Copy everything into `folder`, which may hold an earlier copy. The server may keep running.

    Raises StorageUnavailable, DatabaseUnavailable, BundleError and Misconfigured.
    """
    database = file_of(settings.effective_database_url)
    source, target = open_store(settings.effective_storage_url), _store_in(folder)
    photos = copy_blobs(source, target)
    models = copy_models(settings.effective_models_dir, folder / MODELS)
    row_bytes = None if database is None else copy_database(database, folder / ROWS)
    return Outcome(photos=photos + copy_blobs(source, target), models=models, row_bytes=row_bytes)


def restore(settings: Settings, folder: Path) -> Outcome:
    """Put everything back. The rows come last, so that no row is there before its photo.

    Raises DatabaseUnavailable where there is a database already; StorageUnavailable, BundleError and Misconfigured.
    """
    if not (folder / PHOTOS).is_dir():
        raise Misconfigured(f"{folder} is no backup: there is no folder {PHOTOS} in it.")
    database = file_of(settings.effective_database_url)
    if database is not None and database.exists():
        restore_database(folder / ROWS, database)  # raises with the reason
    photos = copy_blobs(_store_in(folder), open_store(settings.effective_storage_url))
    models = copy_models(folder / MODELS, settings.effective_models_dir)
    row_bytes = None if database is None else restore_database(folder / ROWS, database)
    return Outcome(photos=photos, models=models, row_bytes=row_bytes)


def _store_in(folder: Path) -> Store:
    return open_store((folder / PHOTOS).absolute().as_uri())
