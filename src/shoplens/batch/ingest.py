"""Bring new photos of returned goods in: from a drop folder or an object store, or one that was uploaded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from shoplens.batch.arrivals import Source
from shoplens.batch.entities import BatchItem, References
from shoplens.batch.intake import Claims, Content, Intake
from shoplens.batch.names import readable
from shoplens.batch.references import from_name, joined
from shoplens.batch.tally import IngestSummary
from shoplens.batch.visit import OnProgress, Visit, VisitRules
from shoplens.db import Database
from shoplens.errors import RecordRefused
from shoplens.storage import Store

_NAMELESS: Final = "photo"
_log: Final = structlog.get_logger(__name__)


def _say_nothing(_: IngestSummary) -> None:
    """Nobody wants to know how far it is."""


class IngestPhotos:
    """Can be run at any time, by several processes at once, and killed at any moment: no photo is lost or doubled.

    `source` is the URL of the usual place, and `open_source` makes a source of a URL.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        *,
        clock: Callable[[], datetime],
        source: str,
        open_source: Callable[[str], Source],
        rules: VisitRules,
    ) -> None:
        self._database = database
        self._clock = clock
        self._source = source
        self._open_source = open_source
        self._rules = rules
        self._intake = Intake(
            database, store, channel=rules.channel, clock=clock, max_image_bytes=rules.max_image_bytes
        )

    def __call__(
        self, source: str | None = None, *, keep_source: bool = False, on_progress: OnProgress = _say_nothing
    ) -> IngestSummary:
        """Take what is ready, and remove it from the source unless `keep_source`. Tells its progress at each commit.

        Raises SourceUnavailable, StorageUnavailable and DatabaseUnavailable; what was committed until then stays.
        """
        place = self._open_source(source or self._source)
        visit = Visit(
            place, self._intake, self._database, self._rules, keep_source=keep_source, on_progress=on_progress
        )
        summary = visit()
        _log.info("returns.ingested", **summary.as_json())
        return summary

    def take_one(self, data: bytes, *, name: str, references: References | None = None) -> BatchItem:
        """Take one photo that was sent. `references` come before what its name says.

        The item as it is stored: a duplicate where another item has this photo, and the same item again where it came
        under this name before. Raises StorageUnavailable and DatabaseUnavailable.
        """
        called = readable(name.strip()) or _NAMELESS
        content = Content(
            name=called,
            byte_count=len(data),
            changed_ms=int(self._clock().timestamp() * 1000),
            pieces=lambda: (data,),
            references=joined(references or References(), from_name(self._rules.name_pattern, called)),
        )
        prepared = self._intake.prepare(content, Claims())
        verdict = self._intake.commit([prepared])[prepared.item.id]
        with self._database.read_uow() as work:
            item = work.batch_items.arrival(prepared.item.channel, prepared.item.sha256, called)
        if item is None:
            raise RecordRefused(f"The photo {called} was not taken ({verdict.value}). Send it again.")
        _log.info("returns.photo_taken", item=item.id, name=called, verdict=verdict.value)
        return item
