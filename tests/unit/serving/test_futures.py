"""Futures are completed once, from any thread, even if their caller has cancelled them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from shoplens.errors import QueueFull
from shoplens.serving.batcher import complete, complete_from_thread


async def test_a_thread_gives_a_waiting_coroutine_its_value() -> None:
    """As the threads of an engine do."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    threading.Thread(target=complete_from_thread, args=(future, 7)).start()
    assert await future == 7


async def test_an_exception_is_raised_where_the_future_is_awaited() -> None:
    """It is never a result."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    complete_from_thread(future, QueueFull("Full.", retry_after_s=1.0))
    with pytest.raises(QueueFull):
        await future


async def test_the_first_outcome_counts_and_a_cancelled_future_stays_cancelled() -> None:
    """A caller may leave while its answer is on the way."""
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    left.cancel()
    for value in (1, 2):
        complete(first, value)
        complete_from_thread(left, value)
    await asyncio.sleep(0)
    assert await first == 1
    assert left.cancelled()


def test_a_closed_loop_is_no_error() -> None:
    """Nobody waits there any more."""
    loop = asyncio.new_event_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.close()
    complete_from_thread(future, 1)


def test_a_future_of_a_thread_pool_is_completed_in_the_same_way() -> None:
    """For callers that wait on a thread of their own."""
    future: Future[int] = Future()
    complete(future, 3)
    assert future.result(0) == 3
