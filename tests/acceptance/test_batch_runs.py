"""`shoplens batch run` and `status` with real processes, signals and a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
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
from shoplens.db.sqlite import driver as sqlite3
from tests.acceptance.batch_shop import BatchShop, Forked, tiny_photo
from tests.commands import status_said

SLOW = {"SHOPLENS_BATCH__COMMIT_ITEMS": "2", "SHOPLENS_THREADS": "1"}


@pytest.fixture(scope="module")
def run() -> Iterator[Forked]:
    """Commands that are not interrupted."""
    forked = Forked()
    yield forked
    forked.close()


@pytest.fixture
def make_shop(tmp_path: Path, run: Forked) -> Iterator[Callable[..., tuple[BatchShop, dict[str, bytes]]]]:
    """Shops with imported photos; their processes end with the test."""
    made: list[BatchShop] = []

    def make(photos: int, **settings: str) -> tuple[BatchShop, dict[str, bytes]]:
        shop = BatchShop(tmp_path, settings).set_up()
        made.append(shop)
        brought = {f"{number}_1.jpg": tiny_photo(number) for number in range(photos)}
        for name, data in brought.items():
            shop.bring(name, data)
        assert 0 == run(shop, "batch", "ingest"), shop.output()
        return shop, brought

    yield make
    for shop in made:
        shop.close()


def status(run: Forked, shop: BatchShop) -> dict[str, Any]:
    """What `shoplens batch status --json` says."""
    return dict(json.loads(said_by(run, shop, "batch", "status", "--json")))


def said_by(run: Forked, shop: BatchShop, *arguments: str) -> str:
    """The output of a command that succeeds."""
    before = len(shop.output())
    assert 0 == run(shop, *arguments), shop.output()[before:]
    return shop.output()[before:]


def events(said: str) -> list[str]:
    """The names of the events that a process logged."""
    return [json.loads(line)["event"] for line in said.splitlines() if line.startswith("{")]


def until_it_says(process: subprocess.Popen[str], words: str) -> str:
    """Its log up to the line with these words, or to the end."""
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if words in line:
            break
    return said


def until_settled(shop: BatchShop, count: int) -> None:
    """Wait until this many items are classified."""
    with closing(sqlite3.connect(shop.data / "shoplens.db")) as connection:
        while not connection.execute(
            "SELECT count(*) >= ? FROM batch_items WHERE state IN ('done', 'needs_review')", (count,)
        ).fetchone()[0]:
            time.sleep(0.002)


def test_a_run_ends_with_its_counts_and_is_shown_afterwards(run: Forked, make_shop: Callable[..., Any]) -> None:
    """Status 0; JSON for programs, sentences for people, events for the log."""
    shop, brought = make_shop(12)
    process = shop.start("batch", "run", "--json", "--requested-by", "the timer")
    said, logged = process.communicate(timeout=60)
    assert 0 == process.returncode, logged
    done = json.loads(said)["run"]
    assert ("finished", 12, "the timer", 12) == (
        done["state"], done["planned"], done["requested_by"], done["counts"]["done"] + done["counts"]["needs_review"],
    )  # fmt: skip
    assert {"run.started", "run.finished"} <= set(events(logged))
    assert (done["id"], 0) == (status(run, shop)["run"]["id"], status(run, shop)["waiting"])
    assert [] == shop.faults(brought)
    output = said_by(run, shop, "batch", "status")
    assert f"Run {done['id']}: finished." in output
    assert "Received 12: " in output


@pytest.mark.parametrize(("number", "exit_status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_run_in_good_order(
    run: Forked, make_shop: Callable[..., Any], number: signal.Signals, exit_status: int
) -> None:
    """The items in work are committed, the run is released, and the next start finishes it."""
    shop, brought = make_shop(150, **SLOW)
    process = shop.start("batch", "run")
    until_settled(shop, 2)
    process.send_signal(number)
    _, logged = process.communicate(timeout=60)
    assert exit_status == process.returncode, logged
    assert "run.interrupted" in events(logged)
    between = status(run, shop)
    assert ("running", "nobody", True) == (
        between["run"]["state"], between["run"]["owner"]["state"], between["run"]["left"] > 0,
    )  # fmt: skip
    assert Counter() == Counter(item.state for item in shop.items() if item.state is ItemState.PROCESSING)
    assert 0 == run(shop, "batch", "run")
    assert (between["run"]["id"], "finished") == (status(run, shop)["run"]["id"], status(run, shop)["run"]["state"])
    assert [] == shop.faults(brought)


def test_a_killed_run_is_shown_as_dead_and_resumed_at_once(run: Forked, make_shop: Callable[..., Any]) -> None:
    """Its process ran on this machine and has ended, so the next one does not watch the heartbeat."""
    shop, brought = make_shop(150, SHOPLENS_BATCH__TAKEOVER_S="3600", **SLOW)
    process = shop.start("batch", "run")
    until_settled(shop, 2)
    process.kill()
    process.communicate()
    assert "gone" == status(run, shop)["run"]["owner"]["state"]
    output = said_by(run, shop, "batch", "status")
    assert f"process {process.pid}" in output
    assert "has ended" in output
    assert 0 == run(shop, "batch", "run")
    assert [] == shop.faults(brought)


def test_of_three_runs_at_once_one_works(run: Forked, make_shop: Callable[..., Any]) -> None:
    """The others end with status 4 and a message."""
    shop, brought = make_shop(200, SHOPLENS_BATCH__TAKEOVER_S="6", **SLOW)
    processes = [shop.start("batch", "run") for _ in range(3)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    statuses = [process.returncode for process in processes]
    # One that started so late that the run was finished has made an empty run of its own.
    assert set(statuses) <= {0, 4}, said
    assert 0 in statuses
    refused = [logged for logged, ended in zip(said, statuses, strict=True) if ended]
    assert [] == [logged for logged in refused if "run_in_progress" not in logged or "Traceback" in logged]
    assert [] == shop.faults(brought)


def suspend(process: subprocess.Popen[str], shop: BatchShop) -> None:
    """Stop a process, but not in a transaction: it would keep the database's lock, and others would wait for it."""
    while True:
        process.send_signal(signal.SIGSTOP)
        # Its threads go on for a moment, and might begin one.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with closing(sqlite3.connect(shop.data / "shoplens.db", timeout=0.2)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.01)
            else:
                return


def test_a_suspended_run_writes_nothing_when_it_continues(run: Forked, make_shop: Callable[..., Any]) -> None:
    """It wrote no heartbeat, so another process took the run over; it ends with status 4 and changes nothing."""
    shop, brought = make_shop(120, SHOPLENS_BATCH__TAKEOVER_S="0.6", **SLOW)
    sleeper = shop.start("batch", "run")
    until_settled(shop, 2)
    suspend(sleeper, shop)
    assert 0 == run(shop, "batch", "run")
    before = shop.items(), shop.records()
    sleeper.send_signal(signal.SIGCONT)
    _, logged = sleeper.communicate(timeout=60)
    assert 4 == sleeper.returncode, logged
    assert "run_lost" in logged
    assert (before, []) == ((shop.items(), shop.records()), shop.faults(brought))


def test_a_run_waits_for_a_database_that_another_process_locks(run: Forked, make_shop: Callable[..., Any]) -> None:
    """From before its start, for longer than a writer waits; then it succeeds."""
    shop, brought = make_shop(10)
    with closing(sqlite3.connect(shop.data / "shoplens.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process = shop.start("batch", "run")
        before = until_it_says(process, "run.waits")
        other.execute("ROLLBACK")
        _, logged = process.communicate(timeout=60)
    assert (0, True) == (process.returncode, "run.waits" in before), before + logged
    assert [] == shop.faults(brought)


def test_a_full_disk_ends_a_run_that_does_not_wait_and_the_next_start_resumes(
    run: Forked, make_shop: Callable[..., Any]
) -> None:
    """A limit on the size of files stands for the disk: commits fail as a whole, and the message has the reason."""
    shop, brought = make_shop(120, SHOPLENS_BATCH__RETRY_S="0.5", **SLOW)
    largest = max(path.stat().st_size for path in shop.data.glob("shoplens.db*"))
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest + 100_000}, {largest + 100_000}))\n"
        "from shoplens.cli.app import app\n"
        "app(['batch', 'run'])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], env=shop.environment(), cwd=shop.root, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert status_said(process.stderr) == process.returncode, process.stderr
    assert "disk" in process.stderr
    assert "Traceback" not in process.stderr
    assert 0 == run(shop, "batch", "run")
    assert [] == shop.faults(brought)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 16 MB, if this process may create one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small disk can only be made by an administrator")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_run_on_a_full_disk_waits_for_space(run: Forked, small_disk: Path) -> None:
    """Photos and database are on it; another program fills it during the run, and frees it again."""
    shop = BatchShop(small_disk / "shop", {"SHOPLENS_LOG_DIR": str(small_disk.parent / "logs"), **SLOW}).set_up()
    brought = {f"{number}_1.jpg": tiny_photo(number) for number in range(120)}
    for name, data in brought.items():
        shop.bring(name, data)
    assert 0 == run(shop, "batch", "ingest"), shop.output()
    filler = small_disk / "filler"
    process = shop.start("batch", "run")
    until_settled(shop, 2)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    until_it_says(process, "run.waits")
    filler.unlink()
    _, logged = process.communicate(timeout=100)
    assert 0 == process.returncode, logged
    assert [] == shop.faults(brought)
    shop.close()


def test_the_metrics_show_the_state_of_a_channel(run: Forked, make_shop: Callable[..., Any]) -> None:
    """A run is a process of its own, so the server shows what is in the database."""
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
