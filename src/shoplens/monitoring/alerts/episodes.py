"""How alerts change from one look to the next: pure functions of what was found, and of the alerts before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from shoplens.monitoring.alerts.entities import Alert, AlertStatus, Finding
from shoplens.monitoring.alerts.rules import BY_NAME

MOST_SUBJECTS = 50
"""Findings of one rule that become alerts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long is waited before an alert is resolved, and before one that goes on is sent again.

    Of the time between two looks at most `longest_step_s` count: a machine that slept, or a clock that jumped, has
    seen nothing meanwhile.
    """

    resolve_after_s: float
    repeat_after_s: float
    longest_step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a look makes of the alerts: those to store, those that ended before they fired, and those to tell of."""

    kept: tuple[Alert, ...]
    dropped: tuple[Alert, ...]
    notices: tuple[Alert, ...]


def advance(
    alerts: Sequence[Alert],
    found: Mapping[str, Sequence[Finding] | None],
    *,
    now: datetime,
    timing: Timing,
    silenced: Collection[str],
    make_id: Callable[[], str],
) -> Change:
    """`alerts` are the open ones. A rule whose findings are None changes nothing: nobody knows.

    `silenced` are the keys of alerts of which nobody is told.
    """
    wanted = {
        (rule, finding.subject): finding for rule, some in found.items() for finding in (some or ())[:MOST_SUBJECTS]
    }
    kept, dropped, notices = [], [], []
    for alert in alerts:
        finding = wanted.pop((alert.rule, alert.subject), None)
        changed = _looked_at(alert, finding, known=found.get(alert.rule, ()) is not None, now=now, timing=timing)
        if changed is None:
            dropped.append(alert)
        else:
            kept.append(changed)
    for (rule, subject), finding in wanted.items():
        fresh = Alert(
            id=make_id(),
            rule=rule,
            subject=subject,
            severity=BY_NAME[rule].severity,
            summary=finding.summary,
            since=now,
            seen_at=now,
        )
        kept.append(_fired(fresh, now))
    for index, alert in enumerate(kept):
        if _is_due(alert, now, timing, silenced):
            kept[index] = replace(alert, notified_at=now, notices=alert.notices + 1)
            notices.append(kept[index])
    return Change(kept=tuple(kept), dropped=tuple(dropped), notices=tuple(notices))


def _looked_at(alert: Alert, finding: Finding | None, *, known: bool, now: datetime, timing: Timing) -> Alert | None:
    """The alert after a look; None for one that ended before it fired."""
    step_s = min(max((now - alert.seen_at).total_seconds(), 0.0), timing.longest_step_s)
    alert = replace(alert, seen_at=now, since=min(alert.since, now))  # the clock may have gone back
    if finding is not None:
        return _fired(replace(alert, summary=finding.summary, held_s=alert.held_s + step_s, clear_s=0.0), now)
    if not known:
        return alert
    if alert.fired_at is None:
        return None
    alert = replace(alert, clear_s=alert.clear_s + step_s)
    return replace(alert, resolved_at=now) if alert.clear_s >= timing.resolve_after_s else alert


def _fired(alert: Alert, now: datetime) -> Alert:
    held_long_enough = alert.held_s >= BY_NAME[alert.rule].wait_s
    return replace(alert, fired_at=now) if alert.fired_at is None and held_long_enough else alert


def _is_due(alert: Alert, now: datetime, timing: Timing, silenced: Collection[str]) -> bool:
    """The end is told to those who were told of the beginning, also during a silence."""
    match alert.status:
        case AlertStatus.PENDING:
            return False
        case AlertStatus.RESOLVED:
            return alert.notified_at is not None
    if alert.key in silenced or alert.clear_s > 0:
        return False
    if alert.notified_at is None or alert.notified_at > now:
        return alert.notified_at is None
    return now - alert.notified_at >= timedelta(seconds=timing.repeat_after_s)
