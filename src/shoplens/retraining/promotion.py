"""From a model that passed the gate to the champion: publication, approval, rejection, and the end of a shadow time.

An alias changes by one conditional write in the registry, which comes before the row of the run: after a crash between
the two, the same call finds the alias where it should be and writes the row. So there are never two champions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from shoplens.accounts.entities import Principal
from shoplens.bundles.bundle import Bundle
from shoplens.db import Database
from shoplens.registry.entities import CHALLENGER, CHAMPION, Aliases, RegisteredVersion
from shoplens.registry.errors import AliasChanged, AliasUnchanged
from shoplens.registry.publishing import RegistryService
from shoplens.registry.registry import Registry
from shoplens.retraining.entities import OPEN, RetrainingRules, RetrainingRun, RetrainingState, ShadowRules
from shoplens.retraining.errors import RetrainingNotOpen, RetrainingOutdated
from shoplens.retraining.repository import RetrainingRepository
from shoplens.retraining.shadow_time import ENOUGH, LABELS, ShadowTimes
from shoplens.telemetry.logs import get_logger

FIRST_MODEL: Final = "No model answers here yet, so it was compared with nothing: a person must say yes."
_log: Final = get_logger(__name__)
_AFTER: Final = {
    "at_once": RetrainingState.PROMOTED,
    "after_shadow": RetrainingState.SHADOWING,
    "after_approval": RetrainingState.WAITING,
}


class Promotion:
    """All methods block; they raise Unavailable where registry or database do not answer.

    `registry` is read; `publishing` changes it, with the audit log and the webhooks. `shadows` judges shadow times.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        publishing: RegistryService,
        shadows: ShadowTimes,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._shadows = shadows
        self._database = database
        self._registry = registry
        self._publishing = publishing
        self._clock = clock

    def publish(
        self, run: RetrainingRun, bundle: Bundle, figures: Mapping[str, float], *, by: Principal
    ) -> RetrainingRun:
        """Publish the bundle and give it its alias; the run as it is then, not yet written.

        A model that was compared with nothing waits for a person's yes, whatever the settings say. Raises
        RetrainingOutdated if another model became champion since the comparison.
        """
        why = f"{_said_by(run)} passed the gate on {run.test_samples:,} test samples (test set {run.test_set})."
        promote = run.promote
        if run.champion is None:
            promote, why = "after_approval", f"{why} {FIRST_MODEL}"
        aliases = self._require_same_champion(run)
        self._publishing.publish(bundle, by, why=why, figures=figures)
        alias = CHAMPION if promote == "at_once" else CHALLENGER
        try:
            with suppress(AliasUnchanged):  # an earlier attempt came so far
                self._publishing.set_alias(
                    run.model, alias, run.candidate, by, why=why, figures=figures, expected=aliases
                )
        except AliasChanged as error:
            raise RetrainingOutdated(str(error)) from error
        self._replace_earlier(run)
        return replace(run, state=_AFTER[promote])

    def approve(self, run_id: str, *, by: Principal, why: str) -> RetrainingRun:
        """Make the model of a run champion. The same call again changes nothing.

        Raises RetrainingNotFound, RetrainingNotOpen, RetrainingOutdated, and ModelNotFound if it is not published.
        """
        run = self._open(run_id, RetrainingState.PROMOTED)
        return run if run.state is RetrainingState.PROMOTED else self._promote(run, by=by, why=why)

    def _promote(
        self, run: RetrainingRun, *, by: Principal, why: str, figures: Mapping[str, float] | None = None
    ) -> RetrainingRun:
        """Without `figures` with those of the version. Raises RetrainingOutdated."""
        aliases = self._require_same_champion(run)
        try:
            with suppress(AliasUnchanged):
                self._publishing.set_alias(
                    run.model, CHAMPION, run.candidate, by, why=why, figures=figures, expected=aliases
                )
        except AliasChanged as error:
            # A person or another server may have promoted this very model at the same moment.
            if self._registry.aliases(run.model).champion != run.candidate:
                raise RetrainingOutdated(str(error)) from error
        return self._decided(run, RetrainingState.PROMOTED, by=by.name, why=why)

    def reject(self, run_id: str, *, by: Principal, why: str) -> RetrainingRun:
        """The model of a run does not become champion. Raises RetrainingNotFound, RetrainingNotOpen, AliasChanged."""
        run = self._open(run_id, RetrainingState.REJECTED)
        if run.state is RetrainingState.REJECTED:
            return run
        aliases = self._registry.aliases(run.model)
        if aliases.champion == run.candidate:
            raise RetrainingNotOpen(f"{run.ref} is champion already. Roll back in the registry.")
        if aliases.challenger == run.candidate:
            self._publishing.set_alias(run.model, CHALLENGER, None, by, why=why, expected=aliases)
        return self._decided(run, RetrainingState.REJECTED, by=by.name, why=why)

    def settle(self, rules: RetrainingRules, *, by: Principal) -> list[RetrainingRun]:
        """Decide on the challengers of a channel whose shadow time is over, by what they answered meanwhile; the runs
        that have another state now. The report says why, and the history of the registry.

        One that answered too little goes on. One that is worse by the labels of people is rejected, and so is one whose
        champion was replaced. One that fails or differs too often waits for a person's answer.
        """
        with self._database.reading() as tx:
            waiting = [
                run for run in RetrainingRepository(tx).open(rules.model) if run.state is RetrainingState.SHADOWING
            ]
        over = timedelta(hours=rules.shadow.hours)
        runs = [run for run in waiting if self._clock() - shadowing_since(run) >= over]
        settled = [self._settle(run, rules.shadow, by) for run in runs]
        return [run for run in settled if run.state is not RetrainingState.SHADOWING]

    def _settle(self, run: RetrainingRun, rules: ShadowRules, by: Principal) -> RetrainingRun:
        result = self._shadows.judge(run, rules)
        why = f"{rules.hours:g} h as challenger are over. {result.sentence}"
        _log.info("retraining.shadow_judged", run=run.id, model=run.ref, failed=sorted(result.failed), reason=why)
        if LABELS in result.failed:
            return self.reject(run.id, by=by, why=why)
        if ENOUGH in result.failed:
            return run
        if result.failed:
            return self._decided(run, RetrainingState.WAITING, by=None, why=why)
        try:
            return self._promote(run, by=by, why=why, figures=result.figures.figures)
        except RetrainingOutdated as error:
            return self._decided(run, RetrainingState.REJECTED, by=by.name, why=str(error))

    def _require_same_champion(self, run: RetrainingRun) -> Aliases:
        aliases = self._registry.aliases(run.model)
        compared = None if run.champion is None else run.champion.partition("@")[2]
        if aliases.champion not in (None, compared, run.candidate):
            raise RetrainingOutdated(
                f"{run.ref} was compared with {run.champion or 'no model'}, but now {run.model}@{aliases.champion} is "
                "champion. Retrain the channel again."
            )
        return aliases

    def _open(self, run_id: str, wanted: RetrainingState) -> RetrainingRun:
        with self._database.reading() as tx:
            run = RetrainingRepository(tx).get(run_id)
        if run.state not in (*OPEN, wanted):
            raise RetrainingNotOpen(f"The retraining {run.id} is {run.state.value}: its model waits for no answer.")
        return run

    def _decided(self, run: RetrainingRun, state: RetrainingState, *, by: str | None, why: str) -> RetrainingRun:
        """`by` is None where it still waits for a person: then only the reason for that is stored."""
        at = None if by is None else self._clock()
        changed = replace(run, state=state, decided_at=at, decided_by=by, decided_why=why)
        with self._database.transaction() as tx:
            runs = RetrainingRepository(tx)
            return changed if runs.decide(changed, seen=run) else runs.get(run.id)

    def _replace_earlier(self, run: RetrainingRun) -> None:
        """There is one challenger: runs that waited with an older one have their answer."""
        with self._database.reading() as tx:
            earlier = [each for each in RetrainingRepository(tx).open(run.model) if each.id != run.id]
        for each in earlier:
            self._decided(each, RetrainingState.REJECTED, by=run.requested_by, why=f"{run.ref} took its place.")


def shadowing_since(run: RetrainingRun) -> datetime:
    """When the model of a run became the challenger."""
    return run.finished_at or run.created_at


def is_of(version: RegisteredVersion, run: RetrainingRun) -> bool:
    """Whether this run published the version."""
    return version.note.startswith(_said_by(run))


def _said_by(run: RetrainingRun) -> str:
    return f"Retraining {run.id}:"
