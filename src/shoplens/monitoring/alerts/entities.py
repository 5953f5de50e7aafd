"""An alert from its first sign to its end, and the rule that it follows. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Severity(StrEnum):
    """How soon a person should look: now, or on the same day."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """What a person reads when an alert fires. `look` and `do` are steps in their order."""

    means: str
    look: tuple[str, ...]
    do: tuple[str, ...]
    over: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule finds now. `subject` is the channel or model, "" for the whole server; `summary` has the figures."""

    summary: str
    subject: str = ""


class AlertStatus(StrEnum):
    """Where an alert is: it must hold for the waiting time of its rule before it fires."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert. `held_s` is how long it was seen, `clear_s` how long it has not been seen since.

    Both count the time between looks, and of a long pause only a part: a clock that jumps fires nothing.
    """

    id: str
    rule: str
    subject: str
    severity: Severity
    summary: str
    since: datetime
    seen_at: datetime
    held_s: float = 0.0
    clear_s: float = 0.0
    fired_at: datetime | None = None
    resolved_at: datetime | None = None
    notified_at: datetime | None = None
    notices: int = 0

    @property
    def status(self) -> AlertStatus:
        """Where it is."""
        if self.resolved_at is not None:
            return AlertStatus.RESOLVED
        return AlertStatus.PENDING if self.fired_at is None else AlertStatus.FIRING

    @property
    def key(self) -> str:
        """What makes two alerts the same: `ShoplensDrift/look`, or the rule alone."""
        return alert_key(self.rule, self.subject)


def alert_key(rule: str, subject: str) -> str:
    """How settings and silences name an alert."""
    return f"{rule}/{subject}" if subject else rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Until then nobody is told of this alert."""

    key: str
    until: datetime
    by: str
    created_at: datetime
