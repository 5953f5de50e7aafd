"""The example that simulates a quarter of a shop: rows as the server writes them, with the events that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.simulate_quarter import main
from shoplens.batch.run_repository import RunRepository
from shoplens.db import open_database
from shoplens.monitoring.entities import HOUR_S
from shoplens.monitoring.repository import DayRepository, SeriesRepository
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.repository import PredictionRepository

FAR_S = 1 << 40


def test_records_runs_days_and_series_tell_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three weeks with the power cut, whose hours are a gap; a database with records is left alone."""
    monkeypatch.setenv("SHOPLENS_DATA_DIR", str(tmp_path))
    assert (0, 1) == (main(["--days", "21"]), main(["--days", "1"]))
    said = capsys.readouterr()
    assert "None of it happened." in said.out
    assert "has records already" in said.err
    database = open_database(f"sqlite:///{tmp_path}/shoplens.db")
    with database.reading() as tx:
        days = DayRepository(tx).between(0, FAR_S)
        hours = SeriesRepository(tx).states(step_s=HOUR_S, bucket_s=HOUR_S, since_s=0, until_s=FAR_S)
        runs = RunRepository(tx).page("returns", limit=100)
        newest = PredictionRepository(tx).page(RecordFilter(channel="returns"), limit=1)[0]
    database.close()
    assert f"Wrote {sum(each.predictions for each in days):,} simulated records" in said.out
    assert f"{len(runs):,} runs" in said.out
    assert 21 * 24 - 7 == len(hours)
    assert ("1.1.0", None) == (newest.model.version, newest.image_key)
    assert 0.5 < sum(each.confirmed for each in days) / sum(each.confirmed + each.corrected for each in days) < 0.95
