"""`shoplens users` beside a running server: the first admin, roles, links and disabling, all noticed within seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.commands import run_command, status_said
from tests.conftest import RunningServer, running_server

PASSWORD = "seven green bottles"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server without accounts. The tests of this file are one story: each goes on where the one before ended."""
    with running_server(tmp_path_factory.mktemp("fresh"), models_dir) as server:
        yield server


def users(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`shoplens users …` on the data of this server."""
    environment = {**os.environ, "SHOPLENS_DATA_DIR": str(server.data_dir)}
    return run_command("users", *arguments, environment=environment, folder=server.data_dir)


def token(server: RunningServer, name: str) -> httpx.Response:
    """Sign in as a program."""
    return httpx.post(f"{server.url}/auth/token", data={"username": name, "password": PASSWORD})


def status_becomes(server: RunningServer, headers: dict[str, str], wanted: int) -> bool:
    """Whether a request gets this status within seconds: two on a machine that has nothing else to do."""
    give_up_at = time.monotonic() + 15
    while time.monotonic() < give_up_at:
        if wanted == httpx.get(f"{server.url}/predictions", headers=headers).status_code:
            return True
        time.sleep(0.05)
    return False


def test_the_first_person_must_be_an_admin(fresh: RunningServer) -> None:
    """Anybody else could not add people, and the system would be closed."""
    done = users(fresh, "add", "carla", "--role", "clerk", "--link")
    assert status_said(done.stderr) == done.returncode
    assert "The first person must be an admin" in done.stderr
    assert "Nobody has an account." in users(fresh, "list").stderr
    assert status_becomes(fresh, {}, 200)


def test_an_admin_with_a_password_from_standard_input_closes_the_system(fresh: RunningServer) -> None:
    """Within seconds, without a restart."""
    done = subprocess.run(
        [sys.executable, "-m", "shoplens", "users", "add", "Anna", "--role", "admin", "--password-stdin"],
        input=f"{PASSWORD}\n",
        env={**os.environ, "SHOPLENS_DATA_DIR": str(fresh.data_dir)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Added anna as admin.\n" == done.stdout
    assert status_becomes(fresh, {}, 401)
    headers = {"authorization": f"Bearer {token(fresh, 'anna').json()['access_token']}"}
    assert status_becomes(fresh, headers, 200)


def test_without_a_terminal_a_link_is_printed(fresh: RunningServer) -> None:
    """It sets the password once."""
    done = users(fresh, "add", "bela", "--role", "viewer")
    found = re.search(r"^http://127\.0\.0\.1:\d+(/reset/\S+)$", done.stdout, re.MULTILINE)
    assert "set public_url to it" in done.stderr
    assert found is not None
    fields = {"password": PASSWORD, "again": PASSWORD}
    statuses = [
        httpx.post(f"{fresh.url}{found[1]}", data=fields, headers={"origin": fresh.url}).status_code for _ in range(2)
    ]
    assert [303, 404] == statuses
    assert 200 == token(fresh, "bela").status_code


def test_a_disabled_person_is_out_within_seconds_and_may_come_back(fresh: RunningServer) -> None:
    """Also with a token that was valid a moment ago."""
    headers = {"authorization": f"Bearer {token(fresh, 'bela').json()['access_token']}"}
    assert status_becomes(fresh, headers, 200)
    assert 0 == users(fresh, "disable", "bela").returncode
    assert status_becomes(fresh, headers, 401)
    assert 401 == token(fresh, "bela").status_code
    users(fresh, "enable", "bela")
    assert 200 == token(fresh, "bela").status_code


def test_people_are_listed_with_role_and_state(fresh: RunningServer) -> None:
    """As a table and as JSON, without secrets."""
    users(fresh, "role", "bela", "moderator")
    rows = json.loads(users(fresh, "list", "--json").stdout)
    assert [("anna", "admin", "active"), ("bela", "moderator", "active")] == [
        (row["name"], row["role"], row["state"]) for row in rows
    ]
    assert "argon2" not in json.dumps(rows)
    assert "moderator" in users(fresh, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("disable", "anna"), "anna is the last admin"),
        (("role", "anna", "viewer"), "anna is the last admin"),
        (("reset", "nobody"), "There is nobody with the name"),
        (("add", "bela", "--link"), "There is somebody with the name"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(fresh: RunningServer, arguments: tuple[str, ...], said: str) -> None:
    """And the status of its kind."""
    done = users(fresh, *arguments)
    assert status_said(done.stderr) == done.returncode
    assert said in done.stderr


def test_the_audit_log_names_who_ran_the_command(fresh: RunningServer) -> None:
    """The user of the system."""
    environment = {**os.environ, "SHOPLENS_DATA_DIR": str(fresh.data_dir)}
    done = run_command("audit", "export", "--format", "jsonl", environment=environment, folder=fresh.data_dir)
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    added = next(entry for entry in entries if entry["action"] == "person.added")
    assert ("anna", {"role": "admin"}) == (added["target"], added["details"])
    assert added["actor_name"].endswith("on the command line")
    assert {"session.opened", "person.disabled", "person.role_changed", "password.link_made"} <= {
        entry["action"] for entry in entries
    }
