"""End shadow times when they are over: by a server, a few minutes after their last hour, once for all servers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database
from shoplens.db.turns import Turns
from shoplens.errors import ShoplensError
from shoplens.retraining.entities import RetrainingRules, RetrainingRun, RetrainingState
from shoplens.retraining.promotion import Promotion, shadowing_since
from shoplens.retraining.repository import RetrainingRepository
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.threads import PeriodicTask

_TASK: Final = "shadow_times"
_LEASE: Final = timedelta(minutes=15)
_CHECK_EVERY_S: Final = 300.0
_log: Final = get_logger(__name__)


class ShadowJob:
    """`run_if_due` blocks; `start` lets a thread of this process look every five minutes whether it is due.

    `rules_of` gives the rules of a channel; it raises what `platform.retraining.retraining_rules` raises.
    """

    def __init__(
        self,
        database: Database,
        promotion: Promotion,
        *,
        rules_of: Callable[[str], RetrainingRules],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._promotion = promotion
        self._rules_of = rules_of
        self._clock = clock
        self._task = PeriodicTask("shadow-times", self.run_if_due, every_s=_CHECK_EVERY_S)

    def start(self) -> None:
        """Begin to look. Call it once."""
        self._task.start()

    def close(self) -> None:
        """Stop after a decision that is in work. Blocks."""
        self._task.close()

    def run_if_due(self) -> list[RetrainingRun]:
        """Decide on the challengers whose time is over, unless another process does it now; the runs that ended."""
        due = self._due()
        if not due:
            return []
        with self._database.transaction() as tx:
            if not Turns(tx).take(_TASK, now=self._clock(), lease=_LEASE):
                return []
        try:
            return [run for rules in due for run in self._promotion.settle(rules, by=SYSTEM)]
        finally:
            with self._database.transaction() as tx:
                Turns(tx).end(_TASK, next_at=self._clock())

    def _due(self) -> list[RetrainingRules]:
        """The rules of the channels, one of each model, that have a challenger whose time is over."""
        with self._database.reading() as tx:
            waiting = [run for run in RetrainingRepository(tx).open() if run.state is RetrainingState.SHADOWING]
        found = {}
        for run in waiting:
            try:
                rules = self._rules_of(run.channel)
            except ShoplensError as error:  # the channel has other settings now: a person decides
                _log.warning("retraining.shadow_not_judged", run=run.id, code=error.code, reason=str(error))
                continue
            if self._clock() - shadowing_since(run) >= timedelta(hours=rules.shadow.hours):
                found[run.model] = rules
        return list(found.values())
