"""`shoplens retrain cancel`, and what `retrain` asks for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import orjson
from typer.testing import CliRunner

from shoplens.accounts.audit import AuditLog
from shoplens.cli.app import app
from shoplens.db import open_database
from shoplens.retraining.entities import RetrainingRun, RetrainingState, Stage
from shoplens.retraining.repository import RetrainingRepository
from tests.conftest import add_database
from tests.samples import moment


def test_a_cancelled_retraining_is_in_the_audit_log(tmp_path: Path) -> None:
    """Also one whose process is not there yet. Cancelling it again is refused with a sentence."""
    folder = add_database(tmp_path / "data")
    run = RetrainingRun(
        id="r" * 26, created_at=moment(1), channel="returns", model="clothing", requested_by="anna", recipe="head",
        base=None, test=None, promote="after_approval", dry_run=False, state=RetrainingState.RUNNING,
        stage=Stage.TRAINING, candidate="1.1.0",
    )  # fmt: skip
    with closing(open_database(f"sqlite:///{folder / 'shoplens.db'}")) as database:
        with database.transaction() as tx:
            RetrainingRepository(tx).add(run)
        options = ["--json", "--data-dir", str(folder)]
        done = CliRunner().invoke(app, ["retrain", "cancel", "last", *options])
        assert done.exit_code == 0, done.output
        assert ("failed", "cancelled") == tuple(orjson.loads(done.stdout)[name] for name in ("state", "failure_code"))
        (entry,) = AuditLog(database, clock=lambda: moment(2)).all()
        assert ("retraining.cancelled", run.id) == (entry.action, entry.target)
        again = CliRunner().invoke(app, ["retrain", "cancel", run.id, *options])
        assert again.exit_code != 0
        assert "has ended already" in again.output


def test_a_channel_must_be_named(tmp_path: Path) -> None:
    """Where no retraining is named that goes on."""
    done = CliRunner().invoke(app, ["retrain", "run", "--data-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "shoplens retrain CHANNEL" in done.output
