"""Every alert: when it fires, what to look at and what to do. `deploy/prometheus/rules.yml` has the same ones.

A rule is a pure function of the facts: findings, or None where nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import humanize

from shoplens.batch.entities import ItemState
from shoplens.messages import gettext, marked
from shoplens.monitoring.alerts.entities import Finding, Runbook, Severity
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.alerts.runbooks import RUNBOOKS
from shoplens.monitoring.series.entities import Counts

Findings = Sequence[Finding]
_MINUTE: Final = 60
_HOUR: Final = 3_600

LONG_QUEUE: Final = 64
FAILED_SHARE: Final = 0.05
BUSY_SHARE: Final = 0.05
LEAST_REQUESTS: Final = 20
"""Of fewer requests one would be a large share."""
SLOW_S: Final = 2.5
QUARANTINED_SHARE: Final = 0.1
LEAST_ITEMS: Final = 20
DISK_DAYS: Final = 7
DISK_SHARE: Final = 0.05
STUCK_S: Final = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An alert. `page` is where to look in the console, with {subject} in it; `action` has a place for the subject.

    `find` is None where only Prometheus can.

    `wait_s` is for how long it must hold before it fires.
    """

    name: str
    title: str
    severity: Severity
    wait_s: int
    page: str
    action: str
    find: Callable[[Facts], Findings | None] | None

    @property
    def runbook(self) -> Runbook:
        """What a person reads."""
        return RUNBOOKS[self.name]

    def look_at(self, subject: str) -> str:
        """The address in the console for this subject."""
        return self.page.format(subject=quote(subject))

    def act(self, subject: str) -> str:
        """What to do first, with the subject in its commands, in the language of the reader."""
        return gettext(self.action, subject=subject or "NAME")


def _queue_long(facts: Facts) -> Findings | None:
    if facts.state is None or facts.state.queue is None:
        return None
    waiting = facts.state.queue
    return [Finding(summary=f"{waiting:,} photos wait for a model.")] if waiting > LONG_QUEUE else []


def _no_worker(facts: Facts) -> Findings | None:
    if not facts.has_workers:
        return []
    if facts.state is None or facts.state.workers is None:
        return None
    if facts.state.workers:
        return []
    return [Finding(summary="No model worker is alive: every photo is refused or times out.")]


def _server_errors(facts: Facts) -> Findings | None:
    if facts.server is None:
        return None
    failed = _share(facts.server, facts.server.failed)
    if failed is None or failed <= FAILED_SHARE:
        return []
    return [Finding(summary=f"{failed:.0%} of {facts.server.requests:,} requests in five minutes got a 5xx answer.")]


def _channel_failing(facts: Facts) -> Findings | None:
    def words(counts: Counts, share: float) -> str:
        return marked(
            f"{share:.0%} of {counts.requests:,} requests in five minutes failed through a fault of Shoplens."
        )

    return _by_share(facts.channels, lambda counts: counts.failed, FAILED_SHARE, words)


def _channel_busy(facts: Facts) -> Findings | None:
    def words(counts: Counts, share: float) -> str:
        return marked(
            f"{share:.0%} of {counts.requests:,} requests in five minutes were refused because there was no room."
        )

    return _by_share(facts.channels, lambda counts: counts.busy, BUSY_SHARE, words)


def _channel_slow(facts: Facts) -> Findings | None:
    if facts.slow is None:
        return None
    found = []
    for channel, counts in facts.slow.items():
        p95_s = counts.latency_s(0.95) if counts.answered >= LEAST_REQUESTS else None
        if p95_s is not None and p95_s > SLOW_S:
            found.append(
                Finding(
                    subject=channel,
                    summary=f"Of {counts.answered:,} answers in ten minutes, 5% took longer than {p95_s:.1f} s.",
                )
            )
    return found


def _batch_stalled(facts: Facts) -> Findings | None:
    return [
        Finding(
            subject=channel,
            summary=f"The run is alive, but has finished no item for {_duration(status.last_item_ago_s)}; "
            f"{status.left:,} are left.",
        )
        for channel, status in facts.runs.items()
        if status.run is not None and status.run.stalled
    ]


def _batch_missing(facts: Facts) -> Findings | None:
    return [
        Finding(subject=channel, summary=f"{status.waiting:,} items wait, and no run took them for more than a day.")
        for channel, status in facts.runs.items()
        if status.waiting
    ]


def _run_missed(facts: Facts) -> Findings | None:
    return [
        Finding(
            subject=channel,
            summary=f"The run planned for {planned_at:%d %B %Y %H:%M} UTC did not begin, and photos wait for it.",
        )
        for channel, planned_at in facts.missed.items()
    ]


def _run_quarantine(facts: Facts) -> Findings | None:
    found = []
    for channel, status in facts.runs.items():
        planned = 0 if status.run is None else status.run.planned
        quarantined = status.counts[ItemState.QUARANTINED]
        if planned >= LEAST_ITEMS and quarantined / planned > QUARANTINED_SHARE:
            found.append(
                Finding(
                    subject=channel,
                    summary=f"{quarantined:,} items of the last run are in quarantine; it had {planned:,}.",
                )
            )
    return found


def _model_refused(facts: Facts) -> Findings | None:
    return [
        Finding(subject=model, summary=f"The champion cannot be served, and the version before it answers: {fault}")
        for model, fault in facts.refused.items()
    ]


def _jobs_quarantined(facts: Facts) -> Findings | None:
    if not facts.has_workers:
        return []
    if facts.quarantined_jobs is None:
        return None
    count = facts.quarantined_jobs
    return [Finding(summary=f"Workers quarantined {count:,} messages in 15 minutes.")] if count else []


def _drift(facts: Facts) -> Findings | None:
    found = []
    for channel, (day, measures) in facts.drift.items():
        if measures:
            words = ", ".join(measures)
            found.append(Finding(subject=channel, summary=f"{day:%d %B %Y} differs from the month before in: {words}."))
    return found


def _accuracy_low(facts: Facts) -> Findings | None:
    return [
        Finding(
            subject=channel,
            summary=f"Of automatic decisions in 28 days {value:.1%} are right, and with 95% confidence at most "
            f"{high:.1%}; the goal is {facts.least_accuracy:.1%}.",
        )
        for channel, (value, high) in facts.accuracy.items()
        if high < facts.least_accuracy
    ]


def _disk_filling(facts: Facts) -> Findings | None:
    if facts.disk is None:
        return None
    days = facts.disk.days_left
    return [] if days is None or days >= DISK_DAYS else [Finding(summary=facts.disk.sentence)]


def _disk_almost_full(facts: Facts) -> Findings | None:
    if facts.disk is None:
        return None
    free, total = facts.disk.free_bytes, facts.disk.total_bytes
    if free is None or not total or free / total >= DISK_SHARE:
        return []
    size = humanize.naturalsize
    return [Finding(summary=f"{size(free)} of {size(total)} are free on the disk of photos or database.")]


def _webhook_stuck(facts: Facts) -> Findings | None:
    if facts.webhook_age_s <= STUCK_S:
        return []
    return [Finding(summary=f"An event has waited for {_duration(facts.webhook_age_s)} for its receiver to take it.")]


def _mail_stuck(facts: Facts) -> Findings | None:
    if facts.mail_age_s <= STUCK_S:
        return []
    return [Finding(summary=f"A mail has waited for {_duration(facts.mail_age_s)} for the mail server to take it.")]


def _by_share(
    channels: Mapping[str, Counts] | None,
    count: Callable[[Counts], int],
    most: float,
    words: Callable[[Counts, float], str],
) -> Findings | None:
    if channels is None:
        return None
    shares = {channel: _share(counts, count(counts)) for channel, counts in channels.items()}
    return [
        Finding(subject=channel, summary=words(channels[channel], share))
        for channel, share in shares.items()
        if share is not None and share > most
    ]


def _share(counts: Counts, part: int) -> float | None:
    return part / counts.requests if counts.requests >= LEAST_REQUESTS else None


def _duration(seconds: float | None) -> str:
    return marked("some time") if seconds is None else humanize.naturaldelta(seconds)


_CRITICAL, _WARNING = Severity.CRITICAL, Severity.WARNING
_HOME: Final = "/console/monitoring"
_OF_CHANNEL: Final = _HOME + "?range=1h&channel={subject}"
_BATCH: Final = "/console/batch/{subject}"


def _rule(
    name: str,
    title: str,
    severity: Severity,
    wait_s: int,
    page: str,
    *,
    action: str,
    find: Callable[[Facts], Findings | None] | None,
) -> Rule:
    return Rule(name=name, title=title, severity=severity, wait_s=wait_s, page=page, action=action, find=find)


RULES: Final = (
    _rule(
        "ShoplensWebDown",
        marked("No web server answers"),
        _CRITICAL,
        _MINUTE,
        "/status",
        action=marked("See that the web server runs and read its log; shoplens doctor says what it lacks."),
        find=None,
    ),
    _rule(
        "ShoplensNoWorker",
        marked("No model worker is alive"),
        _CRITICAL,
        _MINUTE,
        _HOME + "?range=1h",
        action=marked("See why the workers ended, and start them: shoplens worker."),
        find=_no_worker,
    ),
    _rule(
        "ShoplensQueueLong",
        marked("The queue is long"),
        _WARNING,
        2 * _MINUTE,
        _HOME + "?range=1h",
        action=marked("Add workers, or find out who sends that much."),
        find=_queue_long,
    ),
    _rule(
        "ShoplensServerErrors",
        marked("Requests fail"),
        _CRITICAL,
        5 * _MINUTE,
        _HOME + "?range=1h",
        action=marked("Search app.log for the error codes; the reference of errors says what each means."),
        find=_server_errors,
    ),
    _rule(
        "ShoplensChannelFailing",
        marked("A channel fails"),
        _CRITICAL,
        5 * _MINUTE,
        _OF_CHANNEL,
        action=marked("Search app.log for the channel %(subject)s and the error codes."),
        find=_channel_failing,
    ),
    _rule(
        "ShoplensChannelBusy",
        marked("A channel refuses requests for want of room"),
        _WARNING,
        5 * _MINUTE,
        _OF_CHANNEL,
        action=marked("Add workers or cores, or let senders of %(subject)s wait as Retry-After says."),
        find=_channel_busy,
    ),
    _rule(
        "ShoplensChannelSlow",
        marked("A channel is slow"),
        _WARNING,
        10 * _MINUTE,
        _OF_CHANNEL,
        action=marked("See whether the queue is long and whether the model of %(subject)s was changed."),
        find=_channel_slow,
    ),
    _rule(
        "ShoplensBatchStalled",
        marked("A run stands still"),
        _WARNING,
        5 * _MINUTE,
        _BATCH,
        action=marked(
            "See shoplens batch status --channel %(subject)s and app.log. If you stop the run, the next start "
            "resumes it."
        ),
        find=_batch_stalled,
    ),
    _rule(
        "ShoplensBatchMissing",
        marked("Photos have waited for more than a day"),
        _WARNING,
        26 * _HOUR,
        _BATCH,
        action=marked(
            "See trigger.log for the outcome of the last start, and start shoplens batch run --channel %(subject)s."
        ),
        find=_batch_missing,
    ),
    _rule(
        "ShoplensRunMissed",
        marked("A planned run did not begin"),
        _WARNING,
        0,
        _BATCH,
        action=marked(
            "See what starts the runs of %(subject)s: cron, systemd, Jenkins or Airflow. Start this one with "
            "shoplens batch run --channel %(subject)s."
        ),
        find=_run_missed,
    ),
    _rule(
        "ShoplensRunQuarantine",
        marked("Much of a run is in quarantine"),
        _WARNING,
        0,
        _BATCH,
        action=marked(
            "See the reasons in the report of the run, and retry the items of %(subject)s once the cause is gone."
        ),
        find=_run_quarantine,
    ),
    _rule(
        "ShoplensModelRefused",
        marked("A champion cannot be served"),
        _WARNING,
        2 * _MINUTE,
        "/console/registry/{subject}",
        action=marked("Publish a version that works, or take the change back: shoplens registry rollback %(subject)s."),
        find=_model_refused,
    ),
    _rule(
        "ShoplensJobsQuarantined",
        marked("Workers quarantined messages"),
        _WARNING,
        0,
        _HOME + "?range=1h",
        action=marked("Look for worker.quarantined in the workers' log; versions of web and worker may not fit."),
        find=_jobs_quarantined,
    ),
    _rule(
        "ShoplensDrift",
        marked("Photos or answers differ from the month before"),
        _WARNING,
        0,
        _HOME + "/drift?channel={subject}",
        action=marked("Look at the strangest photos of %(subject)s, and have some of the channel checked by people."),
        find=_drift,
    ),
    _rule(
        "ShoplensAccuracyLow",
        marked("Automatic decisions are wrong too often"),
        _WARNING,
        _HOUR,
        _HOME + "/accuracy?channel={subject}",
        action=marked("Choose a higher threshold for %(subject)s on the page Accuracy, or train its model again."),
        find=_accuracy_low,
    ),
    _rule(
        "ShoplensDiskFilling",
        marked("The disk will be full within a week"),
        _WARNING,
        _HOUR,
        _HOME + "?range=90d",
        action=marked("Let less be kept (channels.*.keep), remove old runs, or add room."),
        find=_disk_filling,
    ),
    _rule(
        "ShoplensDiskAlmostFull",
        marked("The disk is almost full"),
        _CRITICAL,
        5 * _MINUTE,
        _HOME + "?range=24h",
        action=marked("Free some room now: without it no photo can be stored."),
        find=_disk_almost_full,
    ),
    _rule(
        "ShoplensWebhookStuck",
        marked("A webhook is not taken"),
        _WARNING,
        5 * _MINUTE,
        "/console/webhooks?state=pending",
        action=marked("See the last answer of the receiver; once it works, send what is dead again."),
        find=_webhook_stuck,
    ),
    _rule(
        "ShoplensMailStuck",
        marked("Mail does not leave"),
        _WARNING,
        5 * _MINUTE,
        _HOME + "/alerts",
        action=marked("Run shoplens mail test: it says what the mail server does not take."),
        find=_mail_stuck,
    ),
)
BY_NAME: Final[Mapping[str, Rule]] = {rule.name: rule for rule in RULES}


def look(facts: Facts, *, off: Sequence[str] = ()) -> dict[str, Findings | None]:
    """What every rule finds, by its name, without what is switched off (`Rule` or `Rule/subject`)."""
    found: dict[str, Findings | None] = {}
    for rule in RULES:
        if rule.find is None or rule.name in off:
            continue
        findings = rule.find(facts)
        if findings is not None:
            findings = [each for each in findings if f"{rule.name}/{each.subject}" not in off]
        found[rule.name] = findings
    return found
