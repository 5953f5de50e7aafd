"""Downloads are made in threads of their own, and end with their client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from anyio import to_thread
from starlette.types import Message

from shoplens.web.downloads import download

SCOPE = {"type": "http", "method": "GET", "asgi": {"spec_version": "2.3"}}


async def never() -> Message:
    """A client that stays."""
    await asyncio.sleep(60)
    return {"type": "http.disconnect"}


async def test_slow_downloads_leave_threads_to_everybody_else() -> None:
    """However many there are, and however long each chunk takes."""
    finish, sent = threading.Event(), []

    def chunks() -> Iterator[bytes]:
        finish.wait(30)
        yield b"one"
        yield b"two"

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    responses = [download(chunks(), name="table.csv", media_type="text/csv") for _ in range(60)]
    tasks = [asyncio.create_task(each(SCOPE, never, send)) for each in responses]
    await asyncio.sleep(0.1)
    assert 1 == await asyncio.wait_for(to_thread.run_sync(lambda: 1), 5)
    finish.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert (60, 60) == (sent.count(b"one"), sent.count(b"two"))


async def test_chunks_of_several_downloads_are_made_one_after_the_other() -> None:
    """So that a photo waits for one thread at most that makes them."""
    active, most = 0, 0

    def chunks() -> Iterator[bytes]:
        nonlocal active, most
        for _ in range(5):
            active += 1
            most = max(most, active)
            time.sleep(0.01)
            active -= 1
            yield b"x"

    async def send(_: Message) -> None:
        """Takes it at once."""

    downloads = [download(chunks(), name="table.csv", media_type="text/csv")(SCOPE, never, send) for _ in range(6)]
    await asyncio.wait_for(asyncio.gather(*downloads), 30)
    assert 1 == most


async def test_a_download_ends_when_its_client_leaves() -> None:
    """After the chunk that is being made."""
    made: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(1_000):
            made.append(number)
            yield b"x"

    async def leaves() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(0.02)

    response = download(chunks(), name="table.csv", media_type="text/csv")
    await asyncio.wait_for(response(SCOPE, leaves, send), 10)
    assert len(made) < 10


async def test_a_failure_while_chunks_are_made_is_raised() -> None:
    """The server logs it, and the client sees that the file is not complete."""

    def chunks() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("broken")

    async def send(message: Message) -> None:
        pass

    with pytest.raises((ValueError, ExceptionGroup)):
        await download(chunks(), name="table.csv", media_type="text/csv")(SCOPE, never, send)


async def test_a_table_takes_at_most_half_of_the_interpreters_time() -> None:
    """After each chunk as much time passes as it took of a processor."""
    busy_s = 0.0

    def chunks() -> Iterator[bytes]:
        nonlocal busy_s
        for _ in range(4):
            began = time.thread_time()
            while time.thread_time() - began < 0.03:
                pass
            busy_s += time.thread_time() - began
            yield b"x"

    async def send(_: Message) -> None:
        """Takes it at once."""

    began = time.monotonic()
    await download(chunks(), name="table.csv", media_type="text/csv")(SCOPE, never, send)
    assert time.monotonic() - began >= 2 * busy_s
