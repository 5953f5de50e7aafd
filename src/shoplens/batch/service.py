"""The batch jobs of all channels, as the API, the pages and the commands need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from shoplens.accounts.entities import Permission
from shoplens.batch.browse import BrowseService
from shoplens.batch.entities import BatchRun
from shoplens.batch.export import ExportItems
from shoplens.batch.importer import Importer, ImportRunner
from shoplens.batch.looks import LookService
from shoplens.batch.process import RunLauncher, StartRun
from shoplens.batch.report import WriteReport
from shoplens.batch.review import ReviewService
from shoplens.batch.schedule import Plan
from shoplens.batch.status import OwnerState, owner_of
from shoplens.db import Database
from shoplens.errors import RequestInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The services on finished runs."""

    browse: BrowseService
    review: ReviewService
    looks: LookService
    export: ExportItems
    report: WriteReport


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChannel:
    """What is there once per channel with a batch side. `source` is where its photos arrive, for people to read.

    `photos_need` is the permission to see its photos: those of shoppers are for people who moderate them.
    """

    name: str
    source: str
    labels: tuple[str, ...]
    photos_need: Permission
    importer: Importer
    imports: ImportRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Results):
    """The batch jobs of all channels, as the web edge needs them.

    `ingest_answer_s` is how long a request waits for an import to end. `durable` is a database whose commits survive a
    power failure, as those of an import must.
    """

    channels: Mapping[str, BatchChannel]
    start: StartRun
    cancel: Callable[[str, str], BatchRun]
    """End a run: its id, and the name of who ends it. Raises RunNotFound."""
    launcher: RunLauncher[BatchRun]
    plan: Callable[[str], Plan | None]
    """When the next run of a channel is planned; None where nothing is."""
    takeover_s: float
    ingest_answer_s: float = 20.0
    durable: Database

    def channel(self, name: str | None = None) -> BatchChannel:
        """The channel of this name; without a name the only one there is. Raises RequestInvalid."""
        if name is None and len(self.channels) == 1:
            return next(iter(self.channels.values()))
        if name is not None and name in self.channels:
            return self.channels[name]
        known = ", ".join(sorted(self.channels)) or "none"
        if name is None:
            raise RequestInvalid(f"Name a channel. Channels with a batch side: {known}.")
        raise RequestInvalid(f"The channel {name[:80]!r} has no batch side. Channels with a batch side: {known}.")

    def photos_need(self, channel: str) -> Permission:
        """The permission to see photos of a channel. One that is no longer set up may have had shoppers' photos."""
        found = self.channels.get(channel)
        return Permission.MODERATION_REVIEW if found is None else found.photos_need

    def owner_of(self, run: BatchRun) -> OwnerState:
        """The state of the process that works on `run`."""
        return owner_of(run, now=datetime.now(UTC), takeover_s=self.takeover_s)

    def resume(self) -> None:
        """Continue the active run of every channel whose process has ended. Raises DatabaseUnavailable."""
        for name in self.channels:
            self.launcher.resume(name, try_unknown=True)

    def close(self) -> None:
        """Start no more processes, and end a running import after its current batch; runs continue. Blocks."""
        self.launcher.close()
        for each in self.channels.values():
            each.imports.close()
        self.durable.close()
