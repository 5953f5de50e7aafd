"""A Shoplens process of our own, `serve` or `worker`: started in a folder, on one core if that is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from servers.process import start, wait_until_ready


def start_shoplens(
    *arguments: str, folder: Path, environment: Mapping[str, str], core: int | None = None
) -> subprocess.Popen[bytes]:
    """`shoplens` with these arguments; it ends with this process. Returns before it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    with on_core(core):
        return start([sys.executable, "-m", "shoplens", *arguments], folder=folder, environment=environment)


def wait_for(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return once it answers there with 200. Raises ServerFailed with the end of its log."""
    wait_until_ready(process, folder, lambda: _ask(url))


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What this thread starts within the block stays on that core; None: wherever this process may be."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _ask(url: str) -> None:
    """Raises for any other status than 200, and closes the connection, since nothing else does."""
    try:
        urllib.request.urlopen(url, timeout=20).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise
