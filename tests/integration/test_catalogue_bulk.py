"""Bulk acceptances that are killed: nothing is lost, nothing is decided twice, and the next process goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoplens.catalogue.entities import BulkJob, ProductState
from shoplens.catalogue.products import NewProduct
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database, open_database
from shoplens.platform.catalogue import open_stored
from shoplens.settings import Settings, read_settings
from tests.support.fusion import write_fusion_bundle

CHANNEL = "catalogue"
MANY = 6_000
_SUGGESTED = (
    "UPDATE catalogue_products SET state = 'suggested', score = 0.97, answer = 'Colours > Red', revision = 1, "
    "suggestions = '[[\"Colours > Red\", 0.97]]', suggested_at = created_at, model = 'paint@1.0.0', tree = 0"
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A shop with very many sure suggestions; also for the processes that a test starts."""
    write_fusion_bundle(tmp_path / "models")
    for name, value in {
        "DATA_DIR": str(tmp_path / "data"), "MODELS_DIR": str(tmp_path / "models"), "DEFAULT_CHANNEL": CHANNEL,
        "CHANNELS__CATALOGUE__MODEL": "paint", "CHANNELS__CATALOGUE__CATALOGUE": "{}",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SHOPLENS_{name}", value)
    settings = read_settings()
    new = [NewProduct(reference=f"A-{number}", designation="red thing") for number in range(MANY)]
    with open_stored(settings) as catalogue:
        catalogue.products.save_many(CHANNEL, new)
    with closing(open_database(settings.effective_database_url)) as database, database.transaction() as tx:
        tx.exec_driver_sql(_SUGGESTED)
    return settings


def command(*arguments: str) -> subprocess.Popen[bytes]:
    """`shoplens catalogue accept` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "shoplens", "catalogue", "accept", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def killed_after(process: subprocess.Popen[bytes], database: Database, done: int) -> None:
    """Kill it when it has committed so many in all."""
    give_up_at = time.monotonic() + 60
    while True:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < give_up_at
        with database.reading() as tx:
            found = tx.exec_driver_sql("SELECT max(done) FROM catalogue_bulk_jobs WHERE active = 1").scalar() or 0
        if found >= done:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_an_acceptance_that_is_killed_goes_on_and_decides_each_product_once(settings: Settings) -> None:
    """By `kill -9`: first the same command goes on, then the start of a server; so does taking it back."""
    with closing(open_database(settings.effective_database_url)) as database:
        killed_after(command("--above", "0.9"), database, 500)
        killed_after(command("--above", "0.9"), database, 1_000)
        with open_stored(settings) as catalogue:
            assert 1 == catalogue.bulk.resume()
            (job,) = catalogue.bulk.newest(CHANNEL)
            assert (MANY, MANY) == _ended(catalogue.bulk.wait(job, 60))
            assert MANY == catalogue.products.count(ProductFilter(channel=CHANNEL, state=ProductState.ACCEPTED))
        with database.reading() as tx:
            made = Counter(row[0] for row in tx.exec_driver_sql("SELECT product_id FROM catalogue_decisions"))
        assert (MANY, {1}) == (len(made), set(made.values()))
        killed_after(command("--undo", job.id), database, 500)
    process = command("--undo", job.id, "--json")
    output, _ = process.communicate(timeout=60)
    undone = json.loads(output)
    assert (0, job.id, undone["planned"]) == (process.returncode, undone["undoes"], undone["done"])
    with open_stored(settings) as catalogue:
        assert MANY == catalogue.products.count(ProductFilter(channel=CHANNEL, state=ProductState.SUGGESTED))
        assert 0 == catalogue.bulk.standing(job.id)


def _ended(job: BulkJob) -> tuple[int, int]:
    """How many were planned and done by a job that has ended well."""
    assert job.finished_at is not None
    assert job.finished_at <= datetime.now(UTC)
    assert job.error is None
    return job.planned, job.done
