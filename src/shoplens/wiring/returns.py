"""Build the parts that work on returned goods, each by a function of its own that is given what it shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import shoplens
from shoplens.db import Database
from shoplens.domain.record import PredictionRecord
from shoplens.domain.returns import ReturnRun
from shoplens.services.photos import PhotoShelf
from shoplens.services.returns.bring_in import BringIn, Recorded
from shoplens.services.returns.browse import BrowseReturns
from shoplens.services.returns.correct import CorrectReturns
from shoplens.services.returns.export import ExportItems
from shoplens.services.returns.ingest import IngestReturns
from shoplens.services.returns.launch import NightLauncher, NightProcess, StartRun
from shoplens.services.returns.report import WriteReport
from shoplens.services.returns.runs import RequestRun
from shoplens.services.returns.standing import OwnerState, owner_of
from shoplens.settings import Settings
from shoplens.storage import Store
from shoplens.telemetry.trigger_log import TriggerLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a clerk needs in the morning."""

    browse: BrowseReturns
    correct: CorrectReturns
    export: ExportItems
    report: WriteReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns:
    """All that the web edge does with returned goods. `source` is where new photos are looked for, for people to read.

    `labels` are what the model of the channel can answer; `ingest_answer_s` is how long a request waits for an ingest
    to end. `durable` is a database whose commits survive a loss of power, as those of an ingest must.
    """

    ingest: IngestReturns
    bring_in: BringIn
    start: StartRun
    launcher: NightLauncher
    browse: BrowseReturns
    correct: CorrectReturns
    export: ExportItems
    report: WriteReport
    source: str
    labels: tuple[str, ...]
    takeover_s: float
    ingest_answer_s: float = 20.0
    durable: Database

    def owner_of(self, run: ReturnRun) -> OwnerState:
        """What can be told of the process that works on `run`."""
        return owner_of(run, now=_utc_now(), takeover_s=self.takeover_s)

    def close(self) -> None:
        """Start nothing any more, and end an ingest after its present batch; nights that run go on. Blocks."""
        self.launcher.close()
        self.bring_in.close()
        self.durable.close()


def build_returns(
    settings: Settings, *, database: Database, store: Store, shelf: PhotoShelf, labels: tuple[str, ...]
) -> Returns:
    """`shelf` is over `store`; `labels` are those of the model that the channel of returns is served by.

    Raises Misconfigured and DatabaseUnavailable.
    """
    from shoplens.wiring.ingest import build_ingest  # it is built on the platform's parts, which this is one of
    from shoplens.wiring.platform import build_database

    _make_default_source(settings)
    durable = build_database(settings, durable=True)
    ingest = build_ingest(settings, database=durable, store=store)
    results = build_results(database=database, store=store, shelf=shelf, labels=labels)
    night = NightProcess(environment=settings.environment(), logs=settings.effective_log_dir)
    launcher = NightLauncher(database, night)
    return Returns(
        ingest=ingest,
        bring_in=BringIn(ingest, clock=_utc_now, recorded=_recorded_ingest(settings)),
        durable=durable,
        start=StartRun(RequestRun(database, _utc_now), launcher),
        launcher=launcher,
        browse=results.browse,
        correct=results.correct,
        export=results.export,
        report=results.report,
        source=settings.effective_returns_source,
        labels=labels,
        takeover_s=settings.returns.takeover_s,
    )


def _recorded_ingest(settings: Settings) -> Recorded:
    log = TriggerLog(settings.effective_log_dir, file_bytes=settings.log_file_bytes, kept=settings.log_files)
    arguments = {"source": settings.effective_returns_source, "keep_source": False}
    return lambda: log.recorded(job="ingest", by="http", arguments=arguments)


def _make_default_source(settings: Settings) -> None:
    """The drop folder that nobody chose is there to be found; one that somebody chose may be a missing mount."""
    if settings.returns.source is None:
        Path(settings.effective_returns_source).mkdir(parents=True, exist_ok=True)


def build_results(*, database: Database, store: Store, shelf: PhotoShelf, labels: Sequence[str] = ()) -> Results:
    """`shelf` is over `store`; `labels` are those of the model that the channel of returns is served by."""
    return Results(
        browse=BrowseReturns(database, shelf, clock=_utc_now),
        correct=CorrectReturns(database, store, labels=labels, clock=_utc_now),
        export=ExportItems(database),
        report=WriteReport(database, store, shelf, clock=_utc_now, version=shoplens.__version__),
    )


class MovedPhotos:
    """Where the photo of a record lies while it is being moved; for `PhotoShelf(elsewhere=…)`. Blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self, record: PredictionRecord) -> str | None:
        """The other key; None for photos that are not moved."""
        with self._database.reading() as work:
            item = work.return_table.by_prediction(record.id)
        if item is None:
            return None
        return item.key if item.key != record.image_key else item.target_key


def _utc_now() -> datetime:
    return datetime.now(UTC)
