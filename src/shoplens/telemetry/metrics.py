"""Declare every Prometheus metric once. Each `Metrics` has its own registry, so that tests never share counts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from shoplens.errors import Conflict, NotFound, Overloaded, RequestInvalid, SampleError, TooManyTries

SECONDS_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
LATENCY_BUCKETS_S: Final = SECONDS_BUCKETS
"""Those of the latency of channels, which monitoring stores: a change of them needs a migration."""
EXPOSITION_TYPE: Final = CONTENT_TYPE_LATEST
"""The content type of `Metrics.exposition`."""
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


_KINDS: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    ((Overloaded, TooManyTries), "busy"),
    ((SampleError, RequestInvalid, NotFound, Conflict, asyncio.CancelledError), "refused"),
)


def kind_of(error: BaseException) -> str:
    """What a request failed of: "refused" for a fault of the sample or a client that went away, "busy", "failed"."""
    return next((kind for classes, kind in _KINDS if isinstance(error, classes)), "failed")


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no dashboard reads
        self.registry = CollectorRegistry()
        self._before_scrape: list[Callable[[], None]] = []
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)

        self.predictions = counter(
            "image_classifier_predictions", "Requests for a prediction by HTTP status.", ("status",)
        )
        self.prediction_seconds = histogram(
            "image_classifier_prediction_seconds",
            "Time from the whole request received to its answer, for answered requests.",
            buckets=SECONDS_BUCKETS,
        )
        self.channel_predictions = counter(
            "shoplens_predictions",
            "Predictions made, by channel, model and decision.",
            ("channel", "model", "outcome"),
        )
        self.moderation_photos = counter(
            "shoplens_moderation_photos", "Shoppers' photos taken in, by channel and the state that they got.",
            ("channel", "state"),
        )  # fmt: skip
        self.moderation_seconds = histogram(
            "shoplens_moderation_seconds",
            "Time of one request with shoppers' photos, from the last byte to the commit.",
            buckets=SECONDS_BUCKETS,
        )
        served = ("channel", "model")
        self.channel_seconds = histogram(
            "shoplens_channel_seconds",
            "Time of one answered request, from the sample at hand to the commit, by channel and model.",
            served,
            buckets=LATENCY_BUCKETS_S,
        )
        self.channel_failures = counter(
            "shoplens_channel_failures",
            "Requests of a channel without an answer: refused (the sample), busy (no room or time), failed (Shoplens).",
            (*served, "kind"),
        )
        self.failures = counter("shoplens_failures", "Requests refused or failed, by stable error code.", ("code",))
        self.stage_seconds = histogram(
            "shoplens_stage_seconds",
            "Time of one photo in each stage: queue, pixels, inference, write.",
            ("stage",),
            buckets=SECONDS_BUCKETS,
        )
        self.batch_size = histogram(
            "shoplens_batch_size", "Photos in one model call.", ("model",), buckets=BATCH_BUCKETS
        )
        self.queue_length = gauge("shoplens_queue_length", "Photos that wait for a worker now.")
        self.feedback = counter("shoplens_feedback", "Remarks of people on predictions, by verdict.", ("verdict",))
        self.http_requests = counter(
            "shoplens_http_requests", "HTTP requests by route and status.", ("route", "status")
        )
        self.disk_free = gauge(
            "shoplens_disk_free_bytes", "Free bytes of the disk with the least room, of those of photos and database."
        )
        self.disk_size = gauge("shoplens_disk_size_bytes", "All bytes of that disk.")
        for room in (self.disk_free, self.disk_size):
            room.set(math.nan)  # a process that does not look
        self.model_live = gauge(
            "shoplens_model_live_timestamp_seconds", "When the version that answers here was loaded.", ("model",)
        )
        self.model_info = gauge("shoplens_model_info", "The live model versions; the value is 1.", ("model", "version"))
        self.model_changes = counter(
            "shoplens_model_changes", "Champions that were to go live here: swapped, refused.", ("model", "outcome")
        )
        self.shadow_answers = counter(
            "shoplens_shadow_answers",
            "Samples that a challenger saw beside the champion: agreed, differed, failed, dropped.",
            ("model", "outcome"),
        )
        self.model_refused = gauge(
            "shoplens_model_refused",
            "1 while the champion of a model is refused, and another version answers.",
            ("model",),
        )

        # The queue between web processes and workers: a web process sets the first two, a worker the others.
        self.queue_jobs = gauge(
            "shoplens_queue_jobs", "Photos in Redis that wait or are being processed, by priority.", ("priority",)
        )
        self.workers = gauge("shoplens_workers", "Model workers that are alive.")
        self.jobs_answered = counter("shoplens_jobs_answered", "Jobs that this worker answered.")
        self.jobs_expired = counter("shoplens_jobs_expired", "Jobs whose time had passed when they were taken.")
        self.jobs_claimed = counter("shoplens_jobs_claimed", "Jobs taken over from workers that died.")
        self.jobs_quarantined = counter(
            "shoplens_jobs_quarantined",
            "Messages that could not be read, and photos on which several workers died.",
        )

        self.drift_alarm = gauge(
            "shoplens_drift_alarm",
            "1 where the last day that was compared differs from the month before, by channel and measure.",
            ("channel", "measure"),
        )
        self.drift_day = gauge(
            "shoplens_drift_day_timestamp_seconds", "Beginning of the last day that was compared.", ("channel",)
        )
        self.accuracy = gauge(
            "shoplens_accuracy",
            "Accuracy of automatic decisions in the last 28 days from random checks: value, low and high (95 %).",
            ("channel", "bound"),
        )

        # Batch: gauges, because another process does the work. `before_scrape` reads what that process wrote.
        channel = ("channel",)
        self.batch_readable = gauge(
            "shoplens_batch_readable", "1 when the batch figures below could be read at the last attempt."
        )
        self.batch_waiting = gauge("shoplens_batch_waiting", "Items that wait for a run.", channel)
        self.batch_run_active = gauge("shoplens_batch_run_active", "1 while a run is requested or running.", channel)
        self.batch_run_stalled = gauge(
            "shoplens_batch_run_stalled",
            "1 while the active run is alive, but has finished no item for batch.stall_after_s.",
            channel,
        )
        self.batch_run_planned = gauge("shoplens_batch_run_planned", "Items of the active or last run.", channel)
        self.batch_run_items = gauge(
            "shoplens_batch_run_items", "Items of the active or last run by state.", ("channel", "state")
        )
        self.batch_run_seconds = gauge(
            "shoplens_batch_run_seconds", "How long the active or last run has worked on its items.", channel
        )
        self.batch_run_rate = gauge(
            "shoplens_batch_run_items_per_second", "Items per second of the active or last run.", channel
        )
        self.batch_item_seconds = gauge(
            "shoplens_batch_item_seconds",
            "Mean time to decode and classify an item of the active or last run, on one thread.",
            channel,
        )
        self.batch_last_timestamp = gauge(
            "shoplens_batch_last_timestamp_seconds",
            "When the last item, and the last run, was finished (Unix time; 0: never).",
            ("channel", "what"),
        )
        self._declare_alerts(counter, gauge)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _declare_alerts(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        """What alerts are about beside the rest, and what became of them."""
        self.retention_deleted = counter(
            "shoplens_retention_deleted",
            "Records and photos that were deleted because their days were over, by channel.",
            ("channel", "kind"),
        )
        self.webhook_attempts = counter(
            "shoplens_webhook_attempts", "Attempts to send an event: delivered, failed, dead.", ("outcome",)
        )
        self.mail_attempts = counter(
            "shoplens_mail_attempts", "Attempts to send a mail: delivered, failed, dead.", ("outcome",)
        )
        for attempts in (self.webhook_attempts, self.mail_attempts):
            for outcome in ("delivered", "failed", "dead"):
                attempts.labels(outcome=outcome)  # a graph cannot tell a series that is missing from none
        self.outbox_seconds = gauge(
            "shoplens_outbox_oldest_seconds",
            "How long the oldest event or mail has waited to be sent, by way: webhook, mail; 0: none waits.",
            ("way",),
        )
        self.batch_run_missed = gauge(
            "shoplens_batch_run_missed",
            "1 while items wait for a planned run that did not begin, by channel with a schedule.",
            ("channel",),
        )
        self.alerts_firing = gauge("shoplens_alerts_firing", "Alerts that fire, by name.", ("alert", "severity"))
        self.disk_days = gauge(
            "shoplens_disk_days_left", "Days until that disk is full, at the rate of two weeks; NaN: not in sight."
        )

    @contextmanager
    def request_of(self, channel: str, model: str) -> Iterator[None]:
        """Count the request of a channel that the block answers: its time, or the kind of its failure."""
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self.channel_failures.labels(channel, model, kind_of(error)).inc()
            raise
        self.channel_seconds.labels(channel, model).observe(time.perf_counter() - started)

    def before_scrape(self, bring_up_to_date: Callable[[], None]) -> None:
        """Call this before each exposition. It must be quick and must not raise."""
        self._before_scrape.append(bring_up_to_date)

    def workers_alive(self) -> int:
        """How many model workers are known; 0 where models run in this process."""
        return int(sum(sample.value for family in self.workers.collect() for sample in family.samples))

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Let the gauge read the queue itself whenever it is scraped."""
        self.queue_length.set_function(length)

    def follow_model(self, name: str) -> None:
        """Begin the series of a model that is followed at 0: a rule or a graph cannot tell a series that is missing."""
        for outcome in ("swapped", "refused"):
            self.model_changes.labels(model=name, outcome=outcome)
        for outcome in ("agreed", "differed", "failed", "dropped"):
            self.shadow_answers.labels(model=name, outcome=outcome)
        self.model_refused.labels(model=name)

    def watch_disk(self, room: Callable[[], tuple[int, int] | None]) -> None:
        """Let the gauges ask for free and total bytes whenever they are scraped; NaN where that is None."""
        for gauge, part in ((self.disk_free, 0), (self.disk_size, 1)):
            gauge.set_function(lambda part=part: math.nan if (found := room()) is None else found[part])  # type: ignore[misc]

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        for bring_up_to_date in self._before_scrape:
            bring_up_to_date()
        return generate_latest(self.registry)
