"""The batch checks of doctor, with a real database and a real trigger.log."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shoplens.advice import Caution
from shoplens.batch.doctor import look_at_drop, look_at_ingest, look_at_logs, look_at_run
from shoplens.batch.process import request_run, this_process
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database, open_database, upgrade
from shoplens.errors import Misconfigured, SourceUnavailable
from shoplens.settings import Settings, read_settings
from shoplens.telemetry.trigger_log import trigger_line
from tests.samples import make_item


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a new data folder."""
    monkeypatch.setenv("SHOPLENS_CONFIG", os.devnull)
    return read_settings(data_dir=tmp_path / "data")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """Its database."""
    settings.data_dir.mkdir()
    upgrade(settings.effective_database_url)
    with closing(open_database(settings.effective_database_url)) as opened:
        yield opened


def run_that_began(database: Database, ago: timedelta) -> str:
    """A run of this process, with its last heartbeat that long ago."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item()])
    then = datetime.now(UTC) - ago  # not that of the import, which may be long ago
    run = request_run(database, "returns", "schedule", clock=lambda: then)
    with database.transaction() as tx:
        RunRepository(tx).take_over(run, this_process(0), now=then)
    return run.id


def end(database: Database, run_id: str, ago: timedelta) -> None:
    """Finish it."""
    with database.transaction() as tx:
        owner = RunRepository(tx).get(run_id).owner
        assert owner
        RunRepository(tx).finish(run_id, owner=owner, now=datetime.now(UTC) - ago, report_key=None)


def log_start(settings: Settings, job: str, *, pid: int | None = None, **end: Any) -> None:
    """A start in `trigger.log`, with its end if there is one."""
    settings.effective_log_dir.mkdir(parents=True, exist_ok=True)
    facts = {
        "job": job,
        "by": "schedule",
        "host": socket.gethostname(),
        "pid": pid or os.getpid(),
        "arguments": {"channel": "returns"},
    }
    with (settings.effective_log_dir / "trigger.log").open("ab") as log:
        log.write(trigger_line("trigger.started", "t1", facts) + b"\n")
        if end:
            log.write(trigger_line("trigger.ended", "t1", {**facts, **end}) + b"\n")


def text_of(found: str | Caution) -> str:
    """The text of a result without a warning."""
    assert isinstance(found, str)
    return found


def caution_of(found: str | Caution) -> str:
    """The text of a warning."""
    assert isinstance(found, Caution)
    return found.text


def test_a_new_installation_has_no_warnings(settings: Settings) -> None:
    """And the check creates nothing."""
    assert "yet" in text_of(look_at_logs(settings))
    for look in (look_at_drop, look_at_ingest, look_at_run):
        assert "yet" in text_of(look(settings, "returns"))
    assert not settings.data_dir.exists()


def test_a_drop_folder_is_counted(settings: Settings) -> None:
    """With the folders below it."""
    (settings.data_dir / "drop" / "returns" / "monday").mkdir(parents=True)
    (settings.data_dir / "drop" / "returns" / "monday" / "a.jpg").write_bytes(b"x")
    assert "is readable and writable, with 2 files" in text_of(look_at_drop(settings, "returns"))


def test_a_drop_folder_that_is_a_file_is_refused(settings: Settings) -> None:
    """Like one without permissions."""
    (settings.data_dir / "drop").mkdir(parents=True)
    (settings.data_dir / "drop" / "returns").write_text("no folder")
    with pytest.raises(SourceUnavailable, match="cannot be read and written"):
        look_at_drop(settings, "returns")


def test_a_log_folder_that_cannot_be_written_is_a_fault(settings: Settings) -> None:
    """Also if it cannot be created."""
    settings.data_dir.mkdir()
    (settings.data_dir / "logs").write_text("no folder")
    with pytest.raises(Misconfigured, match=r"app\.log"):
        look_at_logs(settings)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"exit_status": 1}, "failed with status 1"),
        ({"exit_status": 143}, "stopped with status 143"),
    ],
)
@pytest.mark.parametrize(("job", "look"), [("ingest", look_at_ingest), ("run", look_at_run)])
def test_a_failed_start_is_shown_with_its_requester(
    end: dict[str, int], words: str, job: str, look: Callable[[Settings, str], str | Caution], settings: Settings
) -> None:
    """And its exit status."""
    log_start(settings, job, **end)
    assert f"{words}, 0 min ago (via schedule)" in caution_of(look(settings, "returns"))


def test_a_successful_import_is_shown_with_its_counts(settings: Settings) -> None:
    """Those that are not zero."""
    log_start(settings, "ingest", exit_status=0, counts={"taken": 3, "duplicates": 0})
    assert text_of(look_at_ingest(settings, "returns")) == "OK, 0 min ago (via schedule), 3 taken"


def test_an_import_that_was_killed_is_a_warning(settings: Settings) -> None:
    """Its start has no end and its process has ended. With a live process it is running."""
    log_start(settings, "ingest")
    assert "running, started" in text_of(look_at_ingest(settings, "returns"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    log_start(settings, "ingest", pid=gone.pid)
    assert "killed" in caution_of(look_at_ingest(settings, "returns"))


@pytest.mark.parametrize(("hours", "well"), [(25.9, True), (26.1, False)])
def test_a_missing_run_is_a_warning(hours: float, well: bool, settings: Settings, database: Database) -> None:
    """When the last one ended more than 26 hours ago."""
    ago = timedelta(hours=hours)
    end(database, run_that_began(database, ago), ago)
    unplanned = read_settings(data_dir=settings.data_dir, channels={"returns": {"batch": {"schedule": ""}}})
    found = look_at_run(unplanned, "returns")
    assert "finished 26 h ago" in (text_of(found) if well else caution_of(found))
    # With a schedule it is known sooner, and from which time.
    assert "did not begin, and items wait for it" in caution_of(look_at_run(settings, "returns"))


def test_a_start_that_found_nothing_is_no_missing_run(settings: Settings, database: Database) -> None:
    """The schedule works, although the last run is long ago."""
    ago = timedelta(hours=50)
    end(database, run_that_began(database, ago), ago)
    log_start(settings, "run", exit_status=0, counts={"planned": 0})
    assert "finished 50 h ago; nothing waited 0 min ago" == text_of(look_at_run(settings, "returns"))


def test_an_active_run_is_shown(settings: Settings, database: Database) -> None:
    """With its progress."""
    run_id = run_that_began(database, timedelta())
    assert f"run {run_id} is running: 0 of 1" in text_of(look_at_run(settings, "returns"))


def test_a_run_without_heartbeat_is_a_warning(settings: Settings, database: Database) -> None:
    """Longer than `batch.takeover_s`."""
    run_that_began(database, timedelta(minutes=5))
    assert "has no worker; last heartbeat 5 min ago" in caution_of(look_at_run(settings, "returns"))


def test_a_run_without_a_worker_is_a_warning(settings: Settings, database: Database) -> None:
    """It was requested and never started."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item()])
    request_run(database, "returns", "http", clock=lambda: datetime.now(UTC))
    assert "has no worker; 0 of 1" in caution_of(look_at_run(settings, "returns"))


def test_a_stalled_run_is_a_warning(settings: Settings, database: Database) -> None:
    """The process of the run notices that no item finishes."""
    run_id = run_that_began(database, timedelta())
    with database.transaction() as tx:
        owner = RunRepository(tx).get(run_id).owner
        assert owner
        RunRepository(tx).beat(run_id, owner=owner, now=datetime.now(UTC), finished_item=False, stalled=True)
    assert "no item finishes" in caution_of(look_at_run(settings, "returns"))


def test_an_unavailable_database_is_reported_by_another_check(settings: Settings) -> None:
    """The batch checks only say that the state is unknown."""
    settings.data_dir.mkdir()
    (settings.data_dir / "shoplens.db").mkdir()
    assert "unknown" in caution_of(look_at_run(settings, "returns"))
    assert "unknown" in caution_of(look_at_ingest(settings, "returns"))
