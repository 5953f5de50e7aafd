"""Build what brings photos of returned goods in, from the settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.services.returns.arrivals import Source
from shoplens.services.returns.ingest import IngestReturns
from shoplens.services.returns.local_source import LocalSource
from shoplens.services.returns.object_source import ObjectSource
from shoplens.services.returns.references import compile_pattern
from shoplens.services.returns.visit import VisitRules
from shoplens.settings import Settings
from shoplens.storage import Store, open_prefix, open_store
from shoplens.wiring.platform import build_database, utc_now

_THREADS: Final = 8
"""They wait for the disk or the network more than they compute; each may hold a photo."""


@contextmanager
def open_ingest(settings: Settings) -> Iterator[IngestReturns]:
    """Over a database and a store of its own, for a command.

    Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    database = build_database(settings, durable=True)
    try:
        yield build_ingest(
            settings, database=database, store=open_store(settings.effective_storage_url, setting="storage_url")
        )
    finally:
        database.close()


def build_ingest(settings: Settings, *, database: Database, store: Store) -> IngestReturns:
    """`database` must be durable, since photos are removed from where they came from. Raises Misconfigured."""
    return IngestReturns(
        database,
        store,
        clock=utc_now,
        source=settings.effective_returns_source,
        open_source=lambda url: open_source(url, settings),
        rules=VisitRules(
            name_pattern=compile_pattern(settings.returns.name_pattern),
            batch=settings.returns.batch,
            threads=_THREADS,
            max_image_bytes=settings.max_image_bytes,
        ),
    )


def open_source(url: str, settings: Settings) -> Source:
    """A folder by path or `file://` URL, or an object store's prefix. Raises Misconfigured and SourceUnavailable."""
    scheme = urlsplit(url).scheme
    if scheme == "file" or len(scheme) <= 1:  # one letter is a Windows drive
        folder = local_folder(url)
        _refuse_own_data(folder, settings)
        return LocalSource(folder, quiet_s=settings.returns.quiet_s, now=time.time)
    return ObjectSource(open_prefix(url))


def local_folder(url: str) -> Path:
    """The folder that a path or a `file://` URL names. Raises SourceUnavailable for one on another machine."""
    if not url.startswith("file:"):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise SourceUnavailable(f"{url} names another machine; a folder of this one is written file:///path.")
    return Path(url2pathname(parts.path))


def _refuse_own_data(folder: Path, settings: Settings) -> None:
    """Or else the database would be brought in as a photo, and removed."""
    source, data = folder.resolve(), settings.data_dir.resolve()
    storage = settings.effective_storage_url
    blobs = local_folder(storage).resolve() if urlsplit(storage).scheme in ("", "file") else data / "blobs"
    if any(own.is_relative_to(source) for own in (data, blobs)) or source.is_relative_to(blobs):
        raise SourceUnavailable(f"{folder} holds the data of Shoplens itself. Choose a folder for new photos alone.")
