"""`trigger.log` has every start of an import or a run with its end, however the process ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shoplens.telemetry.trigger_log import ENDED, STARTED, last_triggers

PROGRAM = """
import signal, sys
import structlog
import typer
from shoplens.cli.process import logged_job
from shoplens.errors import SourceUnavailable
from shoplens.settings import read_settings
from shoplens.telemetry.logs import bind_process_fields
job, what = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests themselves run without it
arguments = {"channel": "returns", "source": "drop"}
with logged_job(read_settings(), command=job, job=job, by="schedule", arguments=arguments) as trigger:
    trigger.run_id = "run-7"
    bind_process_fields(run="run-7")
    trigger.counts.update({"taken": 3})
    structlog.get_logger().info("photo.taken", request_id="r1")
    print("at work", flush=True)
    exec(what)
"""
WAIT = "import threading; threading.Event().wait(60)"


def start(folder: Path, what: str = "", *, job: str = "ingest") -> subprocess.Popen[str]:
    """A process whose job executes `what`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_DATA_DIR": str(folder), "SHOPLENS_CONFIG": os.devnull}
    command = [sys.executable, "-c", PROGRAM, job, what]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lines(folder: Path, name: str = "trigger.log") -> list[dict[str, Any]]:
    """What a log has."""
    return [json.loads(line) for line in (folder / "logs" / name).read_text().splitlines()]


def test_a_start_and_its_end_are_two_lines(tmp_path: Path) -> None:
    """The second has requester, arguments, outcome, counts and duration."""
    process = start(tmp_path)
    process.communicate(timeout=250)
    started, ended = lines(tmp_path)
    assert 0 == process.returncode
    assert (STARTED, ENDED) == (started["event"], ended["event"])
    assert started["trigger"] == ended["trigger"]
    for line in (started, ended):
        assert ("ingest", "schedule", {"channel": "returns", "source": "drop"}) == (
            line["job"],
            line["by"],
            line["arguments"],
        )
        assert process.pid == line["pid"]
    assert ("done", 0, {"taken": 3}, "run-7") == tuple(ended[k] for k in ("outcome", "exit_status", "counts", "run"))
    assert 0 <= ended["duration_s"] < 60


def test_the_events_of_a_start_are_found_by_its_id_and_by_its_run(tmp_path: Path) -> None:
    """In `app.log`, beside those of every other process."""
    start(tmp_path).communicate(timeout=250)
    start(tmp_path, job="run").communicate(timeout=250)
    events = lines(tmp_path, "app.log")
    ids = {line["trigger"] for line in lines(tmp_path)}
    assert 2 == len(ids)
    assert ids == {event["trigger"] for event in events}
    taken = [event for event in events if event["event"] == "photo.taken"]
    assert [("run-7", "r1", "ingest"), ("run-7", "r1", "run")] == [
        (event["run"], event["request_id"], event["command"]) for event in taken
    ]


@pytest.mark.parametrize(
    ("what", "status", "ended"),
    [
        ("raise SourceUnavailable('gone')", 1, ("failed", {"code": "source_unavailable", "text": "gone"})),
        ("raise ValueError('broken')", 1, ("failed", {"code": "ValueError", "text": "broken"})),
        ("sys.exit(0)", 0, ("done", None)),
        ("sys.exit(3)", 3, ("failed", None)),
        ("sys.exit('no')", 1, ("failed", None)),
        ("sys.exit()", 0, ("done", None)),
        ("sys.exit(143)", 143, ("stopped", None)),
    ],
)
def test_the_end_has_the_outcome_and_the_exit_status(
    what: str, status: int, ended: tuple[str, Any], tmp_path: Path
) -> None:
    """With the status that the process had."""
    process = start(tmp_path, what)
    process.communicate(timeout=250)
    last = lines(tmp_path)[-1]
    assert status == process.returncode
    assert (*ended, status) == (last["outcome"], last.get("error"), last["exit_status"])


def test_the_exit_of_a_command_is_its_status(tmp_path: Path) -> None:
    """Commands end with typer.Exit, which `exit_status` reads."""
    start(tmp_path, "raise typer.Exit(143)").communicate(timeout=250)
    assert ("stopped", 143) == tuple(lines(tmp_path)[-1][key] for key in ("outcome", "exit_status"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_as_the_end(number: signal.Signals, tmp_path: Path) -> None:
    """The line is written, and the process still ends by its signal."""
    process = start(tmp_path, WAIT)
    assert process.stdout
    assert "at work\n" == process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=250)
    assert -number == process.returncode
    assert ("stopped", 128 + number) == tuple(lines(tmp_path)[-1][key] for key in ("outcome", "exit_status"))


def test_a_killed_process_leaves_its_start(tmp_path: Path) -> None:
    """So that the missing end can be seen."""
    start(tmp_path).communicate(timeout=250)
    process = start(tmp_path, WAIT)
    assert process.stdout
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=250)
    last = last_triggers(tmp_path / "logs")["returns", "ingest"]
    assert process.pid == last.pid
    assert None is last.ended_at


def test_the_last_start_of_each_job_is_found(tmp_path: Path) -> None:
    """Also beyond a rotation and between lines that are damaged."""
    start(tmp_path).communicate(timeout=250)
    log = tmp_path / "logs" / "trigger.log"
    log.rename(log.with_name("trigger.log.1"))
    start(tmp_path, "sys.exit(4)", job="run").communicate(timeout=250)
    log.write_text(log.read_text() + '{"half\nnull\n{"event": "trigger.started"}\n')
    found = last_triggers(tmp_path / "logs")
    assert {("returns", "ingest"), ("returns", "run")} == found.keys()
    assert (0, {"taken": 3}) == (found["returns", "ingest"].exit_status, found["returns", "ingest"].counts)
    assert 4 == found["returns", "run"].exit_status
    assert found["returns", "run"].ended_at
    assert timedelta() <= found["returns", "run"].ended_at - found["returns", "run"].started_at < timedelta(minutes=1)


def test_nothing_was_started_where_there_is_no_log(tmp_path: Path) -> None:
    """No folder is no fault."""
    assert {} == last_triggers(tmp_path / "logs")


def test_a_log_folder_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path) -> None:
    """One warning on standard error, and the status of the work."""
    (tmp_path / "logs").write_text("a file")
    process = start(tmp_path)
    out, err = process.communicate(timeout=250)
    assert (0, "at work\n") == (process.returncode, out)
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert 1 == events.count("log_file.unwritable")
    assert "photo.taken" in events


def test_rows_that_come_and_go_hardly_cause_a_full_collection() -> None:
    """Each keeps all threads waiting. In a process of its own: thresholds belong to the whole process."""
    program = """
import gc
from shoplens.cli.process import collect_all_rarely
collect_all_rarely()
before = gc.get_stats()[2]["collections"]
for _ in range(30):
    rows = [[number] for number in range(20_000)]
print(gc.get_stats()[2]["collections"] - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 1
