"""Run `shoplens` commands for tests without paying for their imports: each is forked from a process that has them.

The commands are the real ones with real arguments, files, environment and exit statuses; only their imports are shared.
Run as a program it is that process: a JSON line for each command comes in, and a JSON line with its exit status goes
out, or with its number if it runs on.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).parents[1]
_IMPORTED: Final = (
    "shoplens.cli.app", "shoplens.bundles.importing", "shoplens.predictions.commands", "shoplens.cli.doctor",
    "shoplens.registry.commands", "shoplens.batch.commands", "shoplens.platform.batch", "rich.progress",
    "shoplens.training.train", "shoplens.platform.server", "shoplens.bundles.builtin.onnx_graph",
    "shoplens.cli.serve", "shoplens.web.app", "shoplens.web.connections", "shoplens.db.postgres", "uvicorn",
    "shoplens.platform.registry", "shoplens.registry.archive", "rich.console", "pydantic.v1", "PIL.PpmImagePlugin",
)  # fmt: skip


def run_command(
    *arguments: str,
    environment: Mapping[str, str],
    folder: Path,
    timeout_s: float = 120,
    obeys_modes: bool = False,
    largest_file_bytes: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """What `shoplens …` said in this folder with exactly these variables. Raises TimeoutExpired.

    With `obeys_modes` it cannot write where the mode of a folder forbids that, also when the tests are run by root.
    `largest_file_bytes` is as on a full disk: no file may grow beyond it.
    """
    with tempfile.TemporaryDirectory(prefix="shoplens-command-") as said:
        request = {
            "arguments": arguments, "environment": dict(environment), "folder": str(folder), "said": said,
            "timeout_s": timeout_s, "obeys_modes": obeys_modes, "largest_file_bytes": largest_file_bytes,
        }  # fmt: skip
        with ThreadPoolExecutor(2) as readers:
            for name in ("out", "err"):
                os.mkfifo(Path(said, name))
            texts = readers.map(lambda name: Path(said, name).read_text(), ("out", "err"))
            status = _server().ask(request)["status"]
            out, err = texts
        if status is None:
            raise subprocess.TimeoutExpired(["shoplens", *arguments], timeout_s, output=out, stderr=err)
    return subprocess.CompletedProcess(["shoplens", *arguments], status, out, err)


def status_said(said: str) -> int:
    """The exit status of the kind of error that a command named last on standard error."""
    from shoplens.cli.command import status_of
    from shoplens.errors import ShoplensError

    code = re.findall(r"^error \((\w+)\): ", said, re.MULTILINE)[-1]
    for module in (ROOT / "src" / "shoplens").glob("*/errors.py"):
        import_module(f"shoplens.{module.parent.name}.errors")
    kinds: list[type[ShoplensError]] = [ShoplensError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    (found,) = {status_of(kind.__new__(kind)) for kind in kinds if kind.code == code}
    return found


@dataclass
class RunningCommand:
    """A command that runs on, with what tests need of `subprocess.Popen`."""

    pid: int
    _status: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and self._status.exists():
            self.returncode = int(self._status.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status once it has ended. Raises TimeoutExpired."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if timeout is not None and give_up_at is not None and time.monotonic() > give_up_at:
                raise subprocess.TimeoutExpired(["shoplens"], timeout)
            time.sleep(0.005)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """As its service manager does."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)


def start_command(*arguments: str, environment: Mapping[str, str], folder: Path, log: Path) -> RunningCommand:
    """Start `shoplens …` in this folder; what it says is added to `log`."""
    server = _server()
    status = server.folder / f"{next(server.numbers)}.status"
    answer = server.ask({
        "arguments": arguments, "environment": dict(environment), "folder": str(folder), "log": str(log),
        "status": str(status),
    })  # fmt: skip
    return RunningCommand(int(answer["pid"] or 0), status)


class _Server:
    """The process that has the imports."""

    def __init__(self) -> None:
        self._ended = tempfile.TemporaryDirectory(prefix="shoplens-commands-")
        self.folder = Path(self._ended.name)
        self.numbers = itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        atexit.register(self.close)

    def ask(self, request: dict[str, Any]) -> dict[str, int | None]:
        """The exit `status`, None for a command that did not end in time; or the `pid` of one that runs on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, int | None] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._ended.cleanup()


@cache
def _server() -> _Server:
    return _Server()


def _main() -> None:
    """Answer until standard input ends."""
    for module in _IMPORTED:
        import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a command need not walk the modules: a server makes one when it starts
    for line in sys.stdin:
        request = json.loads(line)
        if "log" in request:
            answer: dict[str, int | None] = {"pid": _started(request)}
        else:
            child = os.fork()
            if child == 0:
                _command(request)
            answer = {"status": _status_of(child, request["timeout_s"])}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _started(request: dict[str, Any]) -> int:
    """The number of the process of a command. Its parent waits for its end and writes its status."""
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        if os.fork() == 0:
            command = os.fork()
            if command == 0:
                os.closerange(reading, writing + 1)
                _command(request)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.write(writing, command.to_bytes(4))
            os.closerange(reading, writing + 1)
            status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
            file = Path(request["status"])
            file.with_suffix(".part").write_text(str(status))
            file.with_suffix(".part").rename(file)
        os._exit(0)
    os.waitpid(first, 0)
    os.close(writing)
    command = int.from_bytes(os.read(reading, 4))
    os.close(reading)
    return command


def _status_of(child: int, timeout_s: float) -> int | None:
    """Waits for its end; kills it after its time."""
    handle = os.pidfd_open(child)
    try:
        import select

        ended = bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)
    if not ended:
        os.kill(child, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ended else None


def _command(request: dict[str, Any]) -> NoReturn:
    """Never returns: the child must not go on as its parent."""
    status = 1
    try:
        places = [request["log"]] * 2 if "log" in request else [f"{request['said']}/{name}" for name in ("out", "err")]
        for number, place in enumerate(places, start=1):
            os.dup2(os.open(place, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if "log" in request else 0)), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        os.chdir(request["folder"])
        _limit(obeys_modes=request.get("obeys_modes", False), largest_file_bytes=request.get("largest_file_bytes"))
        from shoplens.cli.app import app

        app(request["arguments"], prog_name="shoplens")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - it has to end here, whatever it is
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _limit(*, obeys_modes: bool, largest_file_bytes: int | None) -> None:
    """Take rights from this process. What it says goes to pipes, which a limit of files does not concern."""
    if obeys_modes and os.getuid() == 0:
        version_3 = (ctypes.c_uint32 * 2)(0x20080522, 0)
        if ctypes.CDLL(None, use_errno=True).capset(version_3, (ctypes.c_uint32 * 6)()) != 0:
            raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    if largest_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))


if __name__ == "__main__":
    _main()
