"""Open what a command needs to look at results, and close it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shoplens.services.photos import PhotoShelf
from shoplens.settings import Settings
from shoplens.storage import open_store
from shoplens.wiring.local import build_isolation, build_limits
from shoplens.wiring.platform import build_database
from shoplens.wiring.returns import MovedPhotos, Results, build_results


@contextmanager
def open_results(settings: Settings) -> Iterator[Results]:
    """Results over the database and the store of the settings. No model is loaded, so none says what labels there are.

    Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    database = build_database(settings)
    try:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        shelf = PhotoShelf(
            store,
            limits=build_limits(settings),
            isolation=build_isolation(settings),
            elsewhere=MovedPhotos(database),
        )
        yield build_results(database=database, store=store, shelf=shelf)
    finally:
        database.close()
