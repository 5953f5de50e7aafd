"""The commands on PostgreSQL: it works, and a fault in the address ends in one sentence without the password."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from servers.postgres import running_postgres
from tests.commands import run_command, status_said
from tests.conftest import running_server

Run = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "hush-hush"


@pytest.fixture
def run(tmp_path: Path, models_dir: Path) -> Run:
    """Run `shoplens …` with this database; the time that it may take is bounded."""

    def run_shoplens(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
        environment |= {
            "SHOPLENS_DATA_DIR": str(tmp_path / "data"),
            "SHOPLENS_MODELS_DIR": str(models_dir),
            "SHOPLENS_DATABASE_URL": database_url,
        }
        return run_command(*arguments, environment=environment, folder=tmp_path, timeout_s=60)

    return run_shoplens


def test_upgrade_then_serve_and_its_database_restarts(run: Run, tmp_path: Path, models_dir: Path, photo: bytes) -> None:
    """A server needs a migrated database, uses it, is not ready while it is unreachable, and recovers."""
    folder = tmp_path / "postgres"
    with running_postgres(folder) as first:
        early = run(first.url, "serve", "--port", "0")
        upgraded = run(first.url, "db", "upgrade")
        with running_server(tmp_path / "data", models_dir, database_url=first.url) as server:
            assert 200 == classify(server.url, photo).status_code
            first.kill()
            away = httpx.get(f"{server.url}/health/ready", timeout=60)
            refused = classify(server.url, photo)
            with running_postgres(folder, port=first.port):
                again = classify(server.url, photo)
                ready = httpx.get(f"{server.url}/health/ready", timeout=60)
                records = httpx.get(f"{server.url}/predictions.csv", timeout=60).text.splitlines()
            log = server.log.read_text()
    assert (status_said(early.stderr), 0) == (early.returncode, upgraded.returncode), upgraded.stderr
    assert "has no tables yet; run `shoplens db upgrade`" in early.stderr
    assert (503, 503, 200, 200) == tuple(each.status_code for each in (away, refused, again, ready))
    assert 1 + 2 == len(records)
    assert not [text for text in (away.text, refused.text, log) if first.password in text]


def classify(url: str, photo: bytes) -> httpx.Response:
    """Send a photo."""
    return httpx.post(f"{url}/predict", content=photo, timeout=30)


@pytest.mark.parametrize("command", [("doctor",), ("serve", "--port", "0"), ("db", "upgrade"), ("batch", "status")])
def test_a_wrong_password_is_reported_and_no_password_is_shown(
    run: Run, postgres_database: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    """Which setting, why, and what to do, in one sentence and within seconds."""
    url = make_url(postgres_database).set(password=SECRET).render_as_string(hide_password=False)
    began = time.monotonic()
    done = run(url, *command)
    output = " ".join((done.stdout + done.stderr).split())
    expected = 1 if command == ("doctor",) else status_said(done.stderr)
    assert (expected, True) == (done.returncode, time.monotonic() - began < 30)
    assert "refused the user or the password; correct them in the setting database_url" in output
    assert "Traceback" not in output
    logs = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in output + logs


def test_an_address_that_cannot_be_read_is_not_repeated(run: Run) -> None:
    """It may be the password that makes it unreadable."""
    done = run(f"postgresql://shop:{SECRET}@db/x@host:54a/shop", "db", "upgrade")
    assert status_said(done.stderr) == done.returncode
    assert "The setting database_url cannot be read" in done.stderr
    assert SECRET not in done.stderr
