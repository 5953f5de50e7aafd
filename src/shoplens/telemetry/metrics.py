"""Declare every Prometheus metric once. Each `Metrics` has its own registry, so that tests never share counts."""

from __future__ import annotations

from collections.abc import Callable
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

SECONDS_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
EXPOSITION_TYPE: Final = CONTENT_TYPE_LATEST
"""The content type of `Metrics.exposition`."""
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no dashboard reads
        self.registry = CollectorRegistry()
        self.predictions = Counter(
            "image_classifier_predictions",
            "Requests for a prediction by HTTP status.",
            ("status",),
            registry=self.registry,
        )
        self.prediction_seconds = Histogram(
            "image_classifier_prediction_seconds",
            "Time from the whole request received to its answer, for answered requests.",
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.channel_predictions = Counter(
            "shoplens_predictions",
            "Predictions made, by channel, model and decision.",
            ("channel", "model", "outcome"),
            registry=self.registry,
        )
        self.failures = Counter(
            "shoplens_failures", "Requests refused or failed, by stable error code.", ("code",), registry=self.registry
        )
        self.stage_seconds = Histogram(
            "shoplens_stage_seconds",
            "Time of one photo in each stage: queue, pixels, inference, write.",
            ("stage",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "shoplens_batch_size",
            "Photos in one model call.",
            ("model",),
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.queue_length = Gauge("shoplens_queue_length", "Photos that wait for a worker now.", registry=self.registry)
        self.feedback = Counter(
            "shoplens_feedback", "Remarks of people on predictions, by verdict.", ("verdict",), registry=self.registry
        )
        self.http_requests = Counter(
            "shoplens_http_requests", "HTTP requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.model_info = Gauge(
            "shoplens_model_info",
            "The live model versions; the value is 1.",
            ("model", "version"),
            registry=self.registry,
        )
        self._declare_queue()
        self._declare_batch()
        self._before_scrape: list[Callable[[], None]] = []
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _declare_queue(self) -> None:
        """Of the queue between web processes and workers: a web process sets the first two, a worker the others."""
        self.queue_jobs = Gauge(
            "shoplens_queue_jobs",
            "Photos in Redis that wait or are being processed, by priority.",
            ("priority",),
            registry=self.registry,
        )
        self.workers = Gauge("shoplens_workers", "Model workers that are alive.", registry=self.registry)
        self.jobs_answered = Counter(
            "shoplens_jobs_answered", "Jobs that this worker answered.", registry=self.registry
        )
        self.jobs_expired = Counter(
            "shoplens_jobs_expired", "Jobs whose time had passed when they were taken.", registry=self.registry
        )
        self.jobs_claimed = Counter(
            "shoplens_jobs_claimed", "Jobs taken over from workers that died.", registry=self.registry
        )
        self.jobs_quarantined = Counter(
            "shoplens_jobs_quarantined",
            "Messages that could not be read, and photos on which several workers died.",
            registry=self.registry,
        )

    def _declare_batch(self) -> None:
        """Gauges, because another process does the work: they show what it wrote, as `before_scrape` reads it."""

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"shoplens_batch_{name}", text, ("channel", *labels), registry=self.registry)

        self.batch_readable = Gauge(
            "shoplens_batch_readable",
            "1 when the batch figures below could be read at the last attempt.",
            registry=self.registry,
        )
        self.batch_waiting = gauge("waiting", "Items that wait for a run.")
        self.batch_run_active = gauge("run_active", "1 while a run is requested or running.")
        self.batch_run_stalled = gauge(
            "run_stalled", "1 while the active run is alive, but has finished no item for batch.stall_after_s."
        )
        self.batch_run_planned = gauge("run_planned", "Items of the active or last run.")
        self.batch_run_items = gauge("run_items", "Items of the active or last run by state.", "state")
        self.batch_item_seconds = gauge(
            "item_seconds", "Mean time to decode and classify an item of the active or last run, on one thread."
        )
        self.batch_last_timestamp = gauge(
            "last_timestamp_seconds",
            "When the last item, and the last run, was finished (Unix time; 0: never).",
            "what",
        )

    def before_scrape(self, bring_up_to_date: Callable[[], None]) -> None:
        """Call this before each exposition. It must be quick and must not raise."""
        self._before_scrape.append(bring_up_to_date)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Let the gauge read the queue itself whenever it is scraped."""
        self.queue_length.set_function(length)

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        for bring_up_to_date in self._before_scrape:
            bring_up_to_date()
        return generate_latest(self.registry)
