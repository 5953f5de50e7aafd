"""The weekly jobs retrain a model from what people said: cron, Jenkins, systemd, and the DAGs on a real Airflow."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from croniter import croniter

from servers.process import free_port
from tests.acceptance.test_schedules import DEPLOY, environment, run_pipeline, shell
from tests.conftest import colourful, jpeg_of
from tests.retraining_home import LABELS, labelled_home

CRON = (DEPLOY / "cron" / "shoplens-retrain.cron").read_text()
AIRFLOW = os.environ.get("SHOPLENS_TEST_AIRFLOW") or shutil.which("airflow")
"""The program of an Airflow 3 in an environment of its own."""
SUNDAY_AT_FOUR = datetime(2026, 11, 22, 4, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, models_dir: Path) -> Path:
    """An installation with labels."""
    return labelled_home(tmp_path / "shop lens", models_dir)


def test_all_weekly_jobs_start_on_sunday_at_four() -> None:
    """cron, systemd, Jenkins and Airflow."""
    (line,) = [line for line in CRON.splitlines() if line[:1].isdigit()]
    times = [" ".join(line.split()[:5])]
    times += re.findall(r"cron\('TZ=[^\\]*\\n([^']*)'\)", (DEPLOY / "jenkins" / "retrain.Jenkinsfile").read_text())
    dags = (DEPLOY / "airflow" / "dags" / "shoplens_dags.py").read_text()
    times += [found for found in re.findall(r'schedule="([^"]*)"', dags) if found.endswith("0")]
    assert 3 == len(times)
    for each in times:
        assert SUNDAY_AT_FOUR == croniter(each, datetime(2026, 11, 16, tzinfo=UTC)).get_next(datetime)
    assert "OnCalendar=Sun *-*-* 04:00" in (DEPLOY / "systemd" / "shoplens-retrain.timer").read_text()


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock of util-linux")
def test_the_command_of_cron_and_the_pipeline_retrain(home: Path, tmp_path: Path) -> None:
    """With the recipe `head` on real photos; the second time nothing is better, and that is no failure."""
    (command,) = re.findall(r"^0 4 \* \* 0\s+shoplens\s+(.+)$", CRON, re.MULTILINE)
    given = {"SHOPLENS_HOME": str(home), "LOCKS": str(tmp_path), "HOME": str(tmp_path)}
    done = shell(command.replace("retrain returns", "retrain colours"), cwd=tmp_path, **given)
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    workspace = tmp_path / "work space"
    workspace.mkdir()
    assert [0, 0] == run_pipeline("retrain", home, workspace, CHANNEL="colours")
    said = json.loads((workspace / "retraining.json").read_text())
    assert ("colours", LABELS, "1.1.0", "waiting") == (
        said["model"],
        said["labels"],
        said["candidate"],
        said["state"],
    )
    assert "Accuracy 100.0%" in (workspace / "retraining.txt").read_text()


@dataclass(frozen=True, kw_only=True)
class Airflow:
    """A real one with the DAGs of `deploy/`, over an installation with photos and labels."""

    home: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        """What a command of Airflow prints."""
        assert AIRFLOW is not None
        done = subprocess.run(
            [AIRFLOW, *arguments], env=self.environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert 0 == done.returncode, done.stdout[-4_000:] + done.stderr[-4_000:]
        return done.stdout

    def shoplens(self, *arguments: str) -> Any:
        """What a command of ours prints as JSON."""
        program = str(self.home / ".venv" / "bin" / "shoplens")
        done = subprocess.run(
            [program, *arguments, "--json"], cwd=self.home, env=environment(), capture_output=True, check=True
        )
        return json.loads(done.stdout)


@pytest.fixture
def airflow(home: Path, tmp_path: Path) -> Airflow:
    """With an empty database of its own."""
    if AIRFLOW is None:
        pytest.skip("needs Airflow 3: set SHOPLENS_TEST_AIRFLOW to its program")
    for number in range(3):
        (home / "data" / "drop" / "returns" / f"order{number}_item.jpg").write_bytes(jpeg_of(colourful(number)))
    port = free_port()
    given = environment(
        PATH=f"{Path(AIRFLOW).parent}:{os.environ['PATH']}",
        AIRFLOW_HOME=str(tmp_path / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(DEPLOY / "airflow" / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="false",
        AIRFLOW__CORE__PARALLELISM="2",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="120",  # seconds; a busy machine answers late
        SHOPLENS_HOME=str(home),
        SHOPLENS_AIRFLOW_NIGHTLY="returns",
        SHOPLENS_AIRFLOW_WEEKLY="colours",
    )
    made = Airflow(home=home, environment=given)
    made("db", "migrate")
    return made


def test_the_dags_run_on_airflow(airflow: Airflow) -> None:
    """ingest, run and report for returns; retrain, gate and promote for the colours, whose model is champion then."""
    airflow("dags", "test", "shoplens_nightly", "2026-11-22")
    airflow("dags", "test", "shoplens_weekly", "2026-11-22", "--conf", '{"approve": true}')
    (run,) = airflow.shoplens("retrain", "status")
    assert ("promoted", "Approved for all models by the weekly DAG.") == (run["state"], run["decided_why"])
    assert 3 == airflow.shoplens("batch", "status")["run"]["planned"]


def test_missed_nights_are_made_up_for_by_a_backfill(airflow: Airflow, tmp_path: Path) -> None:
    """By the scheduler of Airflow, one night after the other; the first has the photos, the others find nothing."""
    assert AIRFLOW is not None
    with (tmp_path / "standalone.log").open("wb") as log:
        standalone = subprocess.Popen(
            [AIRFLOW, "standalone"], env=airflow.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        give_up_at = time.monotonic() + 500
        while "shoplens_nightly" not in airflow("dags", "list", "--output", "json"):
            assert time.monotonic() < give_up_at, (tmp_path / "standalone.log").read_text()[-4_000:]
            time.sleep(2)
        days = ("--from-date", "2026-11-01", "--to-date", "2026-11-03")
        airflow("backfill", "create", "--dag-id", "shoplens_nightly", *days, "--max-active-runs", "1")
        airflow("dags", "unpause", "shoplens_nightly")
        states: list[str] = []
        while ["success", "success"] != states:
            assert "failed" not in states
            assert time.monotonic() < give_up_at, states
            time.sleep(3)
            listed = airflow("dags", "list-runs", "shoplens_nightly", "--output", "plain")
            states = re.findall(r"^shoplens_nightly +backfill__\S+ +(\w+)", listed, re.MULTILINE)
    finally:
        os.killpg(standalone.pid, signal.SIGTERM)
        standalone.wait(60)
    assert 3 == airflow.shoplens("batch", "status")["run"]["planned"]
