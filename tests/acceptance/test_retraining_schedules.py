"""The weekly jobs retrain a model from what people said: cron, Jenkins, systemd, and the DAGs on a real Airflow."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from croniter import croniter

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
    for time in times:
        assert SUNDAY_AT_FOUR == croniter(time, datetime(2026, 11, 16, tzinfo=UTC)).get_next(datetime)
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
    assert [0, 0] == run_pipeline("retrain", home, workspace, CHANNEL="colours", SHOPLENS_RETRAIN="colours")
    said = json.loads((workspace / "retraining.json").read_text())
    assert ("colours", LABELS, "1.1.0", "waiting") == (
        said["model"],
        said["labels"],
        said["candidate"],
        said["state"],
    )
    assert "Accuracy 100.0%" in (workspace / "retraining.txt").read_text()


@pytest.mark.skipif(AIRFLOW is None, reason="needs Airflow 3: set SHOPLENS_TEST_AIRFLOW to its program")
def test_the_dags_run_on_airflow(home: Path, tmp_path: Path) -> None:
    """ingest, run and report for returns; retrain, gate and promote for the colours, whose model is champion then."""
    assert AIRFLOW is not None
    for number in range(3):
        (home / "data" / "drop" / "returns" / f"order{number}_item.jpg").write_bytes(jpeg_of(colourful(number)))
    given = environment(
        AIRFLOW_HOME=str(tmp_path / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(DEPLOY / "airflow" / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="false",
        AIRFLOW__CORE__PARALLELISM="2",
        SHOPLENS_HOME=str(home),
        SHOPLENS_RETRAIN="colours",
    )

    def airflow(*arguments: str) -> str:
        done = subprocess.run(
            [AIRFLOW, *arguments], env=given, capture_output=True, text=True, timeout=500, check=False
        )
        assert 0 == done.returncode, done.stdout[-4_000:] + done.stderr[-4_000:]
        return done.stdout + done.stderr

    airflow("db", "migrate")
    airflow("dags", "test", "shoplens_nightly", "2026-11-22")
    airflow("dags", "test", "shoplens_weekly", "2026-11-22", "--conf", '{"approve": true}')
    program = str(home / ".venv" / "bin" / "shoplens")
    listed = subprocess.run(
        [program, "retrain", "status", "--json"], cwd=home, env=environment(), capture_output=True, check=True
    )
    (run,) = json.loads(listed.stdout)
    assert ("promoted", "Approved for all models by the weekly DAG.") == (run["state"], run["decided_why"])
    status = subprocess.run(
        [program, "batch", "status", "--json"], cwd=home, env=environment(), capture_output=True, check=True
    )
    assert 3 == json.loads(status.stdout)["run"]["planned"]
