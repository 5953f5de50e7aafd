"""`shoplens monitoring show` and `accuracy`."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from typer.testing import CliRunner

from shoplens.cli.app import app
from shoplens.db import open_database
from shoplens.monitoring.series.entities import Counts, MinuteReading, SeriesKey, ServerState
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.predictions.entities import Feedback, FeedbackValue
from shoplens.predictions.policy import Decision, Outcome
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from tests.samples import id_at, make_record


def show(folder: Path, *options: str) -> str:
    """What the command prints; its error where it fails. Events that it logs are not among it."""
    done = CliRunner().invoke(app, ["monitoring", "show", "--data-dir", str(folder), *options])
    return done.stderr if done.exit_code else done.stdout if "--json" in options else done.output


def test_the_figures_are_a_table_or_json(database_file: Path) -> None:
    """With the disk in a sentence; a database without figures says so, and so does a range that is none."""
    folder = database_file.parent
    assert "Nothing was written down yet." in show(folder)
    counts = {SeriesKey("returns", "clothing"): Counts(answered=3, refused=1, latency=(0, 0, 3, *(0,) * 13))}
    database = open_database(f"sqlite:///{database_file}")
    with database.transaction() as tx:
        reading = MinuteReading(begins_s=int(time.time()), counts=counts, state=ServerState(disk_free_bytes=10**9))
        SeriesRepository(tx).add([reading])
    database.close()
    printed = show(folder, "--range", "1h")
    assert "returns\tclothing\t4\t1\t0\t0\t7.5\t9.8\t10.0" in printed.splitlines()
    assert "A forecast for the disk needs three days of figures" in printed
    found = orjson.loads(show(folder, "--range", "90d", "--json"))
    assert (4, 1_000_000_000) == (found["by_model"][0]["requests"], found["disk"]["free_bytes"])
    assert "Use one of: 1h, 24h, 7d, 90d." in show(folder, "--range", "2y")


def test_the_accuracy_is_a_table_or_json(database_file: Path) -> None:
    """Of what was decided in the last days: not known before random checks were answered, then with its interval."""
    now = datetime.now(UTC)

    def accuracy(*options: str) -> Any:
        folder = str(database_file.parent)
        return CliRunner().invoke(app, ["monitoring", "accuracy", "--data-dir", folder, *options])

    assert "Nothing was decided in the last 7 days." in accuracy("--days", "7").output
    records = []
    for number in range(40):
        at = now - timedelta(hours=1) + timedelta(seconds=number)
        decision = Decision(outcome=Outcome.REVIEW, policy_version="1", check_share=0.1)
        records.append(make_record(id=id_at(at), created_at=at, channel="returns", decision=decision))
    with closing(open_database(f"sqlite:///{database_file}")) as database, database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
    unknown = accuracy("--channel", "returns")
    assert "Not known yet for returns: fewer than 10 random checks" in unknown.stderr
    with closing(open_database(f"sqlite:///{database_file}")) as database, database.transaction() as tx:
        for number, record in enumerate(records):
            verdict = FeedbackValue.WRONG if number == 0 else FeedbackValue.RIGHT
            said = Feedback(
                id=id_at(now + timedelta(seconds=number)), created_at=now, prediction_id=record.id, verdict=verdict
            )
            FeedbackRepository(tx).add(said)
    channel, _, right, low, high, checks, answered, *_ = accuracy("--channel", "returns").stdout.split("\t")
    assert ("returns", "0.975", "40", "40") == (channel, right, checks, answered)
    assert 0.8 < float(low) < 0.975 < float(high) < 1
    (found,) = orjson.loads(accuracy("--channel", "returns", "--json").stdout)
    assert (0.975, 40) == (found["automatic"]["value"], found["checks_answered"])
    assert "is not a period of accuracy" in accuracy("--days", "3").stderr
    assert "--goal must lie above 0" in accuracy("--goal", "1").stderr
