"""Start a server, wait until it really answers, end it: what the three kinds of server share."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

START_ATTEMPTS: Final = 5
START_TIMEOUT_S: Final = 180
"""A loaded machine takes many times what a quiet one does."""
_STOP_TIMEOUT_S: Final = 60
_LAUNCH: Final = Path(__file__).with_name("launch.py")
_LOG_TAIL: Final = 4_000
# Above the well-known ports and, ten thousand further, still below those that systems hand out for connections.
_PORTS: Final = range(11_000, 22_000)
Value = TypeVar("Value")


class ServerFailed(Exception):
    """A server did not start; says what it wrote."""


class ServerSilent(ServerFailed):
    """A server runs and does not answer. Another attempt would only take as long again."""


def launched(command: Sequence[str | Path], *, user: int | None = None, dies_by: int = signal.SIGKILL) -> list[str]:
    """`command` so that it ends with this process, by the signal `dies_by`, and runs as `user`."""
    whom = "-" if user is None else str(user)
    return [
        sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(int(dies_by)), whom, *map(str, command),
    ]  # fmt: skip


def start(
    command: Sequence[str | Path],
    *,
    folder: Path,
    user: int | None = None,
    dies_by: int = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that writes its log to `folder`/server.log and ends with this process."""
    with log_of(folder).open("ab") as sink:
        return subprocess.Popen(
            launched(command, user=user, dies_by=dies_by),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=folder if user is None else "/",
            env={**os.environ, **(environment or {})},
        )


def log_of(folder: Path) -> Path:
    """Where a server in `folder` writes what it has to say."""
    return folder / "server.log"


def wait_until_ready(process: subprocess.Popen[bytes], folder: Path, ask: Callable[[], None]) -> None:
    """Return once `ask` raises nothing. Raises ServerFailed when the server ended or does not answer in time."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    last: Exception | None = None
    while process.poll() is None and time.monotonic() < give_up_at:
        try:
            ask()
            return
        except Exception as error:  # noqa: BLE001  whatever it is, the server is not ready yet
            last = error
            time.sleep(0.02)
    status = process.poll()
    stop(process)
    log = f"Its log:\n{log_of(folder).read_text(errors='replace')[-_LOG_TAIL:]}"
    if status is None:
        raise ServerSilent(f"The server in {folder} did not answer within {START_TIMEOUT_S} s ({last!r}). {log}")
    raise ServerFailed(f"The server in {folder} ended with status {status} before it answered ({last!r}). {log}")


def with_attempts(attempt: Callable[[], Value]) -> Value:
    """What the first attempt that succeeds gives: another process may take a free port before the server does."""
    for _ in range(START_ATTEMPTS - 1):
        try:
            return attempt()
        except ServerSilent:
            raise
        except ServerFailed:
            continue
    return attempt()


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """End it and wait for that; with force if it takes its time."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port(*, also_beyond: int | None = None) -> int:
    """A free port of this machine; with `also_beyond` also that many further."""
    while True:
        port = secrets.choice(_PORTS)
        if all(_is_free(one) for one in (port, port + (also_beyond or 0))):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
