"""What a person reads when an alert fires: in the console, and in docs/runbooks, which `make docs` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shoplens.monitoring.alerts.entities import Runbook

RUNBOOKS: Final[Mapping[str, Runbook]] = {
    "ShoplensWebDown": Runbook(
        means="Prometheus got no answer from any web server for a minute. Nobody can classify a photo or see a page. "
        "Only Prometheus, or another check from outside, can notice this: a server that is down tells nobody.",
        look=(
            "Whether the process runs: systemctl status shoplens, or docker compose ps web.",
            "The end of app.log, or docker compose logs web.",
            "shoplens doctor: what it lacks of settings, models, database and store.",
        ),
        do=(
            "Start it again. Photos that were answered before are in the records; a run that it had started goes on.",
            "If it ends again at once, correct what shoplens doctor names.",
            "If it runs and Prometheus does not reach it, see the target's error on Prometheus' page Targets.",
        ),
        over="A web server answers /metrics again.",
    ),
    "ShoplensNoWorker": Runbook(
        means="Models run in workers behind Redis, and none of them is alive. Every photo is refused or times out.",
        look=(
            "Why they ended: docker compose ps --all worker and docker compose logs worker, or the service's journal.",
            "Whether Redis answers: shoplens doctor.",
            "Whether the machine had memory left: a worker that the system killed has status 137.",
        ),
        do=(
            "Start workers: shoplens worker, or docker compose up --detach --scale worker=2.",
            "If they end again, start one by hand and read its first lines.",
        ),
        over="A worker has announced itself; photos that still wait are answered at once.",
    ),
    "ShoplensQueueLong": Runbook(
        means="More photos wait than the models take. Answers are slow, and soon new photos are refused with 429.",
        look=(
            "The page Monitoring, range 1 hour: whether requests rose, or workers became fewer.",
            "Latency by channel: whether one model became slower.",
        ),
        do=(
            "Add workers, or give the server more cores.",
            "Find the sender of very many photos; a night's worth of them belongs into a run.",
        ),
        over="The queue is shorter than 64 photos.",
    ),
    "ShoplensServerErrors": Runbook(
        means="More than 5 % of all requests of five minutes got a 5xx answer: Shoplens could not answer them, and it "
        "is not the fault of their senders.",
        look=(
            "/status: which of engine, database and store is not well.",
            "app.log for the codes of the errors; docs/reference/errors.md says what each means.",
            "What changed: a new version, new settings, a new model.",
        ),
        do=(
            "If database or store are away, bring them back; Shoplens goes on by itself.",
            "If it began with a new model, take it back: shoplens registry rollback NAME.",
        ),
        over="At most 5 % of the requests of five minutes fail.",
    ),
    "ShoplensChannelFailing": Runbook(
        means="More than 5 % of the requests of one channel failed through a fault of Shoplens.",
        look=(
            "The page Monitoring for the channel: since when, and whether other channels fail, too.",
            "app.log for the channel's name and the codes of the errors.",
        ),
        do=(
            "If only this channel fails, look at its model: the page Models says what is live since when.",
            "If all channels fail, see ShoplensServerErrors.",
        ),
        over="At most 5 % of the channel's requests of five minutes fail.",
    ),
    "ShoplensChannelBusy": Runbook(
        means="More than 5 % of the requests of one channel were refused because there was no room or no time. Their "
        "senders got 429 or 503 with Retry-After.",
        look=(
            "The page Monitoring: requests and queue of the last hour.",
            "Whether one sender sends everything at once.",
        ),
        do=(
            "Add workers or cores, or raise queue_limit if there is memory for more photos.",
            "Let senders wait as long as Retry-After says, or use a run for many photos.",
        ),
        over="At most 5 % of the channel's requests of five minutes are refused for want of room.",
    ),
    "ShoplensChannelSlow": Runbook(
        means="5 % of the answers of one channel took longer than 2.5 seconds for ten minutes.",
        look=(
            "The page Monitoring for the channel: latency, queue, and marks where its model was changed.",
            "Whether a run works on the same cores at the same time.",
        ),
        do=(
            "If the queue is long, add workers or cores.",
            "If it began with a new model, compare both on the page Models, and take it back if it is too slow.",
        ),
        over="95 % of the channel's answers of ten minutes take less than 2.5 seconds.",
    ),
    "ShoplensBatchStalled": Runbook(
        means="A run's process is alive, but has finished no item for minutes (batch.stall_after_s).",
        look=(
            "shoplens batch status --channel NAME: what it works on, and since when nothing was finished.",
            "app.log: whether it waits for the database, the store or workers.",
        ),
        do=(
            "Bring back what it waits for; it goes on by itself.",
            "If nothing is away, stop its process: the next start resumes the run and loses nothing.",
        ),
        over="The run finishes items again.",
    ),
    "ShoplensBatchMissing": Runbook(
        means="Items of a channel have waited for more than 26 hours: no run took them. For a channel with a schedule, "
        "ShoplensRunMissed says so earlier.",
        look=(
            "trigger.log: when the last run was started, by whom, and how it ended.",
            "The schedule that should start it: cron, systemd timer, Jenkins or Airflow.",
        ),
        do=(
            "Start the run now: shoplens batch run --channel NAME, or the button on the channel's page.",
            "Repair the schedule. If nobody wants these items, delete them.",
        ),
        over="No item of the channel waits.",
    ),
    "ShoplensRunMissed": Runbook(
        means="The schedule of a channel (channels.*.batch.schedule) planned a run; an hour later none has begun, "
        "although photos wait for it. Shoplens starts no run by itself: something else does, and the fault is there.",
        look=(
            "trigger.log: whether the run was started, and how it ended. No line: nothing started it.",
            "What starts runs: systemctl list-timers, crontab -l, or the page of the job in Jenkins or Airflow.",
            "Whether the schedule in the settings and the time there are the same, also in their time zones.",
        ),
        do=(
            "Start the run now: shoplens batch run --channel NAME, or the button on the channel's page.",
            "Repair what starts it, and look whether the next one begins.",
        ),
        over="A run of the channel begins, or no photo waits.",
    ),
    "ShoplensRunQuarantine": Runbook(
        means="More than a tenth of the items of a run are in quarantine: files that are no photos, damaged photos, or "
        "photos that could not be read from the store.",
        look=(
            "The report of the run: quarantined items by reason, with examples.",
            "Whether what brings the photos was changed, or an upload broke off.",
        ),
        do=(
            "Remove the cause, then retry: the run's page has a button for all quarantined items.",
            "Dismiss what is no photo.",
        ),
        over="The items are retried or dismissed, or the next run has fewer of them.",
    ),
    "ShoplensModelRefused": Runbook(
        means="The registry names a new champion, and this server refuses it: its files are damaged, it does not fit "
        "its channels, it is not signed, or it failed its probes. The version before it goes on answering.",
        look=(
            "/health/ready and the page Models: the reason, in a sentence.",
            "The page of the model in the registry: who changed what, and when.",
        ),
        do=(
            "Publish a version that works, or take the change back: shoplens registry rollback NAME.",
            "If labels were renamed, change the thresholds of its channels with it.",
        ),
        over="The champion is live, or the one before it is champion again.",
    ),
    "ShoplensJobsQuarantined": Runbook(
        means="Workers quarantined messages that they could not read, or photos on which several workers died.",
        look=(
            "worker.quarantined in the logs of workers: the entry and the reason.",
            "Whether web servers and workers run the same version.",
        ),
        do=(
            "Upgrade what is older: web servers and workers together.",
            "If one photo ends workers, keep it and report it; its sender got an error.",
        ),
        over="No message is quarantined for 15 minutes.",
    ),
    "ShoplensDrift": Runbook(
        means="The photos of a day, or what the model answered on them, differ from the month before by more than "
        "chance. It may be a new collection, another camera, or a fault.",
        look=(
            "The page Drift of the channel: which measure, since when, and the ten strangest photos.",
            "What changed in the shop on that day.",
        ),
        do=(
            "If photos became dark, blurred or small, repair how they are taken.",
            "If the assortment changed, have people check some of it, and train the model again with their answers.",
            "If it is expected, silence the alert: days that stay so become usual within a month.",
        ),
        over="A day of the channel is like the days before it.",
    ),
    "ShoplensAccuracyLow": Runbook(
        means="Random checks by people say, with 95 % confidence, that automatic decisions of a channel are right less "
        "often than alerts.least_accuracy.",
        look=(
            "The page Accuracy of the channel: the share that is right, with its interval.",
            "The page Drift: whether photos changed.",
        ),
        do=(
            "Choose a higher threshold there: fewer automatic decisions, and more of them right.",
            "Train the model again with people's answers: shoplens retrain start.",
        ),
        over="The interval of the last 28 days reaches the goal again; that takes days, so silence it meanwhile.",
    ),
    "ShoplensDiskFilling": Runbook(
        means="At the rate of the last two weeks the disk of photos or database is full within seven days.",
        look=(
            "The page Monitoring, range 90 days: what grows, photos or database.",
            "What else lies on that disk: logs, backups, models.",
        ),
        do=(
            "Keep less: channels.*.keep = thumbnail or nothing, and the retention of moderation.",
            "Move photos to an object store, or add room.",
        ),
        over="The disk lasts for more than a week.",
    ),
    "ShoplensDiskAlmostFull": Runbook(
        means="Less than 5 % of the disk of photos or database is free. A full disk means that no photo can be stored: "
        "requests are refused, and runs wait.",
        look=("df -h, and du -x -d 2 of the data folder.",),
        do=(
            "Remove what is not needed: old backups, old logs, bundles that are not installed as champion.",
            "Then see ShoplensDiskFilling for what helps in the long run.",
        ),
        over="At least 5 % are free.",
    ),
    "ShoplensWebhookStuck": Runbook(
        means="An event has waited for its receiver for more than an hour. Other receivers are not held back.",
        look=(
            "The page Webhooks: the receiver's last answer, and how many events wait.",
            "The receiver itself: whether it is up, and answers with 2xx within 15 seconds.",
        ),
        do=(
            "Repair the receiver; attempts go on for a day.",
            "Then send what is dead again: shoplens webhooks replay. Remove an endpoint that is not used any more.",
        ),
        over="All events are taken, or a day has passed since they were given up.",
    ),
    "ShoplensMailStuck": Runbook(
        means="A mail has waited for the mail server for more than an hour.",
        look=(
            "shoplens mail list: the last fault of each mail.",
            "shoplens mail test: what the mail server does not take.",
        ),
        do=(
            "Correct the settings of mail, or the mail server. Attempts go on for a day.",
            "Until then, look at the page Alerts: mails about them are among those that wait.",
        ),
        over="All mails are taken, or a day has passed since they were given up.",
    ),
}
