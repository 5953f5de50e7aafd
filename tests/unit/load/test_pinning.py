"""Processes that stay on one core."""

from __future__ import annotations

import os
import subprocess
import sys

from servers.shoplens import on_core

ASK = "import os; print(sorted(os.sched_getaffinity(0)))"


def cores_of_a_child() -> str:
    """What a process started now may use."""
    return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip()


def test_what_is_started_within_the_block_stays_on_its_core() -> None:
    """And this process may use all of its own again afterwards."""
    mine = sorted(os.sched_getaffinity(0))
    with on_core(mine[-1]):
        assert str(mine[-1:]) == cores_of_a_child()
    assert str(mine) == cores_of_a_child()


def test_no_core_means_any() -> None:
    """As for everything that is not pinned."""
    with on_core(None):
        assert str(sorted(os.sched_getaffinity(0))) == cores_of_a_child()
