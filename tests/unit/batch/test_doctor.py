"""What the doctor says of returned goods, from a real database and a real log of starts."""

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

from shoplens.batch.doctor import Caution, look_at_drop, look_at_ingest, look_at_logs, look_at_run
from shoplens.batch.process import request_run, this_process
from shoplens.db import Database, open_database, upgrade
from shoplens.errors import Misconfigured, SourceUnavailable
from shoplens.settings import Settings, read_settings
from shoplens.telemetry.trigger_log import trigger_line


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a system of its own."""
    monkeypatch.setenv("SHOPLENS_CONFIG", str(tmp_path / "none.toml"))
    return read_settings(data_dir=tmp_path / "data")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """Its database."""
    settings.data_dir.mkdir()
    upgrade(settings.effective_database_url)
    with closing(open_database(settings.effective_database_url)) as opened:
        yield opened


def run_that_began(database: Database, ago: timedelta) -> str:
    """A run that this process works on, with its last sign of life as long ago."""
    then = datetime.now(UTC) - ago  # not that of the import, which may be long ago
    run = request_run(database, "returns", "schedule", clock=lambda: then)
    with database.uow() as work:
        work.batch_runs.take_over(run, this_process(0), now=then)
    return run.id


def end(database: Database, run_id: str, ago: timedelta) -> None:
    """Finish it."""
    with database.uow() as work:
        owner = work.batch_runs.get(run_id).owner
        assert owner
        work.batch_runs.finish(run_id, owner=owner, now=datetime.now(UTC) - ago, report_key=None)


def log_start(settings: Settings, job: str, *, pid: int | None = None, **end: Any) -> None:
    """A start in `trigger.log`, and its end where it has one."""
    settings.effective_log_dir.mkdir(parents=True, exist_ok=True)
    facts = {"job": job, "by": "schedule", "host": socket.gethostname(), "pid": pid or os.getpid()}
    with (settings.effective_log_dir / "trigger.log").open("ab") as log:
        log.write(trigger_line("trigger.started", "t1", facts) + b"\n")
        if end:
            log.write(trigger_line("trigger.ended", "t1", {**facts, **end}) + b"\n")


def text_of(found: str | Caution) -> str:
    """What is said, where nobody needs to look."""
    assert isinstance(found, str)
    return found


def caution_of(found: str | Caution) -> str:
    """What is said, where somebody should look."""
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
    assert "can be read and emptied; it has 2 files" in text_of(look_at_drop(settings, "returns"))


def test_a_drop_folder_that_is_a_file_is_refused(settings: Settings) -> None:
    """As one that this account may not empty would be."""
    settings.data_dir.mkdir()
    (settings.data_dir / "drop" / "returns").write_text("no folder")
    with pytest.raises(SourceUnavailable, match="cannot be read and emptied"):
        look_at_drop(settings, "returns")


def test_a_log_folder_that_cannot_be_written_is_a_fault(settings: Settings) -> None:
    """Also where it only cannot be made."""
    settings.data_dir.mkdir()
    (settings.data_dir / "logs").write_text("no folder")
    with pytest.raises(Misconfigured, match=r"app\.log"):
        look_at_logs(settings)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"exit_status": 1}, "failed with status 1"),
        ({"exit_status": 143}, "was stopped with status 143"),
    ],
)
@pytest.mark.parametrize(("job", "look"), [("ingest", look_at_ingest), ("run", look_at_run)])
def test_a_failed_start_is_shown_with_its_requester(
    end: dict[str, int], words: str, job: str, look: Callable[[Settings, str], str | Caution], settings: Settings
) -> None:
    """And its exit status."""
    log_start(settings, job, **end)
    assert f"by schedule; it {words}" in caution_of(look(settings, "returns"))


def test_a_successful_import_is_shown_with_its_counts(settings: Settings) -> None:
    """Those that are not zero."""
    log_start(settings, "ingest", exit_status=0, counts={"taken": 3, "duplicates": 0})
    assert text_of(look_at_ingest(settings, "returns")).endswith("ended well: 3 taken")


def test_an_ingest_that_was_killed_is_told(settings: Settings) -> None:
    """Its start has no end and its process is gone; while that lives, it is at work."""
    log_start(settings, "ingest")
    assert "at work" in text_of(look_at_ingest(settings, "returns"))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    log_start(settings, "ingest", pid=gone.pid)
    assert "killed" in caution_of(look_at_ingest(settings, "returns"))


@pytest.mark.parametrize(("hours", "well"), [(25.9, True), (26.1, False)])
def test_a_night_that_is_missing_is_told(hours: float, well: bool, settings: Settings, database: Database) -> None:
    """When the last one ended more than 26 hours ago."""
    ago = timedelta(hours=hours)
    end(database, run_that_began(database, ago), ago)
    found = look_at_run(settings, "returns")
    assert "the last one ended 26 h ago" in (text_of(found) if well else caution_of(found))


def test_a_night_at_work_is_told(settings: Settings, database: Database) -> None:
    """With how far it is."""
    run_id = run_that_began(database, timedelta())
    assert f"run {run_id} is at work: 0 of 0" in text_of(look_at_run(settings, "returns"))


def test_a_run_without_a_sign_of_life_is_told(settings: Settings, database: Database) -> None:
    """Longer than `batch.takeover_s`."""
    run_that_began(database, timedelta(minutes=5))
    assert "no sign of life since 5 min ago" in caution_of(look_at_run(settings, "returns"))


def test_a_run_that_nobody_works_on_is_told(settings: Settings, database: Database) -> None:
    """It was requested and never taken up."""
    request_run(database, "returns", "http", clock=lambda: datetime.now(UTC))
    assert "no sign of life; 0 of 0" in caution_of(look_at_run(settings, "returns"))


def test_a_run_that_lives_and_stands_still_is_told(settings: Settings, database: Database) -> None:
    """The night itself notices that no item comes to an end."""
    run_id = run_that_began(database, timedelta())
    with database.uow() as work:
        owner = work.batch_runs.get(run_id).owner
        assert owner
        work.batch_runs.beat(run_id, owner=owner, now=datetime.now(UTC), finished_item=False, stalled=True)
    assert "no item comes to an end" in caution_of(look_at_run(settings, "returns"))


def test_a_database_that_is_away_is_another_findings_matter(settings: Settings) -> None:
    """Here it is only not known."""
    settings.data_dir.mkdir()
    (settings.data_dir / "shoplens.db").mkdir()
    assert "not known" in caution_of(look_at_run(settings, "returns"))
    assert "not known" in caution_of(look_at_ingest(settings, "returns"))
