"""A shop that has grown: web server, model workers, Valkey and PostgreSQL as processes that tests may kill."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from servers.postgres import RunningPostgres, running_postgres
from servers.process import free_port, stop
from servers.shoplens import start_shoplens, wait_for
from servers.valkey import RunningValkey, running_valkey
from shoplens.db import upgrade

ONLY_LOOK = """
[channels.look]
model = "efficientnet-lite0-int8"
keep = "nothing"
[channels.reviews]
model = "efficientnet-lite0-int8"
labels = {}
[channels.returns]
model = "efficientnet-lite0-int8"
"""


@dataclass
class ProcessFleet:
    """Below one folder. Each `start_…` waits until the process answers; what was started is ended with the block."""

    root: Path
    models_dir: Path
    with_postgres: bool = True
    settings: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.redis_port, self.web_port = free_port(), free_port()
        self.postgres_port = free_port()
        (self.root / "shoplens.toml").write_text(ONLY_LOOK)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.worker_ports: dict[str, int] = {}
        self.start_redis()
        if self.with_postgres:
            self.start_postgres()
            upgrade(self.database_url)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            stop(process)
        self._stack.close()

    @property
    def url(self) -> str:
        """Where the web server answers."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def database_url(self) -> str:
        """The database of all processes."""
        return self.postgres.url

    def start_redis(self) -> RunningValkey:
        """The same one again after a kill: its data survive."""
        self.redis = self._stack.enter_context(running_valkey(self.root / "valkey", port=self.redis_port, persist=True))
        return self.redis

    def start_postgres(self) -> RunningPostgres:
        """The same one again after a kill."""
        self.postgres = self._stack.enter_context(running_postgres(self.root / "postgres", port=self.postgres_port))
        return self.postgres

    def start_web(self) -> subprocess.Popen[bytes]:
        """A web server without models of its own."""
        return self._start("web", "serve", "--port", str(self.web_port), probe=f"{self.url}/health/live")

    def start_worker(self, name: str, *, wait: bool = True) -> subprocess.Popen[bytes]:
        """A model worker with one thread."""
        port = self.worker_ports[name] = free_port()
        probe = f"http://127.0.0.1:{port}/health/ready" if wait else None
        return self._start(name, "worker", probe=probe, SHOPLENS_WORKER_PORT=str(port), SHOPLENS_THREADS="1")

    def log(self, name: str) -> str:
        """What a process said."""
        return (self.root / name / "server.log").read_text()

    def megabytes(self, name: str) -> float:
        """The memory that a process has to itself."""
        return float(psutil.Process(self.processes[name].pid).memory_full_info().uss) / 1e6

    def _start(self, name: str, *arguments: str, probe: str | None, **variables: str) -> subprocess.Popen[bytes]:
        folder = self.root / name
        environment = {
            "SHOPLENS_CONFIG": str(self.root / "shoplens.toml"),
            "SHOPLENS_DATA_DIR": str(folder),
            "SHOPLENS_MODELS_DIR": str(self.models_dir),
            "SHOPLENS_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            **({"SHOPLENS_DATABASE_URL": self.database_url} if self.with_postgres else {}),
            **self.settings,
            **variables,
        }
        process = start_shoplens(*arguments, folder=folder, environment=environment)
        self.processes[name] = process
        if probe is not None:
            wait_for(probe, process, folder)
        return process
