"""Runs over the catalogue as the API, the pages and the commands ask for them: request, follow, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from shoplens.batch.process import RunLauncher
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.catalogue.runs.runner import add_run
from shoplens.db import Database
from shoplens.errors import RecordRefused, RunInProgress


class RunService:
    """The runs of all channels. Methods block, may be called from many threads, and raise DatabaseUnavailable."""

    def __init__(
        self, database: Database, launcher: RunLauncher[CatalogueRun], *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._launcher = launcher
        self._clock = clock

    def start(self, channel: str, *, again: bool, requested_by: str) -> CatalogueRun:
        """A new run in a process of its own, or the unfinished one if its process had ended.

        With `again` also for products that have a suggestion and that nobody decided. Raises RunInProgress and
        NothingWaiting.
        """
        try:
            with self._database.transaction() as tx:
                if CatalogueRunRepository(tx).active(channel) is not None:
                    raise RunInProgress("It may have been interrupted.")
                run = add_run(tx, channel, again=again, requested_by=requested_by, now=self._clock())
        except (RunInProgress, RecordRefused) as error:
            resumed = self._launcher.resume(channel)
            if resumed is None:
                raise RunInProgress(f"The channel {channel} has an active run already.") from error
            return resumed
        self._launcher.start(run.id)
        return run

    def get(self, run_id: str) -> CatalogueRun:
        """Raises RunNotFound."""
        with self._database.reading() as tx:
            return CatalogueRunRepository(tx).get(run_id)

    def newest(self, channel: str, *, limit: int = 20) -> list[CatalogueRun]:
        """The newest runs of a channel first."""
        with self._database.reading() as tx:
            return CatalogueRunRepository(tx).newest(channel, limit=limit)

    def cancel(self, run_id: str, *, by: str) -> CatalogueRun:
        """Leave out the products that it has not looked at; its process ends with its next commit. Raises RunNotFound.

        The suggestions that it made stay. A run that has ended stays as it is.
        """
        with self._database.transaction() as tx:
            CatalogueRunRepository(tx).cancel(run_id, by=by, now=self._clock())
            return CatalogueRunRepository(tx).get(run_id)

    def trouble(self, run: CatalogueRun) -> str | None:
        """Why the last process of an unfinished run failed; None if none did."""
        return None if run.finished_at is not None else run.failure or self._launcher.trouble(run.id)

    def resume(self, channels: Iterable[str]) -> None:
        """Go on with unfinished runs whose process has ended."""
        for channel in channels:
            self._launcher.resume(channel, try_unknown=True)

    def close(self) -> None:
        """Start no more processes; runs continue."""
        self._launcher.close()
