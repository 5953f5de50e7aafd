"""A system to put load on: a Redis server, model workers and a web server, as processes of this machine."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from servers.process import free_port, stop
from servers.shoplens import start_shoplens, wait_for
from servers.valkey import running_valkey
from shoplens.testing import cost

WEB = "web server"
QUEUE = "Valkey"


class Fleet:
    """Started on entering, in a folder of its own; ended on leaving. Without workers the web server has the models.

    `pin`: worker i stays on core i, as long as there are cores. `redis_url` names a server that runs already.
    """

    def __init__(
        self, root: Path, models_dir: Path, *, workers: int, pin: bool = False, redis_url: str | None = None
    ) -> None:
        self._root = root
        self._workers = workers
        self._pin = pin
        self._redis_url = redis_url
        self._environment = {"SHOPLENS_MODELS_DIR": str(models_dir)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._workers:
                self._environment["SHOPLENS_REDIS_URL"] = self._redis_url or self._start_queue(stack)
                self._environment["SHOPLENS_REDIS_PREFIX"] = f"load-{os.getpid()}-{self._workers}"
            self._start_workers(stack)
            self._start_web(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cpu_s(self) -> dict[str, float]:
        """The CPU seconds of each process since its start."""
        return {name: cost.read(process.pid).cpu_s for name, process in self._processes.items()}

    def _start_queue(self, stack: ExitStack) -> str:
        server = stack.enter_context(running_valkey(self._root / "valkey"))
        self._processes[QUEUE] = server.process
        return server.url

    def _start_workers(self, stack: ExitStack) -> None:
        """All at once; each of them takes seconds."""
        cores = sorted(os.sched_getaffinity(0))
        probes: dict[str, str] = {}
        for number in range(self._workers):
            name, port = f"worker {number + 1}", free_port()
            core = cores[number % len(cores)] if self._pin else None
            own = {"SHOPLENS_THREADS": "1", "SHOPLENS_WORKER_PORT": str(port)}
            self._start(stack, name, "worker", core=core, own=own)
            probes[name] = f"http://127.0.0.1:{port}/health/ready"
        for name, probe in probes.items():
            wait_for(probe, self._processes[name], self._root / name)

    def _start_web(self, stack: ExitStack) -> None:
        process = self._start(stack, WEB, "serve", "--port", self.url.rpartition(":")[2])
        wait_for(f"{self.url}/health/ready", process, self._root / WEB)

    def _start(
        self, stack: ExitStack, name: str, *arguments: str, core: int | None = None, own: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        folder = self._root / name
        environment = {**self._environment, "SHOPLENS_DATA_DIR": str(folder), **(own or {})}
        process = start_shoplens(*arguments, folder=folder, environment=environment, core=core)
        stack.callback(stop, process)
        self._processes[name] = process
        return process
