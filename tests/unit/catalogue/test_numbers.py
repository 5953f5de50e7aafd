"""The numbers of a catalogue on both databases: counts by confidence, accuracy of what people decided, and weeks."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from shoplens.catalogue.decisions import DecisionService
from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.numbers.charts import coverage_chart
from shoplens.catalogue.numbers.service import NumberService, Week
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from tests.unit.catalogue.products import (
    ANNA,
    CHANNEL,
    START,
    Clock,
    add,
    bulk_service,
    decision_service,
    product_service,
    suggested,
)

SCORES = (("A-1", "apple", 0.95), ("A-2", "pear", 0.29), ("A-3", "shirt", 1.0), ("A-4", "apple", 0.8))


@pytest.fixture
def products(database: Database, tmp_path: Path) -> ProductService:
    """Four products with suggestions, and one without."""
    service = product_service(database, tmp_path)
    for reference, category, score in SCORES:
        suggested(database, add(service, reference, reference), category, score)
    add(service, "A-5", "Unknown")
    return service


def test_the_curve_counts_what_a_bulk_acceptance_would_accept(products: ProductService, database: Database) -> None:
    """At each hundredth, also where a score lies on it and its binary form a little below."""
    numbers = NumberService(database, clock=Clock()).of(CHANNEL)
    assert 5 == numbers.total
    assert {ProductState.NEW: 1, ProductState.SUGGESTED: 4, ProductState.ACCEPTED: 0, ProductState.CORRECTED: 0} == (
        numbers.states
    )
    with bulk_service(database) as bulk:
        expected = [bulk.count(ProductFilter(channel=CHANNEL, min_score=point.at_least)) for point in numbers.curve]
    assert expected == [point.waiting for point in numbers.curve]
    assert (4, 3, 1) == tuple(numbers.at(at_least).products for at_least in (0.29, 0.3, 1.0))


def test_accuracy_is_of_what_people_decided_one_by_one(products: ProductService, database: Database) -> None:
    """A bulk acceptance agrees with every suggestion and says nothing; what was undone does not count."""
    decisions: DecisionService = decision_service(database)
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    decisions.decide(CHANNEL, "A-2", by=ANNA, category="apple")
    decisions.decide(CHANNEL, "A-3", by=ANNA, category="apple")
    decisions.undo(CHANNEL, "A-3", by=ANNA)
    with bulk_service(database) as bulk:
        done = bulk.run(ProductFilter(channel=CHANNEL, min_score=0.8), by=ANNA)
        assert 2 == done.done == bulk.standing(done.id)
    service = NumberService(database, clock=Clock())
    numbers = service.of(CHANNEL)
    low, high = numbers.at(0.2), numbers.at(0.9)
    assert (4, 0, 2, 1, 0.5) == (low.products, low.waiting, low.decided, low.right, low.accuracy)
    assert (2, 0, 1, 1, 1.0) == (high.products, high.waiting, high.decided, high.right, high.accuracy)
    assert numbers.at(1.0).accuracy is None


def test_weeks_begin_on_monday_and_the_newest_comes_first(products: ProductService, database: Database) -> None:
    """The tests' clock begins on a Monday."""
    clock = Clock()
    decisions = decision_service(database, clock)
    decisions.decide(CHANNEL, "A-1", by=ANNA)
    clock.now = START + timedelta(days=6)
    decisions.decide(CHANNEL, "A-2", by=ANNA, category="apple")
    clock.now = START + timedelta(days=7)
    decisions.decide(CHANNEL, "A-3", by=ANNA)
    monday = date(2026, 3, 2)
    assert (
        Week(start=monday + timedelta(days=7), decided=1, accepted=1),
        Week(start=monday, decided=2, accepted=1),
    ) == NumberService(database, clock=clock).of(CHANNEL).weeks


def test_the_chart_draws_coverage_from_all_to_the_surest(products: ProductService, database: Database) -> None:
    """An accuracy of too few decisions is not drawn."""
    chart = coverage_chart(NumberService(database, clock=Clock()).of(CHANNEL), 0.8)
    ((coverage, tone),) = chart.lines
    assert ("accent", ("100%", "25%", "–")) == (tone, chart.rows[100])
    assert coverage.startswith("M0.0 0.0L")
    assert coverage.endswith(f" 1000.0 {chart.height * 0.75:.1f}")
    assert "3 products from 80% on" in chart.summary
