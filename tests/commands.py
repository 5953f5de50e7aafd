"""Run `shoplens` commands for tests without paying for their imports: each is forked from a process that has them.

The commands are the real ones with real arguments, files, environment and exit statuses; only their imports are shared.
Run as a program it is that process: a JSON line for each command comes in, a JSON line with its exit status goes out.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).parents[1]
_IMPORTED: Final = (
    "shoplens.cli.app", "shoplens.bundles.importing", "shoplens.predictions.commands", "shoplens.cli.doctor",
    "shoplens.registry.commands", "shoplens.batch.commands", "shoplens.platform.batch", "rich.progress",
    "shoplens.training.train", "shoplens.platform.server", "shoplens.bundles.builtin.onnx_graph",
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
            status = _server().ask(request)
            out, err = texts
        if status is None:
            raise subprocess.TimeoutExpired(["shoplens", *arguments], timeout_s, output=out, stderr=err)
    return subprocess.CompletedProcess(["shoplens", *arguments], status, out, err)


class _Server:
    """The process that has the imports."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        atexit.register(self.close)

    def ask(self, request: dict[str, Any]) -> int | None:
        """The exit status; None for a command that did not end in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())["status"]
        return None if status is None else int(status)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@cache
def _server() -> _Server:
    return _Server()


def _main() -> None:
    """Answer until standard input ends."""
    for module in _IMPORTED:
        import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _command(request)
        sys.stdout.write(json.dumps({"status": _status_of(child, request["timeout_s"])}) + "\n")
        sys.stdout.flush()


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
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{request['said']}/{name}", os.O_WRONLY), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        _limit(obeys_modes=request["obeys_modes"], largest_file_bytes=request["largest_file_bytes"])
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
