"""Photos that requests name by keys: a slow place holds neither other threads nor requests beyond their deadline."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoplens.catalogue.imports.photo_sources import NamedPhotos
from shoplens.catalogue.suggest.keyed_photos import KeyedPhotos
from shoplens.errors import DeadlineExceeded, QueueFull, RequestInvalid


class SlowPhotos(NamedPhotos):
    """A folder that answers for a file "slow" only when it is let go."""

    def __init__(self, place: str, let_go: threading.Event) -> None:
        super().__init__(place, web=None, max_bytes=1_000)
        self._let_go = let_go

    def read(self, name: str) -> bytes:
        """See NamedPhotos."""
        if name == "slow":
            self._let_go.wait(30)
        return super().read(name)


@pytest.fixture
def let_go() -> threading.Event:
    """Ends the waiting of a slow folder."""
    return threading.Event()


@pytest.fixture
def photos(tmp_path: Path, let_go: threading.Event) -> Iterator[KeyedPhotos]:
    """A folder with two files."""
    for name in ("a", "b", "slow"):
        (tmp_path / name).write_bytes(name.encode() * 300)
    keyed = KeyedPhotos(lambda _: SlowPhotos(str(tmp_path), let_go), max_bytes=800)
    yield keyed
    let_go.set()
    keyed.close()


async def read(photos: KeyedPhotos, *keys: str, timeout_s: float = 10.0) -> list[bytes]:
    """The photos of a request."""
    async with photos.read("catalogue", keys, timeout_s=timeout_s) as found:
        return found


async def test_photos_come_in_the_order_of_their_keys_and_within_a_bound(photos: KeyedPhotos) -> None:
    """What cannot be read, or is too much together, is refused."""
    assert [b"b" * 300, b"a" * 300] == await read(photos, "b", "a")
    for keys, words in ((["a", "b", "a"], "MB in all"), (["none"], "no file none"), (["../a"], "no plain path")):
        with pytest.raises(RequestInvalid, match=words):
            await read(photos, *keys)


async def test_a_slow_place_ends_its_own_requests_only(photos: KeyedPhotos, let_go: threading.Event) -> None:
    """With a deadline, and a bound on how many may wait; the threads of all other work stay free."""
    slow = [asyncio.create_task(read(photos, "slow", timeout_s=3.0)) for _ in range(40)]
    await asyncio.sleep(0.1)
    started = time.monotonic()
    assert 7 == await asyncio.to_thread(lambda: 7)
    assert time.monotonic() - started < 2.5
    outcomes = await asyncio.gather(*slow, return_exceptions=True)
    assert (24, 16) == (
        sum(isinstance(each, DeadlineExceeded) for each in outcomes),
        sum(isinstance(each, QueueFull) for each in outcomes),
    )
    let_go.set()
    assert [b"a" * 300] == await read(photos, "a")
