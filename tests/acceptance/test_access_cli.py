"""A running server and the command line: the first person, keys, the audit log, and where the server may listen."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM, Role
from shoplens.db import Database
from shoplens.platform.accounts import Accounts, build_accounts
from shoplens.platform.parts import build_database, utc_now
from shoplens.settings import Settings, read_settings
from tests.commands import run_command
from tests.conftest import RunningServer, running_server

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    """Of a system in a folder of its own."""
    return read_settings(data_dir=tmp_path / "data", models_dir=models_dir)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """Its database, as another process has it."""
    opened = build_database(settings)
    yield opened
    opened.close()


@pytest.fixture
def accounts(settings: Settings, database: Database) -> Accounts:
    """Its people."""
    return build_accounts(settings, database, AuditLog(database, clock=utc_now))


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Run:
    """Run `shoplens …` on it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_DATA_DIR": str(settings.data_dir)}
    return lambda *arguments: run_command(*arguments, environment=environment, folder=tmp_path)


@pytest.fixture
def server(settings: Settings, models_dir: Path, database: Database) -> Iterator[RunningServer]:
    """A server over it."""
    del database  # made first
    with running_server(settings.data_dir, models_dir) as started:
        yield started


def wait_until(expected: int, get: Callable[[], httpx.Response]) -> None:
    """Until the status is the expected one: within two seconds on a machine that has nothing else to do."""
    give_up_at = time.monotonic() + 15
    while get().status_code != expected:
        assert time.monotonic() < give_up_at, get().text
        time.sleep(0.05)


def test_a_running_server_notices_the_first_person_and_every_key(
    server: RunningServer, accounts: Accounts, run: Run
) -> None:
    """Within seconds, also a key that is made or revoked. Its log names who asks."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert 200 == client.get("/models").status_code
        refused = run("keys", "create", "review form", "--scope", "models:read")
        assert "There is no person yet" in refused.stderr
        accounts.people.add("anna", Role.ADMIN, by=SYSTEM)
        wait_until(401, lambda: client.get("/models"))
        made = run("keys", "create", "review form", "--scope", "models:read", "--per-minute", "600", "--days", "30")
        assert 0 == made.returncode, made.stderr
        key = made.stdout.strip()
        signed = {"authorization": f"Bearer {key}"}
        assert 200 == client.get("/models", headers=signed).status_code
        assert 403 == client.get("/predictions", headers=signed).status_code
        [listed] = json.loads(run("keys", "list", "--json").stdout)
        assert (key[: len(listed["prefix"])], "models:read", 600) == (
            listed["prefix"],
            listed["scopes"],
            listed["per_minute"],
        )
        assert listed["last_used_at"] is not None
        assert key not in run("keys", "list").stdout
        assert 0 == run("keys", "revoke", listed["prefix"]).returncode
        wait_until(401, lambda: client.get("/models", headers=signed))
    answered = [each for each in server.events() if each["event"] == "request.answered"]
    assert {"local", listed["id"]} <= {each.get("who") for each in answered}
    assert not any(key in json.dumps(each) for each in server.events())


def test_with_an_account_the_server_listens_to_every_address(
    settings: Settings, models_dir: Path, accounts: Accounts
) -> None:
    """And stays closed when nobody can sign in any more; the address of the metrics' reader is let in."""
    anna = accounts.people.add("anna", Role.ADMIN, by=SYSTEM)
    with closing(
        sqlite3.connect(settings.data_dir / "shoplens.db")
    ) as connection:  # no admin can be disabled as the last
        connection.execute("UPDATE people SET disabled_at = '2026-01-01 00:00:00' WHERE id = ?", (anna.id,))
        connection.commit()
    opened = {"allowed_hosts": "*", "metrics_open_to": "127.0.0.0/8"}
    with running_server(settings.data_dir, models_dir, "--host", "0.0.0.0", **opened) as started:
        port = started.url.rpartition(":")[2]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert 401 == client.get("/models").status_code
            assert 200 == client.get("/metrics").status_code
            assert 200 == client.get("/health/ready").status_code


def test_the_audit_log_is_verified_and_exported(
    run: Run, accounts: Accounts, settings: Settings, tmp_path: Path
) -> None:
    """A removed end shows beside what the last verification noted; so does a changed entry."""
    for name in ("anna", "berta", "carla"):
        accounts.people.add(name, Role.ADMIN, by=SYSTEM)
    whole = run("audit", "verify")
    assert (0, True) == (whole.returncode, "3 entries" in whole.stdout)
    exported = run("audit", "export", "--output", str(tmp_path / "audit.csv"))
    assert 0 == exported.returncode, exported.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "audit.csv").read_text())))
    assert ["person.added"] * 3 + ["audit.exported"] == [row["action"] for row in rows]
    assert 5 == len(run("audit", "export", "--format", "jsonl").stdout.splitlines())

    def change(statement: str) -> subprocess.CompletedProcess[str]:
        with closing(sqlite3.connect(settings.data_dir / "shoplens.db")) as connection:
            connection.execute(statement)
            connection.commit()
        return run("audit", "verify")

    assert 0 == run("audit", "verify").returncode
    shorter = change("DELETE FROM audit_log WHERE seq = 5")
    assert (1, True) == (shorter.returncode, "entries were removed from the end" in shorter.stdout)
    changed = change("UPDATE audit_log SET actor_name = 'x' WHERE seq = 2")
    assert (1, True) == (changed.returncode, "Entry 2 was changed" in changed.stdout)


def test_the_guide_to_keys_works_as_written(server: RunningServer, settings: Settings, tmp_path: Path) -> None:
    """Its commands as one script, on this server and its data."""
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "use-api-keys.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)).replace("http://127.0.0.1:8000", server.url)
    program = f'shoplens() {{ {sys.executable} -m shoplens "$@"; }}\n{script}'
    environment = {**os.environ, "SHOPLENS_DATA_DIR": str(settings.data_dir)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert json.loads((tmp_path / "key.json").read_text())["key"].startswith("slk_")
    actions = [json.loads(line)["action"] for line in (tmp_path / "audit-all.jsonl").read_text().splitlines()]
    assert {"key.created", "key.revoked", "audit.exported", "person.added"} <= set(actions)
    assert "The audit log is whole" in done.stdout
