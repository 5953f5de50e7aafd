"""Start `shoplens` commands without paying for their imports: each is forked from a process that has them already.

Reads one JSON line per command from standard input: `arguments`, `environment`, `log` (a file for what it says),
`kill_after_s` (None: let it end) and `once_said` (the seconds are counted from when its log holds this; "": from its
start). Writes one JSON line when it has ended: its exit `status`, negative for a signal. One that does not end in five
minutes is killed, so that a test never reads the answer to another test's command. The commands themselves are the
real ones, with real files; only their imports are shared.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import NoReturn

_LOOK_EVERY_S = 0.001
_LONGEST_S = 300.0
_LONGEST_S = 300.0
_IMPORTED = (
    "shoplens.cli.app",
    "shoplens.batch.commands",
    "shoplens.cli.process",
    "shoplens.platform.batch",
    "rich.progress",
    "shoplens.db.postgres",
)


def main() -> None:
    """Answer until standard input ends."""
    for module in _IMPORTED:
        import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        log = Path(request["log"])
        said = log.stat().st_size if log.exists() else 0
        child = os.fork()
        if child == 0:
            _command(request["arguments"], request["environment"], log)
        if request["kill_after_s"] is not None and _says(child, log, said, request["once_said"].encode()):
            _kill_after(child, request["kill_after_s"])
        too_long = threading.Timer(_LONGEST_S, os.kill, (child, signal.SIGKILL))
        too_long.start()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        too_long.cancel()
        too_long.join()
        sys.stdout.write(json.dumps({"status": status}) + "\n")
        sys.stdout.flush()


def _command(arguments: list[str], environment: dict[str, str], log: Path) -> NoReturn:
    """Never returns: the child must not go on as its parent."""
    status = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(log.parent)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        from shoplens.cli.app import app

        app(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - it has to end here, whatever it is
        with log.open("a") as lines:
            lines.write(f"FAULT {error!r}\n")
    os._exit(status)


def _says(child: int, log: Path, beyond: int, words: bytes) -> bool:
    """Waits until the log holds these words beyond this place; False if the command has ended before."""
    while words:
        if log.exists():
            with log.open("rb") as lines:
                lines.seek(beyond)
                if words in lines.read():
                    break
        if _has_ended(child):
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _kill_after(child: int, seconds: float) -> None:
    kill_at = time.monotonic() + seconds
    while time.monotonic() < kill_at and not _has_ended(child):
        time.sleep(_LOOK_EVERY_S)
    os.kill(child, signal.SIGKILL)  # does nothing to one that has ended, whose number is not free yet


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    main()
