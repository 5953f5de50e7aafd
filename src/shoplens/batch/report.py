"""Write the morning report of a run: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from shoplens.batch.entities import BatchItem
from shoplens.batch.item_photos import ItemPhotos
from shoplens.batch.report_facts import gather
from shoplens.batch.report_page import fill
from shoplens.db import Database
from shoplens.errors import ImageNotKept, ItemNotFound, RequestInvalid, SampleError, StorageUnavailable
from shoplens.predictions.image_store import ImageSize, ImageStore
from shoplens.storage import Store

REPORTS: Final = "returns/reports"
CONSOLE: Final = "/console/batch/returns"
_PICTURE_SIDE: Final = 128
_TRIES: Final = 5
_log: Final = structlog.get_logger(__name__)


class WriteReport:
    """Blocks. `console` is where the console's pages about returns lie, as seen from the report.

    `version` is the program's, for the report to name.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        shelf: ImageStore,
        *,
        clock: Callable[[], datetime],
        console: str = CONSOLE,
        version: str = "",
    ) -> None:
        self._database = database
        self._store = store
        self._shelf = shelf
        self._clock = clock
        self._console = console
        self._version = version

    def render(self, run_id: str, *, console: str | None = None) -> str:
        """The page as it is now, with other addresses if `console` is given.

        Raises RunNotFound, and RequestInvalid for addresses that are none of a console.
        """
        if console is not None and not console.startswith(("http://", "https://", "/", ".")):
            raise RequestInvalid(
                f"{console!r} is no address of a console; it begins with http://, https://, / or a dot."
            )
        with self._database.read_uow() as work:
            facts = gather(work, work.batch_runs.get(run_id), now=self._clock())
        return fill(
            facts,
            _Small(self._database, self._shelf),
            console=(self._console if console is None else console).rstrip("/"),
            version=self._version,
        )

    def __call__(self, run_id: str) -> str:
        """Put the page into the store and return its key. Raises RunNotFound and StorageUnavailable."""
        key = f"{REPORTS}/{run_id}.html"
        for _ in range(_TRIES):
            seen = self._store.version(key)
            if self._store.put_if(key, self.render(run_id).encode(), seen=seen):
                break
            # Somebody wrote it meanwhile, perhaps from older facts: it is told anew from those of now.
        self._note(run_id, key)
        return key

    def _note(self, run_id: str, key: str) -> None:
        """An active run is noted by the night itself when it ends it."""
        with self._database.uow() as work:
            if not work.batch_runs.get(run_id).active:
                work.batch_runs.set_report(run_id, key)


class _Small:
    """Small pictures of items. A store that is away ends the pictures, never the report."""

    def __init__(self, database: Database, shelf: ImageStore) -> None:
        self._photos = ItemPhotos(database, shelf)
        self._shelf = shelf
        self._away = False

    def __call__(self, item: BatchItem) -> bytes | None:
        if self._away:
            return None
        try:
            return self._shelf.thumbnail(self._photos(item.id, ImageSize.THUMBNAIL).data, _PICTURE_SIDE)
        except (ImageNotKept, ItemNotFound, SampleError):
            return None
        except StorageUnavailable as error:
            _log.warning("report.pictures_left_out", reason=str(error))
            self._away = True
            return None
