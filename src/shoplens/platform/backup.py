"""Back up and restore what a shop cannot make again: photos, models and, from SQLite, the rows.

A backup is a folder with `photos`, `models`, `registry` and `shoplens.db`. Photos are copied before the rows and once
more after them, and nothing is removed from a copy, so every photo that a row of the copy names is in it: the second
round finds photos that came since the first, and a photo that was moved before the second round lay where its row says
during the first. Only a photo that both came and was moved between the two rounds is missed, as in a run right after an
import: do not schedule backups at that time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from shoplens.bundles.store import install_bundle, installed_bundles
from shoplens.db.database import describe, parse_url
from shoplens.db.sqlite import driver
from shoplens.errors import BlobNotFound, DatabaseUnavailable, Misconfigured
from shoplens.registry.object_registry import copy_registry
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from shoplens.storage.local import LocalStore

PHOTOS: Final = "photos"
MODELS: Final = "models"
REGISTRY: Final = "registry"
ROWS: Final = "shoplens.db"
_THREADS: Final = 8
_PAGE: Final = 512
_PROBES: Final = "health/"
_REWRITTEN: Final = ".html"
_BESIDE: Final = ("", "-wal", "-shm")


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
    _copy_registry(settings.data_dir / REGISTRY, folder / REGISTRY, replace_aliases=True)
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
    _copy_registry(folder / REGISTRY, settings.data_dir / REGISTRY, replace_aliases=False)
    row_bytes = None if database is None else restore_database(folder / ROWS, database)
    return Outcome(photos=photos, models=models, row_bytes=row_bytes)


def copy_blobs(source: Store, target: Store) -> Copied:
    """Copy what `target` lacks; nothing is removed. Raises StorageUnavailable.

    An object never changes under its key, except for reports.
    """
    keys = (key for key in source.list("") if not key.startswith(_PROBES))
    files = byte_count = known = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="backup") as threads:
        while page := list(islice(keys, _PAGE)):
            for size in threads.map(lambda key: _copy(key, source, target), page):
                files, byte_count, known = files + (size > 0), byte_count + max(0, size), known + (size == 0)
    return Copied(files=files, byte_count=byte_count, known=known)


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


def copy_models(source: Path, target: Path) -> int:
    """Copy every installed model, verified; how many there are. Raises BundleError."""
    return len([install_bundle(bundle.root, target) for bundle in installed_bundles(source)])


def _copy_registry(source: Path, target: Path, *, replace_aliases: bool) -> None:
    """The registry in the data folder, where there is one; one on a server or in a bucket has backups of its own."""
    if source.is_dir():
        copy_registry(LocalStore(source, create=False), LocalStore(target), replace_aliases=replace_aliases)


def _store_in(folder: Path) -> Store:
    return open_store((folder / PHOTOS).absolute().as_uri())


def file_of(url: str) -> Path | None:
    """The file of the database; None for a database on a server. Raises Misconfigured."""
    parsed = parse_url(url)
    return Path(describe(parsed)) if parsed.get_backend_name() == "sqlite" else None


def copy_database(database: Path, copy: Path) -> int:
    """Write the database as it is now to `copy`, completely or not at all, while others write; the size in bytes.

    Raises DatabaseUnavailable.
    """
    if not database.is_file():
        raise DatabaseUnavailable(f"There is no database at {database}.")
    with (
        _draft_of(copy, copies=database) as draft,
        closing(driver.connect(database)) as source,
        closing(driver.connect(draft)) as target,
    ):
        source.backup(target)  # in one step and one view, so no writer makes it start again
        target.execute("PRAGMA journal_mode = DELETE")
    return copy.stat().st_size


def restore_database(copy: Path, database: Path) -> int:
    """Restore a copy to a path without a database; the size in bytes. Raises DatabaseUnavailable, also for an existing
    database.
    """
    if not copy.is_file():
        raise DatabaseUnavailable(f"There is no copy of a database at {copy}.")
    # SQLite would apply the journal of a deleted database to the restored one.
    if there := [name for name in (f"{database}{end}" for end in _BESIDE) if Path(name).exists()]:
        raise DatabaseUnavailable(f"{there[0]} exists; nothing is written over it. Move it away first.")
    database.parent.mkdir(parents=True, exist_ok=True)
    with _draft_of(database, copies=database) as draft:
        shutil.copyfile(copy, draft)
        with closing(driver.connect(draft)) as opened:
            opened.execute("PRAGMA journal_mode = WAL")
    return database.stat().st_size


@contextmanager
def _draft_of(file: Path, *, copies: Path) -> Iterator[Path]:
    """A draft beside `file` that is synced and renamed to it at the end; it is deleted after an error.

    Raises DatabaseUnavailable, with the name of the database that it `copies`.
    """
    draft = file.with_name(f".{file.name}-{os.urandom(6).hex()}")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(file)
    except (driver.Error, OSError) as error:
        raise DatabaseUnavailable(f"The database {copies} could not be copied: {error}") from error
    finally:
        for end in _BESIDE:
            Path(f"{draft}{end}").unlink(missing_ok=True)
