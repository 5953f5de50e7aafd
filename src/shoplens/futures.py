"""Complete a future once, from the event loop or another thread, even if its caller has cancelled it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextlib import suppress
from typing import TypeVar

Value = TypeVar("Value")


def complete(future: asyncio.Future[Value] | concurrent.futures.Future[Value], outcome: Value | BaseException) -> None:
    """Give `future` its outcome, unless it has one or its caller has cancelled it. An exception is raised there.

    An asyncio future may only be completed on its own loop: see `complete_from_thread`.
    """
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def complete_from_thread(future: asyncio.Future[Value], outcome: Value | BaseException) -> None:
    """The same from any thread. Does nothing when the loop is closed, since nobody can be waiting then."""
    with suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(complete, future, outcome)
