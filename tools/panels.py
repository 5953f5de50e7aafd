"""What the dashboard of Grafana shows: a row for each job, and in it panels with their sentence, unit and queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`queries` are by what Grafana calls their series. `page` is the console's page about it.

    `alarm_at` is from which value a number is red; `alarm_below` the other way round.
    """

    title: str
    description: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 12
    stacked: bool = False
    alarm_at: float | None = None
    alarm_below: float | None = None
    page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The panels of one job."""

    title: str
    panels: tuple[Panel, ...] = field(default=())


def _quantiles(metric: str, chosen: str = "") -> dict[str, str]:
    rates = f"sum by (le) (rate({metric}_bucket{chosen}[5m]))"
    return {name: f"histogram_quantile({share}, {rates})" for name, share in _SHARES.items()}


_SHARES: Final = {"median": 0.5, "95 %": 0.95, "99 %": 0.99}
_CHANNEL: Final = '{channel=~"$channel"}'
_CATALOGUE: Final = '{channel=~"$catalogue"}'
_RUNS: Final = "batch/${returns}"
_RATE_OF_CHANNEL: Final = f"rate(shoplens_channel_seconds_count{_CHANNEL}[5m])"

ROWS: Final = (
    Row(
        title="Now",
        panels=(
            Panel(
                title="Servers that answer", kind="stat", width=4, alarm_below=1,
                description="Shoplens processes that Prometheus reaches, web servers and workers.",
                queries={"processes": 'sum(up{job=~"shoplens.*"})'}, page="monitoring",
            ),
            Panel(
                title="Requests per second", kind="stat", width=4, unit="reqps",
                description="Answered requests of all channels, mean of five minutes.",
                queries={"answered": f"sum({_RATE_OF_CHANNEL})"}, page="monitoring",
            ),
            Panel(
                title="Time to an answer", kind="stat", width=4, unit="s", alarm_at=2,
                description="95 of 100 requests of all channels took at most so long, of five minutes.",
                queries={"95 %": _quantiles("shoplens_channel_seconds", _CHANNEL)["95 %"]}, page="monitoring",
            ),
            Panel(
                title="Server errors", kind="stat", width=4, unit="percentunit", alarm_at=0.01,
                description="Share of HTTP requests that ended with a status of 500 or more, of five minutes.",
                queries={
                    "5xx": '(sum(rate(shoplens_http_requests_total{status=~"5.."}[5m])) or vector(0)) '
                    "/ sum(rate(shoplens_http_requests_total[5m]))"
                },
                page="monitoring",
            ),
            Panel(
                title="Drift", kind="stat", width=4, alarm_at=1,
                description="Measures of the last day that differ from the month before, of all channels.",
                queries={"alarms": f"sum(max by (channel, measure) (shoplens_drift_alarm{_CHANNEL}))"},
                page="monitoring/drift",
            ),
            Panel(
                title="Free disk", kind="stat", width=4, unit="percentunit", alarm_below=0.1,
                description="Of the disk with the least room among those of photos and database.",
                queries={"free": "min(shoplens_disk_free_bytes / shoplens_disk_size_bytes)"}, page="monitoring",
            ),
        ),
    ),
    Row(
        title="All channels",
        panels=(
            Panel(
                title="Answered requests per second, by channel", unit="reqps",
                description="From the sample at hand to the commit; items of runs are not among them.",
                queries={"{{channel}} {{model}}": f"sum by (channel, model) ({_RATE_OF_CHANNEL})"}, page="monitoring",
            ),
            Panel(
                title="Time of a request, by channel", unit="s",
                description="95 of 100 answers took at most so long.",
                queries={
                    "{{channel}}": "histogram_quantile(0.95, sum by (channel, le) "
                    f"(rate(shoplens_channel_seconds_bucket{_CHANNEL}[5m])))"
                },
                page="monitoring",
            ),
            Panel(
                title="Requests without an answer per second", unit="reqps",
                description="Refused: the sample or the request was at fault. Busy: no room or time. Failed: Shoplens.",
                queries={
                    "{{channel}} {{kind}}": "sum by (channel, kind) "
                    f"(rate(shoplens_channel_failures_total{_CHANNEL}[5m]))"
                },
            ),
            Panel(
                title="Errors per second, by code", unit="reqps",
                description="The reference of errors says what each code means and what to do.",
                queries={"{{code}}": "sum by (code) (rate(shoplens_failures_total[5m]))"},
            ),
            Panel(
                title="Decisions per second", unit="reqps", stacked=True,
                description="What the policy made of predictions: accepted, for a person, rejected.",
                queries={
                    "{{channel}} {{outcome}}": "sum by (channel, outcome) "
                    f"(rate(shoplens_predictions_total{_CHANNEL}[5m]))"
                },
                page="records",
            ),
            Panel(
                title="HTTP requests per second, by status", unit="reqps", stacked=True,
                description="All of them, pages and files included.",
                queries={"{{status}}": "sum by (status) (rate(shoplens_http_requests_total[5m]))"},
            ),
        ),
    ),
    Row(
        title="Look",
        panels=(
            Panel(
                title="Predictions per second, by status", unit="reqps",
                description="429: the queue is full. 503: no worker, or a part is away. 504: not in time.",
                queries={"{{status}}": "sum by (status) (rate(image_classifier_predictions_total[1m]))"},
            ),
            Panel(
                title="Time of a prediction", unit="s",
                description="From the whole request received to its answer.",
                queries=_quantiles("image_classifier_prediction_seconds"),
            ),
            Panel(
                title="Time in each stage, mean", unit="s", stacked=True,
                description="Of one photo: in the queue, pixels (decode and prepare), inference, write (the commit).",
                queries={
                    "{{stage}}": "sum by (stage) (rate(shoplens_stage_seconds_sum[5m])) "
                    "/ sum by (stage) (rate(shoplens_stage_seconds_count[5m]))"
                },
            ),
            Panel(
                title="Feedback per hour", stacked=True,
                description="What people said of predictions, by verdict.",
                queries={"{{verdict}}": "sum by (verdict) (increase(shoplens_feedback_total[1h]))"},
                page="records",
            ),
        ),
    ),
    Row(
        title="Reviews",
        panels=(
            Panel(
                title="Shoppers' photos per minute, by state", unit="short", stacked=True,
                description="What the policy made of the photos that were taken in: published, held, refused.",
                queries={
                    "{{channel}} {{state}}": "60 * sum by (channel, state) "
                    f"(rate(shoplens_moderation_photos_total{_CHANNEL}[5m]))"
                },
                page="moderation",
            ),
            Panel(
                title="Time to take in photos", unit="s",
                description="One request with shoppers' photos, from the last byte to the commit.",
                queries=_quantiles("shoplens_moderation_seconds"), page="moderation",
            ),
        ),
    ),
    Row(
        title="Returns",
        panels=(
            Panel(
                title="Waiting", kind="stat", width=6,
                description="Items that wait for a run.",
                queries={"{{channel}}": f"max by (channel) (shoplens_batch_waiting{_CHANNEL})"}, page=_RUNS,
            ),
            Panel(
                title="Last run finished", kind="stat", width=6, unit="dateTimeFromNow",
                description="How long ago; a channel without a run shows 1970.",
                queries={
                    "{{channel}}": "1000 * max by (channel) "
                    '(shoplens_batch_last_timestamp_seconds{channel=~"$channel",what="run"})'
                },
                page=_RUNS,
            ),
            Panel(
                title="Run", kind="stat", width=6,
                description="1: the channel has an active run; stalled: it is alive, and finishes nothing; missed: a "
                "planned run did not begin.",
                queries={
                    "{{channel}} active": f"max by (channel) (shoplens_batch_run_active{_CHANNEL})",
                    "{{channel}} stalled": f"max by (channel) (shoplens_batch_run_stalled{_CHANNEL})",
                    "{{channel}} missed": f"max by (channel) (shoplens_batch_run_missed{_CHANNEL})",
                },
                page=_RUNS,
            ),
            Panel(
                title="Figures of runs can be read", kind="stat", width=6, alarm_below=1,
                description="0: a web server could not read them from the database at its last attempt.",
                queries={"readable": 'min(shoplens_batch_readable{job!~".*worker.*"})'},
            ),
            Panel(
                title="Items of the run, by state", stacked=True,
                description="The active run, or the last one.",
                queries={
                    "{{channel}} {{state}}": f"max by (channel, state) (shoplens_batch_run_items{_CHANNEL})",
                    "{{channel}} planned": f"max by (channel) (shoplens_batch_run_planned{_CHANNEL})",
                },
                page=_RUNS,
            ),
            Panel(
                title="Speed of the run", unit="short",
                description="Items per second of the active run, or the last one.",
                queries={"{{channel}}": f"max by (channel) (shoplens_batch_run_items_per_second{_CHANNEL})"},
                page=_RUNS,
            ),
            Panel(
                title="Time of an item, mean", unit="s",
                description="To decode and classify it, on one thread.",
                queries={"{{channel}}": f"max by (channel) (shoplens_batch_item_seconds{_CHANNEL})"},
            ),
            Panel(
                title="Time of the run", unit="s",
                description="How long the active run, or the last one, has worked on its items.",
                queries={"{{channel}}": f"max by (channel) (shoplens_batch_run_seconds{_CHANNEL})"},
            ),
        ),
    ),
    Row(
        title="Catalogue",
        panels=(
            Panel(
                title="Suggestions per second, by decision", unit="reqps", stacked=True,
                description="Of the channels in the variable catalogue: placed by itself, or for a person.",
                queries={
                    "{{channel}} {{outcome}}": "sum by (channel, outcome) "
                    f"(rate(shoplens_predictions_total{_CATALOGUE}[5m]))"
                },
                page="catalogue",
            ),
            Panel(
                title="Time of a suggestion", unit="s",
                description="From the product at hand to the answer.",
                queries=_quantiles("shoplens_channel_seconds", _CATALOGUE), page="catalogue",
            ),
        ),
    ),
    Row(
        title="Models",
        panels=(
            Panel(
                title="Live versions", kind="stat", width=8,
                description="The version of each model that answers now, and how many processes have it.",
                queries={"{{model}} {{version}}": "sum by (model, version) (shoplens_model_info)"}, page="models",
            ),
            Panel(
                title="Live since", kind="stat", width=8, unit="dateTimeFromNow",
                description="When the version that answers was loaded, in the process that did it last.",
                queries={"{{model}}": "1000 * max by (model) (shoplens_model_live_timestamp_seconds)"}, page="models",
            ),
            Panel(
                title="Refused versions", kind="stat", width=8, alarm_at=1,
                description="1: the champion of a model is refused, and another version answers.",
                queries={"{{model}}": "max by (model) (shoplens_model_refused)"}, page="models",
            ),
            Panel(
                title="Accuracy of automatic decisions", unit="percentunit",
                description="Of the last 28 days, from random checks, with the bounds of 95 % confidence.",
                queries={"{{channel}} {{bound}}": f"max by (channel, bound) (shoplens_accuracy{_CHANNEL})"},
                page="monitoring/accuracy",
            ),
            Panel(
                title="Drift alarms, by measure", stacked=True,
                description="1: the last day that was compared differs from the month before.",
                queries={"{{channel}} {{measure}}": f"max by (channel, measure) (shoplens_drift_alarm{_CHANNEL})"},
                page="monitoring/drift",
            ),
            Panel(
                title="Last day compared", kind="stat", unit="dateTimeFromNow",
                description="The beginning of the day that the drift alarms are of.",
                queries={"{{channel}}": f"1000 * max by (channel) (shoplens_drift_day_timestamp_seconds{_CHANNEL})"},
                page="monitoring/drift",
            ),
            Panel(
                title="Changes of champions per hour",
                description="Champions that were to go live: swapped or refused.",
                queries={
                    "{{model}} {{outcome}}": "sum by (model, outcome) (increase(shoplens_model_changes_total[1h]))"
                },
                page="models",
            ),
            Panel(
                title="Challengers per minute", stacked=True,
                description="Samples that a challenger saw beside the champion: agreed, differed, failed, dropped.",
                queries={
                    "{{model}} {{outcome}}": "60 * sum by (model, outcome) (rate(shoplens_shadow_answers_total[5m]))"
                },
                page="models",
            ),
            Panel(
                title="Photos in one model call, mean",
                description="1 on a CPU; on a GPU how full its batches are.",
                queries={
                    "{{model}}": "sum by (model) (rate(shoplens_batch_size_sum[5m])) "
                    "/ sum by (model) (rate(shoplens_batch_size_count[5m]))"
                },
            ),
        ),
    ),
    Row(
        title="Workers",
        panels=(
            Panel(
                title="Workers that are alive", kind="stat",
                description="Model workers that are alive; 0 where models run in the web server.",
                queries={"workers": "max(shoplens_workers)"}, page="monitoring",
            ),
            Panel(
                title="Waiting for a thread", kind="stat",
                description="Photos in the queues of processes, and the longest of these queues.",
                queries={"all": "sum(shoplens_queue_length)", "longest": "max(shoplens_queue_length)"},
            ),
            Panel(
                title="Photos in the queue, by priority",
                description="In Redis, waiting or in work. Online work takes precedence over batch work.",
                queries={"{{priority}}": "max by (priority) (shoplens_queue_jobs)"}, page="monitoring",
            ),
            Panel(
                title="Answered per second, by worker", unit="reqps", stacked=True,
                description="Jobs that each worker answered.",
                queries={"{{instance}}": "sum by (instance) (rate(shoplens_jobs_answered_total[1m]))"},
            ),
            Panel(
                title="Jobs that took another way", width=24,
                description="Claimed from workers that died, expired before they were taken, or unreadable.",
                queries={
                    "claimed": "sum(increase(shoplens_jobs_claimed_total[5m]))",
                    "expired": "sum(increase(shoplens_jobs_expired_total[5m]))",
                    "quarantined": "sum(increase(shoplens_jobs_quarantined_total[5m]))",
                },
            ),
        ),
    ),
    Row(
        title="Alerts",
        panels=(
            Panel(
                title="Alerts that fire", stacked=True,
                description="Those that Shoplens finds by itself; each has a page that says what to do.",
                queries={"{{alert}}": "max by (alert) (shoplens_alerts_firing)"},
                page="monitoring/alerts",
            ),
            Panel(
                title="Attempts to send per hour",
                description="Events to webhooks, and mails: delivered, failed (it is tried again), dead (given up).",
                queries={
                    "webhook {{outcome}}": "sum by (outcome) (increase(shoplens_webhook_attempts_total[1h]))",
                    "mail {{outcome}}": "sum by (outcome) (increase(shoplens_mail_attempts_total[1h]))",
                },
                page="webhooks",
            ),
            Panel(
                title="Oldest event or mail that waits", kind="stat", unit="s", alarm_at=900,
                description="How long it has waited to be sent; 0: none waits.",
                queries={"{{way}}": "max by (way) (shoplens_outbox_oldest_seconds)"}, page="webhooks",
            ),
            Panel(
                title="Days until the disk is full", kind="stat", alarm_below=7,
                description="At the rate of two weeks; no number: not in sight.",
                queries={"days": "min(shoplens_disk_days_left)"}, page="monitoring",
            ),
        ),
    ),
    Row(
        title="Machine",
        panels=(
            Panel(
                title="CPU by process", unit="percentunit",
                description="1 is a whole core.",
                queries={"{{job}} {{instance}}": 'rate(process_cpu_seconds_total{job=~"shoplens.*"}[5m])'},
            ),
            Panel(
                title="Memory by process", unit="bytes",
                description="Resident memory.",
                queries={"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~"shoplens.*"}'},
            ),
            Panel(
                title="Free disk", unit="bytes",
                description="Of the disk with the least room among those of photos and database.",
                queries={"{{instance}}": "min by (instance) (shoplens_disk_free_bytes)"}, page="monitoring",
            ),
            Panel(
                title="Deleted by retention per hour", stacked=True,
                description="Records and photos whose days are over.",
                queries={
                    "{{channel}} {{kind}}": "sum by (channel, kind) (increase(shoplens_retention_deleted_total[1h])) "
                    "or vector(0)"
                },
                page="settings",
            ),
            Panel(
                title="Open files by process",
                description="Connections, files and pipes; the line is the limit of the process.",
                queries={
                    "{{job}} {{instance}}": 'process_open_fds{job=~"shoplens.*"}',
                    "{{job}} {{instance}} limit": 'process_max_fds{job=~"shoplens.*"}',
                },
            ),
        ),
    ),
)  # fmt: skip
