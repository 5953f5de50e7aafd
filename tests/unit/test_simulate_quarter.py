"""The example that simulates a quarter of a shop: rows as the server writes them, with the events that it names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.simulate_quarter import NEW_MODEL, main, simulate
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.monitoring.entities import DAY_S, HOUR_S
from shoplens.monitoring.repository import DayRepository, SeriesRepository
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
NOW_S = int(NOW.timestamp()) // HOUR_S * HOUR_S


def test_records_runs_days_and_series_tell_the_same(database: Database) -> None:
    """Three weeks with the power cut: its hours are a gap in the series."""
    written = simulate(database, days=21, seed=1, now=NOW)
    with database.reading() as tx:
        days = DayRepository(tx).between(0, NOW_S)
        hours = SeriesRepository(tx).states(step_s=HOUR_S, bucket_s=HOUR_S, since_s=0, until_s=NOW_S)
        runs = RunRepository(tx).page("returns", limit=100)
        newest = PredictionRepository(tx).page(RecordFilter(channel="returns"), limit=1)[0]
    assert written.records == sum(each.predictions for each in days)
    assert written.runs == len(runs) >= 21
    assert 21 * 24 - 7 == len(hours)
    assert 21 <= NEW_MODEL
    assert ("1.1.0", None) == (newest.model.version, newest.image_key)
    assert 0.5 < sum(each.confirmed for each in days) / sum(each.confirmed + each.corrected for each in days) < 0.95
    assert {True} == {each.begins_s % DAY_S == 0 for each in days}


def test_a_database_with_records_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated records could not be told from real ones."""
    monkeypatch.setenv("SHOPLENS_DATA_DIR", str(tmp_path))
    assert (0, 1) == (main(["--days", "1"]), main(["--days", "1"]))
    said = capsys.readouterr()
    assert "None of it happened." in said.out
    assert "has records already" in said.err
