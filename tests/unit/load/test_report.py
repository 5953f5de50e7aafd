"""The tables of a load test."""

from __future__ import annotations

from typing import Any

import pytest

from load.report import Journey, Outcome, markdown


def entry(name: str, times: dict[str, int], *, failures: int = 0, method: str = "POST") -> dict[str, Any]:
    """What Locust writes of one kind of request."""
    return {
        "name": name,
        "method": method,
        "start_time": 100.0,
        "last_request_timestamp": 110.0,
        "num_requests": sum(times.values()),
        "num_failures": failures,
        "response_times": times,
    }


COUNTED = [
    entry("/predict 1 MP", {"20": 98, "30": 1, "400": 1}),
    entry("/predict 1 MP refused", {"2": 7}),
    entry("/predict 4 MP", {"50": 20}, failures=2),
    entry("/view_db", {"9": 10}, method="GET"),
]


@pytest.fixture
def outcome() -> Outcome:
    """Ten seconds with two workers."""
    cpu_s = {"web server": 3.0, "worker 1": 9.0, "clients (Locust)": 1.0}
    return Outcome.of(COUNTED, workers="2", cpu_s=cpu_s, wall_s=13.0)


def test_refusals_are_counted_separately_and_are_in_no_percentile(outcome: Outcome) -> None:
    """A refusal is quick, and would make the answers look so."""
    [one, *_] = [each for each in outcome.journeys if each.name == "POST /predict 1 MP"]
    assert (100, 0, 7) == (one.requests, one.failures, one.refusals)
    assert (20, 30, 400) == (one.percentile_ms(0.5), one.percentile_ms(0.99), one.percentile_ms(1))


def test_only_right_answers_count_as_throughput(outcome: Outcome) -> None:
    """Of all sizes of photos together, from the first request to the last."""
    assert 10.0 == outcome.seconds
    assert 11.8 == outcome.per_second(outcome.uploads)
    assert (130, 2, 7) == (outcome.total.requests, outcome.total.failures, outcome.total.refusals)


def test_a_journey_of_refusals_has_no_percentiles() -> None:
    """Rather than a division by nothing."""
    counted = [entry("/predict 1 MP refused", {"2": 7})]
    outcome = Outcome.of(counted, workers="1", cpu_s={}, wall_s=1.0)
    assert "| POST /predict 1 MP | 1 | 0.0 | – | – | – | 7 | 0 |" in markdown([outcome])


def test_a_report_without_requests_has_no_figures() -> None:
    """As when the time was over before the first answer."""
    outcome = Outcome.of([], workers="1", cpu_s={}, wall_s=1.0)
    assert Journey(name="all") == outcome.total
    assert "| 1 | 0.0 | 0.0 | – | – | – | 0 | 0 | 0.00 |" in markdown([outcome])


def test_the_tables_have_a_line_for_each_number_of_workers(outcome: Outcome) -> None:
    """Sums, journeys, processes."""
    text = markdown([outcome, outcome])
    assert 2 == text.count("| 2 | 12.8 | 11.8 | 20 | 50 | 50 | 7 | 2 | 1.00 |")
    assert 2 == text.count("| GET /view_db | 2 | 1.0 | 9 | 9 | 9 | 0 | 0 |")
    assert 2 == text.count("| 2 | worker 1 | 9.0 | 69 % |")
