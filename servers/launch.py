"""Become a server that ends with its parent: `launch.py PARENT SIGNAL USER PROGRAM ARGUMENT…`. Runs on its own.

A process of its own does this between fork and exec, because Python code there could hang in a program with threads.
USER is a number, or "-" to stay who we are.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def _become(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _end_with(parent: int, signal_number: int) -> None:
    """Only Linux can; elsewhere a server outlives tests that are killed."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the tests ended before their server began")


if __name__ == "__main__":
    _parent, _signal, _user, *_command = sys.argv[1:]
    if _user != "-":
        _become(int(_user))
    _end_with(int(_parent), int(_signal))
    os.execv(_command[0], _command)
