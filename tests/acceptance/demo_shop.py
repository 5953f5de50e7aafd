"""The demo shop as a process of its own beside a Shoplens server of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from servers.process import free_port, start, stop
from servers.shoplens import wait_for
from tests.commands import run_command
from tests.conftest import RunningServer

ROOT: Final = Path(__file__).parents[2]
OWN_NETWORK: Final = {"webhook_networks": "127.0.0.0/8"}
"""The setting of a server whose events go to this machine."""


def command(server: RunningServer, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A `shoplens` command on the data of this server. Fails unless it succeeds."""
    given = {
        "PATH": os.environ["PATH"], "SHOPLENS_DATA_DIR": str(server.data_dir), **environment,
        **{f"SHOPLENS_{name.upper()}": value for name, value in OWN_NETWORK.items()},
    }  # fmt: skip
    done = run_command(*arguments, environment=given, folder=server.data_dir)
    assert 0 == done.returncode, done.stderr
    return done


@contextmanager
def running_shop(server: RunningServer, folder: Path, *, key: str | None = None) -> Iterator[str]:
    """The address of a shop that sends its photos to this server, and takes the server's events."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    added = command(server, "webhooks", "add", f"{url}/hooks/photos")
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"SHOP_SECRET": added.stdout.split()[-1], **({} if key is None else {"SHOP_KEY": key})}
    program = str(ROOT / "examples" / "shop" / "shop.py")
    process = start(
        [sys.executable, program, "--shoplens", server.url, "--port", str(port)], folder=folder, environment=environment
    )
    try:
        wait_for(url, process, folder)
        yield url
    finally:
        stop(process)
