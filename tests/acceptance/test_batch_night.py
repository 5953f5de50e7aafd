"""`shoplens batch run` and `status` as a scheduler and a person see them: real processes, signals, a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shoplens.batch.entities import ItemState
from tests.acceptance.batch_shop import BatchShop, Forked, tiny_photo

SLOW = {"SHOPLENS_BATCH__COMMIT_ITEMS": "2", "SHOPLENS_THREADS": "1"}


@pytest.fixture(scope="module")
def run() -> Iterator[Forked]:
    """Commands that nothing is done to while they run."""
    forked = Forked()
    yield forked
    forked.close()


@pytest.fixture
def make_shop(tmp_path: Path, run: Forked) -> Iterator[Callable[..., tuple[BatchShop, dict[str, bytes]]]]:
    """Shops whose photos have been brought in; whatever runs in them ends with the test."""
    made: list[BatchShop] = []

    def make(photos: int, **settings: str) -> tuple[BatchShop, dict[str, bytes]]:
        shop = BatchShop(tmp_path, settings).set_up()
        made.append(shop)
        brought = {f"{number}_1.jpg": tiny_photo(number) for number in range(photos)}
        for name, data in brought.items():
            shop.bring(name, data)
        assert 0 == run(shop, "batch", "ingest"), shop.told()
        return shop, brought

    yield make
    for shop in made:
        shop.close()


def status(run: Forked, shop: BatchShop) -> dict[str, Any]:
    """What `shoplens batch status --json` says."""
    return dict(json.loads(said_by(run, shop, "batch", "status", "--json")))


def said_by(run: Forked, shop: BatchShop, *arguments: str) -> str:
    """The output of a command that ends well."""
    before = len(shop.told())
    assert 0 == run(shop, *arguments), shop.told()[before:]
    return shop.told()[before:]


def events(said: str) -> list[str]:
    """The names of the events that a process logged."""
    return [json.loads(line)["event"] for line in said.splitlines() if line.startswith("{")]


def until_it_says(process: subprocess.Popen[str], words: str) -> str:
    """What it logs up to the line with these words, or up to its end."""
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if words in line:
            break
    return said


def until_settled(shop: BatchShop, count: int) -> None:
    """Wait until so many items are settled."""
    with closing(sqlite3.connect(shop.data / "shoplens.db")) as connection:
        while not connection.execute(
            "SELECT count(*) >= ? FROM batch_items WHERE state IN ('done', 'needs_review')", (count,)
        ).fetchone()[0]:
            time.sleep(0.002)


def test_a_night_ends_with_its_counts_and_is_shown_afterwards(run: Forked, make_shop: Callable[..., Any]) -> None:
    """Status 0; JSON for programs, sentences for people, events for the log."""
    shop, brought = make_shop(12)
    night = shop.start("batch", "run", "--json", "--requested-by", "the timer")
    said, logged = night.communicate(timeout=60)
    assert 0 == night.returncode, logged
    done = json.loads(said)["run"]
    assert ("finished", 12, "the timer", 12) == (
        done["state"], done["planned"], done["requested_by"], done["counts"]["done"] + done["counts"]["needs_review"],
    )  # fmt: skip
    assert {"run.started", "run.finished"} <= set(events(logged))
    assert (done["id"], 0) == (status(run, shop)["run"]["id"], status(run, shop)["waiting"])
    assert [] == shop.faults(brought)
    told = said_by(run, shop, "batch", "status")
    assert f"Run {done['id']}: finished." in told
    assert "12 of 12 items settled" in told


@pytest.mark.parametrize(("number", "exit_status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_night_in_good_order(
    run: Forked, make_shop: Callable[..., Any], number: signal.Signals, exit_status: int
) -> None:
    """What is in work is committed, the run is handed over, and the next start finishes it."""
    shop, brought = make_shop(150, **SLOW)
    night = shop.start("batch", "run")
    until_settled(shop, 2)
    night.send_signal(number)
    _, logged = night.communicate(timeout=60)
    assert exit_status == night.returncode, logged
    assert "run.interrupted" in events(logged)
    between = status(run, shop)
    assert ("running", "nobody", True) == (
        between["run"]["state"], between["run"]["owner"]["state"], between["run"]["left"] > 0,
    )  # fmt: skip
    assert Counter() == Counter(item.state for item in shop.items() if item.state is ItemState.PROCESSING)
    assert 0 == run(shop, "batch", "run")
    assert (between["run"]["id"], "finished") == (status(run, shop)["run"]["id"], status(run, shop)["run"]["state"])
    assert [] == shop.faults(brought)


def test_a_killed_night_is_told_as_dead_and_gone_on_with_at_once(run: Forked, make_shop: Callable[..., Any]) -> None:
    """Its process ran on this machine and is no longer there, so nobody has to wait for its silence."""
    shop, brought = make_shop(150, SHOPLENS_BATCH__TAKEOVER_S="3600", **SLOW)
    night = shop.start("batch", "run")
    until_settled(shop, 2)
    night.kill()
    night.communicate()
    assert "gone" == status(run, shop)["run"]["owner"]["state"]
    told = said_by(run, shop, "batch", "status")
    assert f"process {night.pid}" in told
    assert "has ended" in told
    assert 0 == run(shop, "batch", "run")
    assert [] == shop.faults(brought)


def test_two_nights_at_once_are_one(run: Forked, make_shop: Callable[..., Any]) -> None:
    """One works, the others end with status 1 and a sentence, whoever was first."""
    shop, brought = make_shop(200, SHOPLENS_BATCH__TAKEOVER_S="6", **SLOW)
    nights = [shop.start("batch", "run") for _ in range(3)]
    said = [night.communicate(timeout=120)[1] for night in nights]
    statuses = [night.returncode for night in nights]
    # One that started so late that the run was finished has run an empty night of its own.
    assert set(statuses) <= {0, 1}, said
    assert 0 in statuses
    refused = [logged for logged, ended in zip(said, statuses, strict=True) if ended]
    assert [] == [logged for logged in refused if "run_in_progress" not in logged or "Traceback" in logged]
    assert [] == shop.faults(brought)


def test_a_night_that_was_put_to_sleep_writes_nothing_when_it_wakes(run: Forked, make_shop: Callable[..., Any]) -> None:
    """It was silent for too long, so another process took over; it ends with status 1 and changes nothing."""
    shop, brought = make_shop(120, SHOPLENS_BATCH__TAKEOVER_S="0.6", **SLOW)
    sleeper = shop.start("batch", "run")
    until_settled(shop, 2)
    sleeper.send_signal(signal.SIGSTOP)
    assert 0 == run(shop, "batch", "run")
    before = shop.items(), shop.records()
    sleeper.send_signal(signal.SIGCONT)
    _, logged = sleeper.communicate(timeout=60)
    assert 1 == sleeper.returncode, logged
    assert "run_lost" in logged
    assert (before, []) == ((shop.items(), shop.records()), shop.faults(brought))


def test_a_database_that_somebody_else_locks_is_waited_for(run: Forked, make_shop: Callable[..., Any]) -> None:
    """From before the night begins, for longer than a writer waits; then the night runs as if nothing had been."""
    shop, brought = make_shop(10)
    with closing(sqlite3.connect(shop.data / "shoplens.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        night = shop.start("batch", "run")
        before = until_it_says(night, "run.waits")
        other.execute("ROLLBACK")
        _, logged = night.communicate(timeout=60)
    assert (0, True) == (night.returncode, "run.waits" in before), before + logged
    assert [] == shop.faults(brought)


def test_a_full_disk_ends_a_night_that_has_no_patience_and_the_next_goes_on(
    run: Forked, make_shop: Callable[..., Any]
) -> None:
    """A limit on the size of files stands for the disk: commits fail, nothing is half done, the sentence says why."""
    shop, brought = make_shop(120, SHOPLENS_BATCH__RETRY_S="0.5", **SLOW)
    largest = max(path.stat().st_size for path in shop.data.glob("shoplens.db*"))
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest + 100_000}, {largest + 100_000}))\n"
        "from shoplens.cli.app import app\n"
        "app(['batch', 'run'])\n"
    )
    night = subprocess.run(
        [sys.executable, "-c", program], env=shop.environment(), cwd=shop.root, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert 1 == night.returncode, night.stderr
    assert "disk" in night.stderr
    assert "Traceback" not in night.stderr
    assert 0 == run(shop, "batch", "run")
    assert [] == shop.faults(brought)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 16 MB, where this process may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small disk can only be made by an administrator")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_night_on_a_disk_that_is_full_waits_until_there_is_room(run: Forked, small_disk: Path) -> None:
    """Photos and database lie on it; somebody fills it while the night runs, and makes room again."""
    shop = BatchShop(small_disk / "shop", {"SHOPLENS_LOG_DIR": str(small_disk.parent / "logs"), **SLOW}).set_up()
    brought = {f"{number}_1.jpg": tiny_photo(number) for number in range(120)}
    for name, data in brought.items():
        shop.bring(name, data)
    assert 0 == run(shop, "batch", "ingest"), shop.told()
    filler = small_disk / "filler"
    night = shop.start("batch", "run")
    until_settled(shop, 2)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    until_it_says(night, "run.waits")
    filler.unlink()
    _, logged = night.communicate(timeout=100)
    assert 0 == night.returncode, logged
    assert [] == shop.faults(brought)
    shop.close()


def test_the_state_of_returns_stands_in_the_metrics(run: Forked, make_shop: Callable[..., Any]) -> None:
    """The night is a process of its own, so the server tells what the database says."""
    shop, _ = make_shop(5)
    program = (
        "from shoplens.settings import read_settings\n"
        "from shoplens.platform.parts import build_database\nfrom shoplens.platform.batch import read_statuses\n"
        "from shoplens.batch.status import StatusMetrics\n"
        "from shoplens.telemetry.metrics import Metrics\n"
        "settings, metrics = read_settings(), Metrics()\n"
        "metrics.before_scrape(StatusMetrics(read_statuses(settings, build_database(settings)), metrics))\n"
        "print(metrics.exposition().decode())\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], env=shop.environment() | {"PATH": os.environ["PATH"]}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert 'shoplens_batch_waiting{channel="returns"} 5.0' in shown.stdout
