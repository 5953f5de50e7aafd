"""The jobs of Shoplens for Airflow 3: returns and catalogue every night, retraining every week.

Each task runs a command of the installation in `SHOPLENS_HOME` (default /srv/shoplens). A command that is repeated
continues what was interrupted and does nothing twice, so tasks are tried again without asking, and missed nights can be
made up for, here those from the 1st to the 7th (the DAG must not be paused):
`airflow backfill create --dag-id shoplens_nightly --from-date 2026-11-01 --to-date 2026-11-08 --max-active-runs 1`.

SHOPLENS_AIRFLOW_NIGHTLY    channels that are imported and classified at night, with commas between (default returns)
SHOPLENS_AIRFLOW_WEEKLY     channels whose models are retrained (default returns)
SHOPLENS_AIRFLOW_ALERT_URL  where a failed task is reported by a POST of JSON; unset: Airflow alone knows
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

HOME = os.environ.get("SHOPLENS_HOME", "/srv/shoplens")
ALERT_URL = os.environ.get("SHOPLENS_AIRFLOW_ALERT_URL", "")
NIGHTLY = [name.strip() for name in os.environ.get("SHOPLENS_AIRFLOW_NIGHTLY", "returns").split(",") if name.strip()]
WEEKLY = [name.strip() for name in os.environ.get("SHOPLENS_AIRFLOW_WEEKLY", "returns").split(",") if name.strip()]


def alert(context: dict[str, Any]) -> None:
    """Report a task that failed for good; a report that does not arrive fails nothing."""
    instance = context["task_instance"]
    what = {
        "dag": instance.dag_id,
        "task": instance.task_id,
        "run": context["run_id"],
        "error": str(context.get("exception")),
    }
    print(f"shoplens alert: {json.dumps(what)}")
    if ALERT_URL.startswith(("http://", "https://")):
        request = urllib.request.Request(ALERT_URL, json.dumps(what).encode(), {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as fault:
            print(f"The alert did not arrive: {fault}")


def shoplens(*arguments: str, hours: float) -> dict[str, Any]:
    """What `shoplens … --json` says. Raises CalledProcessError, after which the task is tried again."""
    command = [f"{HOME}/.venv/bin/shoplens", *arguments, "--json"]
    done = subprocess.run(command, cwd=HOME, stdout=subprocess.PIPE, timeout=hours * 3600, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


EVERY_TASK: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(minutes=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(hours=1),
    "on_failure_callback": alert,
}


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=EVERY_TASK,
    tags=["shoplens"],
    doc_md="Imports the photos that arrived, classifies what waits, and writes the report.",
)
def shoplens_nightly() -> None:
    """ingest → run → report, for each channel."""

    @task
    def ingest(channel: str) -> str:
        """Import what arrived."""
        shoplens("batch", "ingest", "--channel", channel, "--requested-by", "airflow", hours=2)
        return channel

    @task
    def run(channel: str) -> str:
        """Classify what waits; the id of the run, empty where nothing waited."""
        said = shoplens("batch", "run", "--channel", channel, "--requested-by", "airflow", hours=5)
        return (said["run"] or {}).get("id", "")

    @task
    def report(batch_run: str) -> None:
        """Write the report into the store, and fail where it says that items are in quarantine."""
        if not batch_run:
            print("Nothing waited, so there was no run.")
            return
        subprocess.run([f"{HOME}/.venv/bin/shoplens", "batch", "report", batch_run], cwd=HOME, check=True, timeout=3600)

    report.expand(batch_run=run.expand(channel=ingest.expand(channel=NIGHTLY)))


@dag(
    schedule="0 4 * * 0",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=EVERY_TASK,
    params={"approve": Param(False, type="boolean", description="Let a model that passed the gate go live at once.")},
    tags=["shoplens"],
    doc_md="Trains each model again from what people said; one that is better waits for a yes, or goes live as set.",
)
def shoplens_weekly() -> None:
    """retrain → gate → promote, for each channel."""

    @task(pool="default_pool")
    def retrain(channel: str) -> dict[str, Any]:
        """Train, test, judge and publish."""
        said = shoplens("retrain", channel, hours=8)
        return {name: said[name] for name in ("id", "channel", "model", "candidate", "state", "passed", "accuracy")}

    @task
    def gate(made: dict[str, Any]) -> dict[str, Any]:
        """Print why a model was refused. A refused model is no failure: the present one stays."""
        shown = shoplens("retrain", "report", made["id"], hours=0.1)
        for check in (shown["report"] or {"verdict": {"checks": []}})["verdict"]["checks"]:
            print(f"{'passed' if check['passed'] else 'REFUSED'}: {check['sentence']}")
        return made

    @task
    def promote(made: dict[str, Any]) -> None:
        """With the parameter `approve`: make a model that waits champion."""
        approves = get_current_context()["params"]["approve"]
        if made["state"] == "waiting" and approves:
            shoplens("retrain", "approve", made["id"], "--why", "Approved for all models by the weekly DAG.", hours=0.1)
        print(f"{made['model']}@{made['candidate']} is {'approved' if approves else made['state']}.")

    promote.expand(made=gate.expand(made=retrain.expand(channel=WEEKLY)))


shoplens_nightly()
shoplens_weekly()
