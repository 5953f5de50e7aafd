"""What the process has counted since it started, read from its own metrics: no request does anything more for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from shoplens.monitoring.series.entities import NOTHING, SERVER, Counts, SeriesKey
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S, Metrics

_OUTCOMES: Final = {"accept": "accepted", "review": "to_review", "reject": "rejected"}
_UNCOUNTED_ROUTES: Final = ("/health", "/metrics", "/static", "/status")
"""What machines ask for every few seconds would hide what people and programs ask for."""
_OVERFLOW: Final = len(LATENCY_BUCKETS_S)
_BUCKETS: Final = {repr(float(bound)): index for index, bound in enumerate(LATENCY_BUCKETS_S)} | {"+Inf": _OVERFLOW}
MOST_SERIES: Final = 200
"""Series of one process. Channels and models come from settings and registry; this bounds a mistake there."""


def read_counts(metrics: Metrics) -> dict[SeriesKey, Counts]:
    """The counts of each channel and model since the start of the process, and of the whole server."""
    plain: defaultdict[SeriesKey, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    cumulative: defaultdict[SeriesKey, list[int]] = defaultdict(lambda: [0] * (_OVERFLOW + 1))
    for name, labels, value in _samples(metrics.channel_seconds):
        key = SeriesKey(labels["channel"], labels["model"])
        if name.endswith("_bucket"):
            cumulative[key][_BUCKETS[labels["le"]]] = int(value)
        else:
            plain[key]["answered" if name.endswith("_count") else "latency_sum_s"] += value
    for _, labels, value in _samples(metrics.channel_failures):
        plain[SeriesKey(labels["channel"], labels["model"])][labels["kind"]] += value
    for _, labels, value in _samples(metrics.channel_predictions):
        plain[SeriesKey(labels["channel"], labels["model"])][_OUTCOMES[labels["outcome"]]] += value
    for _, labels, value in _samples(metrics.http_requests):
        if not labels["route"].startswith(_UNCOUNTED_ROUTES):
            plain[SeriesKey(SERVER)][_kind_of_status(labels["status"])] += value
    return {key: _counts(plain[key], cumulative[key]) for key in sorted(plain)[:MOST_SERIES]}


def since(before: Mapping[SeriesKey, Counts], now: Mapping[SeriesKey, Counts]) -> dict[SeriesKey, Counts]:
    """What was counted between two readings; series of which nothing was are left out."""
    grown = {key: counts - before.get(key, NOTHING) for key, counts in now.items()}
    return {key: counts for key, counts in grown.items() if counts != NOTHING}


def _samples(metric: Any) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in metric.collect():
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _counts(plain: Mapping[str, float], cumulative: list[int]) -> Counts:
    latency = (cumulative[0], *(high - low for low, high in pairwise(cumulative)))
    whole = {name: int(value) for name, value in plain.items() if name != "latency_sum_s"}
    return Counts(**whole, latency_sum_s=plain.get("latency_sum_s", 0.0), latency=latency)


def _kind_of_status(status: str) -> str:
    if status == "429":
        return "busy"
    return {"4": "refused", "5": "failed"}.get(status[:1], "answered")
