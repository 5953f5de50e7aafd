"""Back up and restore what the settings point to: a folder with `photos`, `models` and, from SQLite, `shoplens.db`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoplens.cli.backup_service import Copied, copy_blobs, copy_models
from shoplens.db.online_copy import copy_database, file_of, restore_database
from shoplens.errors import Misconfigured
from shoplens.settings import Settings
from shoplens.storage import Store, open_store

PHOTOS: Final = "photos"
MODELS: Final = "models"
ROWS: Final = "shoplens.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was copied. `row_bytes` is None where the rows are on a server, whose own tools copy them."""

    photos: Copied
    models: int
    row_bytes: int | None


def back_up(settings: Settings, folder: Path) -> Outcome:
    """Copy everything into `folder`, which may hold an earlier copy. Others may go on working.

    Raises StorageUnavailable, DatabaseUnavailable, BundleError and Misconfigured.
    """
    database = file_of(settings.effective_database_url)
    source, target = open_store(settings.effective_storage_url), _store_in(folder)
    photos = copy_blobs(source, target)
    models = copy_models(settings.effective_models_dir, folder / MODELS)
    row_bytes = None if database is None else copy_database(database, folder / ROWS)
    return Outcome(photos=photos + copy_blobs(source, target), models=models, row_bytes=row_bytes)


def restore(settings: Settings, folder: Path) -> Outcome:
    """Put everything back. The rows come last, so that none is there before its photo.

    Raises DatabaseUnavailable where there is a database already; StorageUnavailable, BundleError and Misconfigured.
    """
    if not (folder / PHOTOS).is_dir():
        raise Misconfigured(f"{folder} is no backup: there is no folder {PHOTOS} in it.")
    database = file_of(settings.effective_database_url)
    if database is not None and database.exists():
        restore_database(folder / ROWS, database)  # says why not
    photos = copy_blobs(_store_in(folder), open_store(settings.effective_storage_url))
    models = copy_models(folder / MODELS, settings.effective_models_dir)
    row_bytes = None if database is None else restore_database(folder / ROWS, database)
    return Outcome(photos=photos, models=models, row_bytes=row_bytes)


def _store_in(folder: Path) -> Store:
    return open_store((folder / PHOTOS).absolute().as_uri())
