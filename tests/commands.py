"""Run `shoplens` commands for tests without paying for their imports: each is forked from a process that has them.

The commands are the real ones with real arguments, files, environment and exit statuses; only their imports are shared.
Run as a program it is that process: a JSON line for each command comes in, a JSON line with its exit status goes out.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
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
    *arguments: str, environment: Mapping[str, str], folder: Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `shoplens …` said in this folder with exactly these variables. Raises TimeoutExpired."""
    with tempfile.TemporaryDirectory(prefix="shoplens-command-") as said:
        request = {
            "arguments": arguments, "environment": dict(environment), "folder": str(folder), "said": said,
            "timeout_s": timeout_s,
        }  # fmt: skip
        status = _server().ask(request)
        if status is None:
            raise subprocess.TimeoutExpired(["shoplens", *arguments], timeout_s)
        out, err = (Path(said, name).read_text() for name in ("out", "err"))
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
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{request['said']}/{name}", os.O_WRONLY | os.O_CREAT), number)
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


if __name__ == "__main__":
    _main()
