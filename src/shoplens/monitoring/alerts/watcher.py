"""A thread of each web process: look whether something is wrong when it is its turn, and keep the gauges true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shoplens.errors import ShoplensError
from shoplens.monitoring.alerts.rules import RULES
from shoplens.monitoring.alerts.service import AlertService
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import PeriodicTask

_FIRST_S: Final = 5.0
_log: Final = get_logger(__name__)


class AlertWatcher:
    """`turn` blocks; from `start` to `close` a thread calls it. `also` is called at each turn and may raise.

    `looks`: this process looks; otherwise it only reads what others found.
    """

    def __init__(
        self, alerts: AlertService, metrics: Metrics, *, looks: bool, also: Callable[[], None] = lambda: None
    ) -> None:
        self._alerts = alerts
        self._metrics = metrics
        self._looks = looks
        self._also = also
        self._fault: str | None = None
        every_s = alerts.rules.every_s
        self._task = PeriodicTask("alerts", self.turn, every_s=every_s, first_s=min(_FIRST_S, every_s))

    def start(self) -> None:
        """Begin. Call it once."""
        self._task.start()

    def close(self) -> None:
        """Stop after the look that is going on. Blocks."""
        self._task.close()

    def turn(self) -> None:
        """Look if it is due, and set the gauges. Raises nothing: a fault is logged once, and its end, too."""
        try:
            if self._looks:
                self._alerts.look_if_due()
            self._show()
            self._also()
        except ShoplensError as error:
            self._note(error.code, str(error))
        except Exception as error:  # noqa: BLE001  whatever it was, the next turn must come
            self._note(type(error).__name__, repr(error))
        else:
            self._note(None)

    def _show(self) -> None:
        firing = self._alerts.refresh()
        for rule in RULES:
            count = sum(each.rule == rule.name for each in firing)
            self._metrics.alerts_firing.labels(rule.name, rule.severity.value).set(count)

    def _note(self, code: str | None, reason: str = "") -> None:
        if code == self._fault:
            return
        self._fault = code
        if code is None:
            _log.info("alerts.watching")
        else:
            _log.warning("alerts.not_watching", code=code, reason=reason)
