"""Alerts: when one fires, when it is over, who is told, and that rules.yml says the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from functools import partial
from itertools import count

import pytest
from sqlalchemy import select

from shoplens.batch.entities import BatchRun, ItemState, RunCounts, RunState
from shoplens.batch.status import RunStatus
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, RequestInvalid
from shoplens.mail.entities import MailServer
from shoplens.mail.repository import MailRepository
from shoplens.mail.tables import mail_messages
from shoplens.monitoring.alerts.entities import Alert, AlertStatus, Finding, Severity
from shoplens.monitoring.alerts.episodes import MOST_SUBJECTS, Change, Timing, advance
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.alerts.repository import TurnRepository
from shoplens.monitoring.alerts.rules import BY_NAME, RULES, look
from shoplens.monitoring.alerts.runbooks import RUNBOOKS
from shoplens.monitoring.alerts.service import AlertRules, AlertService
from shoplens.monitoring.alerts.watcher import AlertWatcher
from shoplens.monitoring.errors import AlertNotFound
from shoplens.monitoring.series.entities import Counts, ServerState
from shoplens.monitoring.series.forecast import DiskForecast, DiskTrend
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S, Metrics
from shoplens.webhooks.service import WebhookService
from shoplens.webhooks.tables import webhook_events
from shoplens.webhooks.targets import Targets
from tests.deploy.files import DEPLOY, load

NOW = datetime(2026, 5, 15, 12, 0, tzinfo=UTC)
TIMING = Timing(resolve_after_s=120, repeat_after_s=3600, longest_step_s=90)
QUEUE = Finding(summary="100 photos wait.")
PROMETHEUS = {
    rule["alert"]: rule for group in load(DEPLOY / "prometheus" / "rules.yml")["groups"] for rule in group["rules"]
}
UNITS_S = {"s": 1, "m": 60, "h": 3_600}


@dataclass
class Story:
    """Looks one after another, with the alerts that each leaves."""

    alerts: list[Alert] = field(default_factory=list)
    now: datetime = NOW
    ids: count[int] = field(default_factory=count)
    change: Change | None = None

    def look(self, found: list[Finding] | None, *, after_s: float = 30, silenced: tuple[str, ...] = ()) -> list[Alert]:
        """One look at ShoplensQueueLong; whom it tells of."""
        self.now += timedelta(seconds=after_s)
        self.change = advance(
            self.alerts, {"ShoplensQueueLong": found}, now=self.now, timing=TIMING, silenced=silenced,
            make_id=lambda: f"{next(self.ids):026}",
        )  # fmt: skip
        self.alerts = [each for each in self.change.kept if each.resolved_at is None]
        return list(self.change.notices)

    def fire(self) -> Alert:
        """Look until it fires."""
        for _ in range(10):
            if told := self.look([QUEUE]):
                return told[0]
        raise AssertionError("it never fired")


def test_an_alert_fires_after_its_waiting_time_and_once() -> None:
    """The time counts from the first look at which it was there."""
    story = Story()
    told = [len(story.look([QUEUE])) for _ in range(8)]
    assert [0, 0, 0, 0, 1, 0, 0, 0] == told
    assert NOW + timedelta(seconds=30) == story.alerts[0].since
    assert NOW + timedelta(seconds=150) == story.alerts[0].fired_at


def test_what_passes_before_its_time_is_forgotten() -> None:
    """A peak of a minute calls nobody, and the next peak begins from nothing."""
    story = Story()
    for _ in range(3):
        assert [] == [*story.look([QUEUE]), *story.look([QUEUE]), *story.look([])]
        assert [] == story.alerts


def test_an_alert_is_over_when_it_was_away_for_long_enough() -> None:
    """One that comes and goes stays one alert, and is told of once."""
    story = Story()
    first = story.fire()
    for _ in range(5):
        assert [] == [*story.look([]), *story.look([]), *story.look([QUEUE])]
    over = [told for _ in range(6) for told in story.look([])]
    assert [(first.id, AlertStatus.RESOLVED)] == [(each.id, each.status) for each in over]
    assert [] == story.alerts


def test_what_nobody_knows_changes_nothing() -> None:
    """Neither does an alert end while nobody looks, nor does one fire."""
    story = Story()
    story.look([QUEUE])
    assert [] == [told for _ in range(100) for told in story.look(None)]
    assert [AlertStatus.PENDING] == [each.status for each in story.alerts]
    story.fire()
    assert [] == [told for _ in range(10) for told in story.look(None)]
    assert [AlertStatus.FIRING] == [each.status for each in story.alerts]


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)])
def test_a_clock_that_jumps_fires_and_resolves_nothing(jump: timedelta) -> None:
    """Of the time between two looks little counts; and an alert never begins in the future."""
    story = Story()
    story.look([QUEUE])
    assert [] == story.look([QUEUE], after_s=jump.total_seconds())
    assert [AlertStatus.PENDING] == [each.status for each in story.alerts]
    assert story.alerts[0].since <= story.now
    story.fire()
    assert [] == story.look([], after_s=jump.total_seconds())
    assert [AlertStatus.FIRING] == [each.status for each in story.alerts]


def test_an_alert_that_goes_on_is_told_of_again_after_the_time_that_is_set() -> None:
    """With the number of the notice."""
    story = Story()
    story.fire()
    notices = [told.notices for _ in range(241) for told in story.look([QUEUE])]
    assert [2, 3] == notices


def test_nobody_is_told_of_a_silenced_alert_until_the_silence_ends() -> None:
    """Then, if it still fires."""
    story = Story()
    told = [each for _ in range(20) for each in story.look([QUEUE], silenced=("ShoplensQueueLong",))]
    assert [] == told
    assert [AlertStatus.FIRING] == [each.status for each in story.alerts]
    assert 1 == len(story.look([QUEUE]))


def test_the_end_is_told_only_to_those_who_were_told_of_the_beginning() -> None:
    """An alert that was silent from beginning to end is."""
    story = Story()
    for _ in range(8):
        story.look([QUEUE], silenced=("ShoplensQueueLong",))
    assert [] == [told for _ in range(10) for told in story.look([])]
    assert [] == story.alerts


def test_a_rule_that_finds_very_much_makes_a_bounded_number_of_alerts() -> None:
    """A fault in the settings may give thousands of channels."""
    found = [Finding(summary="x", subject=f"c{number}") for number in range(1_000)]
    story = Story()
    story.look(found)
    assert MOST_SUBJECTS == len(story.alerts)


def status(*, waiting: int = 0, planned: int = 0, quarantined: int = 0, stalled: bool = False) -> RunStatus:
    """A run with these figures."""
    run = BatchRun(
        id="0" * 26, channel="returns", requested_by="test", created_at=NOW, state=RunState.RUNNING, bound=0,
        planned=planned, stalled=stalled,
    )  # fmt: skip
    return RunStatus(waiting=waiting, run=run, counts=RunCounts(by_state={ItemState.QUARANTINED: quarantined}))


SLOW = tuple(0 if index < len(LATENCY_BUCKETS_S) - 1 else 50 for index in range(len(LATENCY_BUCKETS_S) + 1))
QUIET = Facts(
    server=Counts(answered=1_000, failed=3),
    channels={"look": Counts(answered=500, busy=2, failed=1)},
    slow={"look": Counts(answered=500, latency=(500, *(0,) * len(LATENCY_BUCKETS_S)))},
    state=ServerState(queue=3, workers=2),
    has_workers=True,
    runs={"returns": status(planned=1_000, quarantined=10)},
    drift={"look": (NOW.date(), [])},
    accuracy={"look": (0.93, 0.95)},
    disk=DiskForecast(trend=DiskTrend.FILLING, free_bytes=400, total_bytes=1_000, days_left=30, full_at=NOW),
    quarantined_jobs=0,
)
FULL = DiskForecast(
    trend=DiskTrend.FILLING, free_bytes=40, total_bytes=1_000, bytes_per_day=10, days_left=4, full_at=NOW
)
BAD: dict[str, tuple[Facts, str, str]] = {
    "ShoplensNoWorker": (Facts(state=ServerState(workers=0), has_workers=True), "", "No model worker is alive"),
    "ShoplensQueueLong": (Facts(state=ServerState(queue=65)), "", "65 photos"),
    "ShoplensServerErrors": (Facts(server=Counts(answered=90, failed=10)), "", "10% of 100 requests"),
    "ShoplensChannelFailing": (Facts(channels={"look": Counts(answered=30, failed=10)}), "look", "25% of 40 requests"),
    "ShoplensChannelBusy": (Facts(channels={"look": Counts(answered=30, busy=10)}), "look", "25% of 40 requests"),
    "ShoplensChannelSlow": (Facts(slow={"look": Counts(answered=100, latency=SLOW)}), "look", "longer than"),
    "ShoplensBatchStalled": (Facts(runs={"returns": status(stalled=True)}), "returns", "no item"),
    "ShoplensBatchMissing": (Facts(runs={"returns": status(waiting=1_200)}), "returns", "1,200 items"),
    "ShoplensRunMissed": (Facts(missed={"returns": NOW}), "returns", "planned for 15 May 2026"),
    "ShoplensRunQuarantine": (Facts(runs={"returns": status(planned=100, quarantined=11)}), "returns", "11 items"),
    "ShoplensModelRefused": (Facts(refused={"look": "It failed its probes."}), "look", "It failed its probes."),
    "ShoplensJobsQuarantined": (Facts(has_workers=True, quarantined_jobs=2), "", "2 messages"),
    "ShoplensDrift": (Facts(drift={"look": (NOW.date(), ["brightness"])}), "look", "brightness"),
    "ShoplensAccuracyLow": (Facts(accuracy={"look": (0.8, 0.85)}), "look", "80.0% are right"),
    "ShoplensDiskFilling": (Facts(disk=FULL), "", "about 4 days"),
    "ShoplensDiskAlmostFull": (Facts(disk=FULL), "", "40 Bytes of 1.0 kB"),
    "ShoplensWebhookStuck": (Facts(webhook_age_s=7_200), "", "2 hours"),
    "ShoplensMailStuck": (Facts(mail_age_s=7_200), "", "2 hours"),
}


def test_a_healthy_shop_is_quiet() -> None:
    """No rule finds anything, and each knows."""
    assert {} == {name: found for name, found in look(QUIET).items() if found != []}


def test_every_rule_of_the_code_is_tried() -> None:
    """Each has a case below; the other one needs Prometheus."""
    assert {rule.name for rule in RULES if rule.find is not None} == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_a_rule_finds_what_it_is_for_and_says_how_much(name: str) -> None:
    """With the channel or model that it concerns."""
    facts, subject, words = BAD[name]
    (finding,) = look(facts)[name] or ()
    assert (subject, True) == (finding.subject, words in finding.summary)


def test_rules_that_lack_their_facts_say_that_they_do_not_know() -> None:
    """A server that has just started has written no minute down: that is not zero requests."""
    unknown = {name for name, found in look(Facts(has_workers=True)).items() if found is None}
    assert {
        "ShoplensNoWorker", "ShoplensQueueLong", "ShoplensServerErrors", "ShoplensChannelFailing",
        "ShoplensChannelBusy", "ShoplensChannelSlow", "ShoplensJobsQuarantined", "ShoplensDiskFilling",
        "ShoplensDiskAlmostFull",
    } == unknown  # fmt: skip


def test_few_requests_are_no_share() -> None:
    """One of three at night is no alarm."""
    few = Counts(answered=2, failed=1, busy=1)
    found = look(Facts(server=few, channels={"look": few}))
    assert {"ShoplensServerErrors": [], "ShoplensChannelFailing": [], "ShoplensChannelBusy": []} == {
        name: found[name] for name in ("ShoplensServerErrors", "ShoplensChannelFailing", "ShoplensChannelBusy")
    }


def test_alerts_can_be_switched_off_also_for_one_channel() -> None:
    """Others stay."""
    facts = Facts(drift={"look": (NOW.date(), ["brightness"]), "returns": (NOW.date(), ["size"])})
    (left,) = look(facts, off=("ShoplensDrift/look",))["ShoplensDrift"] or ()
    assert "returns" == left.subject
    assert "ShoplensDrift" not in look(facts, off=("ShoplensDrift",))


def test_prometheus_has_the_same_alerts_with_the_same_severities_and_waiting_times() -> None:
    """Whichever of both a shop uses, it is told of the same."""
    theirs = {name: (rule["labels"]["severity"], _seconds(rule.get("for", "0s"))) for name, rule in PROMETHEUS.items()}
    assert theirs == {rule.name: (rule.severity.value, rule.wait_s) for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_alert_has_a_runbook_and_prometheus_leads_to_it(rule: object) -> None:
    """A page of its own, in the console and in the documentation."""
    name = str(getattr(rule, "name", ""))
    runbook = RUNBOOKS[name]
    assert runbook.means
    assert runbook.look
    assert runbook.do
    assert runbook.over
    assert (DEPLOY.parent / "docs" / "runbooks" / f"{name}.md").is_file()
    assert PROMETHEUS[name]["annotations"]["runbook_url"].endswith(f"/console/monitoring/alerts/{name}")
    assert set(RUNBOOKS) == set(BY_NAME)


def _seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS_S[unit]


@dataclass
class Clock:
    """A clock that a test sets."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


SERVER = MailServer(host="127.0.0.1", port=25, security="none", sender="shoplens@shop.example")


@pytest.fixture
def clock() -> Clock:
    """At the fixed time."""
    return Clock()


@pytest.fixture
def make(database: Database, clock: Clock) -> Callable[..., AlertService]:
    """Services over one database, each as another process."""

    def build(facts: Callable[[], Facts], **rules: object) -> AlertService:
        timing = Timing(resolve_after_s=60, repeat_after_s=86_400, longest_step_s=90)
        wanted: dict[str, object] = {
            "every_s": 30, "timing": timing, "server": SERVER, "recipients": ("a@shop.example", "b@shop.example"),
            "public_url": "https://photos.shop.example", **rules,
        }  # fmt: skip
        return AlertService(database, AlertRules(**wanted), facts=facts, clock=clock)  # type: ignore[arg-type]

    return build


REFUSED = Facts(refused={"look": "It failed its probes."}, drift={"returns": (NOW.date(), ["size"])})


def test_one_look_tells_by_webhook_and_mail_in_one_transaction(
    database: Database, make: Callable[..., AlertService], clock: Clock
) -> None:
    """An event for each alert, and one mail with all of them to each recipient."""
    webhooks = WebhookService(database, targets=Targets(["127.0.0.0/8"]), event_types=("alert.firing",), clock=clock)
    webhooks.add("http://127.0.0.1:9/hooks")
    alerts = make(lambda: REFUSED)
    for _ in range(6):
        alerts.look_if_due()
        clock.now += timedelta(seconds=30)
    with database.reading() as tx:
        events = [(row.type, row.data) for row in tx.execute(select(webhook_events).order_by(webhook_events.c.id))]
        mails = MailRepository(tx).newest(limit=10)
    assert ["ShoplensDrift", "ShoplensModelRefused"] == [data["alert"] for _, data in events]
    assert {"alert.firing"} == {kind for kind, _ in events}
    assert "https://photos.shop.example/console/monitoring/alerts/ShoplensDrift" == events[0][1]["runbook"]
    assert "https://photos.shop.example/console/monitoring/drift?channel=returns" == events[0][1]["look_at"]
    subjects = {(each.recipient, each.subject) for each in mails}
    drift, refused = (f"Shoplens: warning: {BY_NAME[name].title}" for name in ("ShoplensDrift", "ShoplensModelRefused"))
    assert {
        (recipient, subject)
        for recipient in ("a@shop.example", "b@shop.example")
        for subject in (f"{drift} (returns)", f"{refused} (look)")
    } == subjects
    view = alerts.view()
    assert {"ShoplensDrift", "ShoplensModelRefused"} == {each.rule for each in view.firing}
    assert Severity.WARNING is view.firing[0].severity


def test_a_mail_is_in_the_language_of_the_installation_and_an_event_is_not(
    database: Database, make: Callable[..., AlertService], clock: Clock
) -> None:
    """People read the one, programs the other. The row is in English, and a page says it in its own language."""
    webhooks = WebhookService(database, targets=Targets(["127.0.0.0/8"]), event_types=("alert.firing",), clock=clock)
    webhooks.add("http://127.0.0.1:9/hooks")
    alerts = make(lambda: Facts(quarantined_jobs=1_204, has_workers=True))
    alerts.rules = replace(alerts.rules, language_tag="de")
    for _ in range(2):
        alerts.look_if_due()
        clock.now += timedelta(seconds=31)
    with database.reading() as tx:
        (event,) = tx.execute(select(webhook_events)).all()
        content = tx.execute(select(mail_messages.c.content).limit(1)).scalar_one()
    assert "Workers quarantined 1,204 messages in 15 minutes." == event.data["summary"]
    assert event.data["action"].startswith("Look for worker.quarantined")
    mail = message_from_bytes(content, policy=default)
    assert mail["subject"] == "Shoplens: Warnung: Worker haben Nachrichten aussortiert"
    body = mail.get_body(("plain",))
    text = "" if body is None else body.get_content()
    assert "Worker haben in 15 Minuten 1.204 Nachrichten aussortiert." in text
    assert "Was zu tun ist: Im Log der Worker nach worker.quarantined suchen" in text


def test_of_several_processes_one_looks(make: Callable[..., AlertService], clock: Clock) -> None:
    """Whichever comes first; the next look is another's turn as well."""
    looked: list[int] = []

    def facts_of(number: int) -> Facts:
        looked.append(number)
        return REFUSED

    processes = [make(partial(facts_of, number)) for number in range(3)]
    for number in (0, 1, 2):
        processes[number].look_if_due()
    clock.now += timedelta(seconds=31)
    for number in (2, 1, 0):
        processes[number].look_if_due()
    assert [0, 2] == looked


def test_a_look_whose_process_dies_is_done_by_another(
    database: Database, make: Callable[..., AlertService], clock: Clock
) -> None:
    """When the lease is over; and what the first one finds after all is not stored."""
    alerts = make(lambda: REFUSED)
    with database.transaction() as tx:
        assert TurnRepository(tx).take("dead", now=clock.now, every=timedelta(seconds=30), lease=timedelta(minutes=2))
    clock.now += timedelta(seconds=60)
    assert alerts.look_if_due() is None
    clock.now += timedelta(seconds=61)

    def late() -> Facts:
        clock.now += timedelta(minutes=3)
        assert make(lambda: REFUSED).look_if_due() is not None
        return REFUSED

    assert make(late).look_if_due() is None
    assert 1 == len([each for each in alerts.view().firing if each.rule == "ShoplensDrift"])


def test_a_clock_that_was_ahead_does_not_end_the_looks(make: Callable[..., AlertService], clock: Clock) -> None:
    """The last look lies in the future then."""
    alerts = make(lambda: REFUSED)
    clock.now += timedelta(days=3)
    assert alerts.look_if_due() is not None
    clock.now -= timedelta(days=3)
    assert alerts.look_if_due() is not None


def test_a_silence_holds_for_its_time_over_processes(make: Callable[..., AlertService], clock: Clock) -> None:
    """It names an alert that there is, and lasts for a month at most."""
    alerts = make(lambda: REFUSED)
    alerts.silence("ShoplensDrift/returns", hours=1, by="Ada")
    assert 0 == len((alerts.look_if_due() or Change(kept=(), dropped=(), notices=())).notices)
    view = make(Facts).view()
    assert "Ada" == getattr(view.silence(view.firing[0]), "by", None)
    clock.now += timedelta(hours=2)
    told = make(lambda: REFUSED).look_if_due()
    assert ["ShoplensDrift"] == [each.rule for each in (told.notices if told else ()) if each.rule == "ShoplensDrift"]
    with pytest.raises(AlertNotFound):
        alerts.silence("Nothing", hours=1, by="Ada")
    with pytest.raises(RequestInvalid):
        alerts.silence("ShoplensDrift", hours=24 * 31, by="Ada")
    with pytest.raises(AlertNotFound):
        alerts.end_silence("ShoplensQueueLong")


def test_the_watcher_shows_what_fires_and_outlives_faults(make: Callable[..., AlertService], clock: Clock) -> None:
    """A database that is away ends no thread; the gauge names every alert."""

    def broken() -> Facts:
        raise DatabaseUnavailable("away")

    metrics = Metrics()
    AlertWatcher(make(broken), metrics, looks=True).turn()
    clock.now += timedelta(minutes=3)
    alerts = make(lambda: REFUSED)
    AlertWatcher(alerts, metrics, looks=True).turn()
    assert ["ShoplensDrift"] == [each.rule for each in alerts.firing]
    shown = metrics.exposition().decode()
    assert 'shoplens_alerts_firing{alert="ShoplensDrift",severity="warning"} 1.0' in shown
    assert 'shoplens_alerts_firing{alert="ShoplensNoWorker",severity="critical"} 0.0' in shown
