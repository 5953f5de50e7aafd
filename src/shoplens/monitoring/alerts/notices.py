"""What people and programs are told of alerts: the data of a webhook event, and a mail."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import humanize

from shoplens.mail.entities import Message, Section
from shoplens.messages import gettext, known, marked, natural_duration, plain_time
from shoplens.monitoring.alerts.entities import Alert, AlertStatus, Severity
from shoplens.monitoring.alerts.rules import BY_NAME

FIRING_EVENT: Final = "alert.firing"
RESOLVED_EVENT: Final = "alert.resolved"
EVENTS: Final = {AlertStatus.FIRING: FIRING_EVENT, AlertStatus.RESOLVED: RESOLVED_EVENT}
PAGE: Final = "/console/monitoring/alerts"
SEVERITIES: Final = {Severity.CRITICAL: marked("critical"), Severity.WARNING: marked("warning")}
_MOST_IN_A_MAIL: Final = 20


def runbook_path(rule: str) -> str:
    """Where the console shows what to do."""
    return f"{PAGE}/{rule}"


def event_data(alert: Alert, public_url: str) -> dict[str, Any]:
    """The data of an event. Addresses are whole where `public_url` says where people reach the server."""
    rule = BY_NAME[alert.rule]
    return {
        "id": alert.id,
        "alert": alert.rule,
        "subject": alert.subject,
        "severity": alert.severity.value,
        "status": alert.status.value,
        "title": rule.title,
        "summary": alert.summary,
        "since": _instant(alert.since),
        "resolved_at": None if alert.resolved_at is None else _instant(alert.resolved_at),
        "notice": alert.notices,
        "action": rule.act(alert.subject),
        "look_at": public_url + rule.look_at(alert.subject),
        "runbook": public_url + runbook_path(alert.rule),
    }


def mail_of(alerts: Sequence[Alert], public_url: str, *, now: datetime) -> Message:
    """One mail for everything that a look found, so that a bad minute is one mail."""
    worst = sorted(alerts, key=lambda each: (each.resolved_at is not None, each.severity is Severity.WARNING))
    sections = [_section(each, public_url, now=now) for each in worst[:_MOST_IN_A_MAIL]]
    if len(worst) > _MOST_IN_A_MAIL:
        more = gettext("%(more)s more are on the page Alerts.", more=len(worst) - _MOST_IN_A_MAIL)
        links = _links((gettext("Alerts"), PAGE), public_url=public_url)
        sections.append(Section(heading=gettext("More"), lines=(more,), links=links))
    words = _heading(worst[0])
    if len(worst) > 1:
        words = gettext("%(first)s, and %(more)s more", first=words, more=len(worst) - 1)
    return Message(subject=f"Shoplens: {words}", sections=tuple(sections))


def _section(alert: Alert, public_url: str, *, now: datetime) -> Section:
    rule = BY_NAME[alert.rule]
    lasted = natural_duration(humanize.naturaldelta((alert.resolved_at or now) - alert.since))
    when, summary = plain_time(alert.since.astimezone(UTC)), known(alert.summary)
    if alert.resolved_at is not None:
        lines = [
            gettext("It is over. It began at %(when)s and lasted for %(lasted)s.", when=when, lasted=lasted),
            gettext("The last figures: %(summary)s", summary=summary),
        ]
    else:
        lines = [
            summary,
            gettext("Since %(when)s (%(lasted)s ago).", when=when, lasted=lasted),
            gettext("What to do: %(action)s", action=rule.act(alert.subject)),
        ]
        if alert.notices > 1:
            lines.insert(0, gettext("It still fires; this is mail %(number)s about it.", number=alert.notices))
    links = _links(
        (gettext("Look at"), rule.look_at(alert.subject)),
        (gettext("Runbook"), runbook_path(alert.rule)),
        public_url=public_url,
    )
    if not public_url:
        lines.append(gettext("Runbook: docs/runbooks/%(rule)s.md, or the page Monitoring, Alerts.", rule=alert.rule))
    return Section(heading=_heading(alert), lines=tuple(lines), links=links)


def _heading(alert: Alert) -> str:
    state = gettext("Resolved") if alert.resolved_at is not None else gettext(SEVERITIES[alert.severity])
    of = f" ({alert.subject})" if alert.subject else ""
    return f"{state}: {gettext(BY_NAME[alert.rule].title)}{of}"


def _links(*links: tuple[str, str], public_url: str) -> tuple[tuple[str, str], ...]:
    """None without a public address: they would lead nowhere."""
    return tuple((words, public_url + path) for words, path in links) if public_url else ()


def _instant(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
