"""`shoplens runs list|show|watch|cancel` beside a run that works in a process of its own."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shoplens.batch.entities import ItemState
from shoplens.batch.process import this_process
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.db import open_database
from tests.acceptance.batch_shop import BatchShop, tiny_photo
from tests.commands import RunningCommand, run_command, start_command

PHOTOS = 400
SLOW = {"SHOPLENS_BATCH__COMMIT_ITEMS": "2", "SHOPLENS_THREADS": "1"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchShop]:
    """A shop with photos that wait."""
    made = BatchShop(tmp_path_factory.mktemp("shop"), SLOW).set_up()
    for number in range(PHOTOS):
        made.bring(f"{number}_1.jpg", tiny_photo(number))
    assert "" == said(made, "batch", "ingest", "--json")[1]
    yield made
    made.close()


def said(shop: BatchShop, *arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command wrote to standard output and what it said of errors; log events are left out."""
    done = run_command(*arguments, environment=shop.environment(), folder=shop.root)
    assert status == done.returncode, done.stderr
    return done.stdout, "".join(line for line in done.stderr.splitlines(True) if not line.startswith("{"))


def begun(shop: BatchShop, name: str, *arguments: str) -> RunningCommand:
    """A command in the background whose output is in the file `name`."""
    return start_command(*arguments, environment=shop.environment(), folder=shop.root, log=shop.root / name)


def until(shop: BatchShop, done: int) -> dict[str, Any]:
    """The newest run, once so many of its items are done; one that was cancelled before does not count."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        runs = json.loads(said(shop, "runs", "list", "--json")[0])
        if runs and runs[0]["state"] != "cancelled" and runs[0]["done"] >= done:
            return dict(runs[0])
    raise AssertionError("the run does not proceed")


def test_a_run_in_a_process_is_watched_and_cancelled(shop: BatchShop) -> None:
    """What is done stays done, the rest waits for the next run, the process ends, and both commands say so."""
    worker = begun(shop, "run.txt", "batch", "run")
    run = until(shop, 4)
    assert ("running", "photos", "returns", PHOTOS) == tuple(
        run[key] for key in ("state", "kind", "channel", "planned")
    )
    watcher = begun(shop, "watch.txt", "runs", "watch")
    asked = said(shop, "runs", "cancel", run["id"], status=1)  # nobody answers
    assert "Not confirmed, so nothing was done." in asked[1]
    told = said(shop, "runs", "cancel", "--channel", "returns", "--yes")[0]
    assert f"The run {run['id']} of returns is cancelled." in told
    assert f"Its process ({worker.pid} on " in told
    assert (4, 1) == (worker.wait(60), watcher.wait(60))
    assert "error (run_lost): " in (shop.root / "run.txt").read_text()
    watched = (shop.root / "watch.txt").read_text().splitlines()
    assert f"{run['id']} returns: running, " in watched[0]
    assert f"{run['id']} returns: cancelled, " in watched[-1]
    assert sorted(set(watched)) == sorted(watched)
    states = Counter(item.state for item in shop.items())
    shown = json.loads(said(shop, "runs", "show", "--json")[0])
    assert ("cancelled", PHOTOS - shown["done"]) == (shown["state"], states[ItemState.WAITING])
    assert 0 < shown["done"] < PHOTOS
    facts = dict(line.split("\t") for line in said(shop, "runs", "show")[0].splitlines())
    assert (run["id"], "cancelled", str(PHOTOS)) == (facts["run"], facts["state"], facts["planned"])
    again = said(shop, "runs", "cancel", run["id"], "--yes")[0]
    assert again == f"The run {run['id']} was cancelled already; nothing changed.\n"


def test_a_run_that_finishes_ends_the_watch_with_status_0(shop: BatchShop) -> None:
    """The run after the cancelled one does the rest, and the list has both."""
    worker = begun(shop, "second.txt", "batch", "run")
    until(shop, 1)
    lines = said(shop, "runs", "watch", "--json")[0].splitlines()
    assert 0 == worker.wait(60)
    assert ("finished", 0) == (json.loads(lines[-1])["state"], json.loads(lines[-1])["left"])
    listed = [line.split("\t") for line in said(shop, "runs", "list")[0].splitlines()]
    assert ["finished", "cancelled"] == [row[3] for row in listed]
    assert PHOTOS == sum(int(row[6]) for row in listed)
    assert "No run is active" in said(shop, "runs", "cancel", status=3)[1]


def test_runs_over_products_are_listed_watched_and_cancelled_too(shop: BatchShop, tmp_path: Path) -> None:
    """One whose process has ended is shown as interrupted, and the watch says how it goes on."""
    now = datetime.now(UTC) - timedelta(minutes=1)
    run = CatalogueRun(
        id="zz-products", channel="catalogue", created_at=now, requested_by="the timer", planned=10, suggested=3,
        failed=1, started_at=now,
    )  # fmt: skip
    with closing(open_database(shop.database_url)) as database, database.transaction() as tx:
        CatalogueRunRepository(tx).add(run)
    watched, why = said(shop, "runs", "watch", "zz-products", status=1)
    assert "zz-products catalogue: interrupted, 4 of 10 products, 3 suggested, 1 failed\n" == watched
    assert "hint: `shoplens catalogue run --run zz-products` goes on with it." in why
    with closing(open_database(shop.database_url)) as database, database.transaction() as tx:
        CatalogueRunRepository(tx).take_over(run, this_process(0), now=now)
    told = said(shop, "runs", "cancel", "--yes")[0]
    assert "4 products are done and stay done; 6 stay as they were." in told
    (row,) = said(shop, "runs", "list", "--channel", "catalogue")[0].splitlines()
    assert ["zz-products", "catalogue", "products", "cancelled"] == row.split("\t")[:4]
