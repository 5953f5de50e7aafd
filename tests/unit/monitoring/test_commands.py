"""`shoplens monitoring show`."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
from typer.testing import CliRunner

from shoplens.cli.app import app
from shoplens.db import open_database
from shoplens.monitoring.entities import Counts, MinuteReading, SeriesKey, ServerState
from shoplens.monitoring.repository import SeriesRepository


def show(folder: Path, *options: str) -> str:
    """What the command prints; its error where it fails. Events that it logs are not among it."""
    done = CliRunner().invoke(app, ["monitoring", "show", "--data-dir", str(folder), *options])
    return done.stderr if done.exit_code else done.stdout


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
    assert ["returns", "clothing", "4", "1", "0", "0", "7.5", "9.8", "10.0"] == printed.splitlines()[1].split()
    assert "A forecast for the disk needs three days of figures" in printed
    found = orjson.loads(show(folder, "--range", "90d", "--json"))
    assert (4, 1_000_000_000) == (found["by_model"][0]["requests"], found["disk"]["free_bytes"])
    assert "Use one of: 1h, 24h, 7d, 90d." in show(folder, "--range", "2y")
