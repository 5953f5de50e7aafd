"""Begin a retraining: a row that allows one of a model at a time, and a process that works on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from shoplens.batch.entities import RunOwner
from shoplens.batch.process import RunLauncher
from shoplens.bundles.bundle import Bundle
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import Misconfigured, RecordRefused, ShoplensError
from shoplens.registry.registry import Registry
from shoplens.retraining.entities import RetrainingRules, RetrainingRun, RetrainingState, Stage
from shoplens.retraining.errors import RetrainingNotPossible, RetrainingRunning
from shoplens.retraining.repository import RetrainingRepository
from shoplens.retraining.service import is_interrupted
from shoplens.telemetry.logs import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRetrainings:
    """Adds the rows of new retrainings. `find` gives the bundle that answers now; None where there is none yet."""

    database: Database
    registry: Registry
    find: Callable[[str], Bundle | None]
    clock: Callable[[], datetime]

    def add(self, rules: RetrainingRules, *, by: str, dry_run: bool, owner: RunOwner | None) -> RetrainingRun:
        """A new run of `owner`, or one that waits for its process.

        Raises RecordRefused where the model has an active retraining already.
        """
        now, champion = self.clock(), self.find(rules.model)
        with self.database.reading() as tx:
            made = RetrainingRepository(tx).candidates(rules.model)
        known = [*made, *self.published(rules.model)]
        run = RetrainingRun(
            id=new_id(now),
            created_at=now,
            channel=rules.channel,
            model=rules.model,
            requested_by=by,
            recipe=rules.recipe,
            base=rules.base,
            test=rules.test,
            promote=rules.promote,
            dry_run=dry_run,
            state=RetrainingState.RUNNING,
            stage=Stage.LABELS,
            candidate=next_version([*known, champion.ref.version] if champion else known),
            champion=str(champion.ref) if champion else None,
            owner=owner.id if owner else None,
            host=owner.host if owner else None,
            pid=owner.pid if owner else None,
            process=owner.process if owner else None,
            heartbeat_at=now if owner else None,
        )
        with self.database.transaction() as tx:
            RetrainingRepository(tx).add(run)
        _log.info("retraining.started", run=run.id, channel=run.channel, model=run.ref, recipe=run.recipe)
        return run

    def published(self, model: str) -> list[str]:
        """The versions of a model in the registry."""
        return [version.ref.version for version in self.registry.versions(model)]


class RetrainingStarter:
    """Starts retrainings in processes of their own. Methods block, and may be called from many threads.

    `rules_of` gives the rules of a channel, and raises Misconfigured where its model cannot be retrained. `require`
    raises ExtraMissing if what a recipe needs is not installed.
    """

    def __init__(
        self,
        new: NewRetrainings,
        launcher: RunLauncher[RetrainingRun],
        *,
        rules_of: Callable[[str], RetrainingRules],
        require: Callable[[str], None],
    ) -> None:
        self._new = new
        self._launcher = launcher
        self._rules_of = rules_of
        self._require = require

    def possible(self, channels: Iterable[str]) -> list[str]:
        """Those of `channels` whose model can be retrained with these settings and on this machine."""
        found = []
        for channel in channels:
            with suppress(ShoplensError):
                self._require(self._rules_of(channel).recipe)
                found.append(channel)
        return found

    def start(self, channel: str, *, by: str, dry_run: bool = False) -> RetrainingRun:
        """A new retraining, or the one with the same options whose process had ended, which goes on.

        Raises ChannelNotFound, RetrainingNotPossible, and RetrainingRunning while there is another one of the model.
        """
        try:
            rules = self._rules_of(channel)
            self._require(rules.recipe)
        except Misconfigured as error:
            raise RetrainingNotPossible(str(error)) from error
        try:
            run = self._new.add(rules, by=by, dry_run=dry_run, owner=None)
        except RecordRefused as error:
            resumed = self._resumed(rules.model, channel, dry_run=dry_run)
            if resumed is None:
                raise RetrainingRunning(f"Another process retrains the model {rules.model}.") from error
            return resumed
        self._launcher.start(run.id)
        return run

    def _resumed(self, model: str, channel: str, *, dry_run: bool) -> RetrainingRun | None:
        with self._new.database.reading() as tx:
            run = RetrainingRepository(tx).active(model)
        if run is None:
            return None
        if (run.channel, run.dry_run) != (channel, dry_run):
            raise RetrainingRunning(
                f"The retraining {run.id} of the model {model} is not over, and has other options. Continue or cancel "
                "it first."
            )
        return self._launcher.resume(model, try_unknown=is_interrupted(run, self._new.clock()))

    def resume(self, channels: Iterable[str]) -> None:
        """Go on with retrainings whose process has ended. Raises DatabaseUnavailable."""
        for channel in self.possible(channels):
            self._launcher.resume(self._rules_of(channel).model, try_unknown=True)

    def trouble(self, run: RetrainingRun) -> str | None:
        """Why the last process of an active retraining failed; None if none did."""
        return self._launcher.trouble(run.id) if run.active else None

    def close(self) -> None:
        """Start no more processes; those that run continue."""
        self._launcher.close()


def next_version(known: Sequence[str]) -> str:
    """A version after all of `known`: the second number of the greatest, plus one. `1.0.0` for the first one."""

    def numbers(version: str) -> tuple[int, ...]:
        parts = version.split(".")
        return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()

    greatest = max(map(numbers, known), default=())
    if not greatest:
        return "1.0.0"
    major, minor = greatest[0], greatest[1] if len(greatest) > 1 else 0
    return f"{major}.{minor + 1}.0"
