"""Read photos that a request names by keys or addresses: on threads of their own, within bounds of time and memory.

A server far away may take a minute for a photo, and must not hold the threads that all other requests need.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from shoplens.catalogue.imports.photo_sources import NamedPhotos, PhotoNotFound
from shoplens.errors import DeadlineExceeded, QueueFull, RequestInvalid

_THREADS: Final = 8
_MOST_REQUESTS: Final = 24
"""Requests with keys at once; the photos of each are in memory."""
_RETRY_S: Final = 2.0


class KeyedPhotos:
    """The photos below what a channel's settings allow. `open_photos` opens those of a channel. Close it at the end.

    The photos of one request may have `max_bytes` in all.
    """

    def __init__(self, open_photos: Callable[[str], NamedPhotos], *, max_bytes: int) -> None:
        self._open_photos = open_photos
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="keyed-photos")
        self._lock = threading.Lock()
        self._requests = 0

    @asynccontextmanager
    async def read(self, channel: str, keys: Sequence[str], *, timeout_s: float) -> AsyncIterator[list[bytes]]:
        """The photos, in the order of the keys; their memory counts as used until the block ends.

        Raises RequestInvalid for a key that cannot be read, QueueFull, DeadlineExceeded, StorageUnavailable and
        SourceUnavailable.
        """
        if not keys:
            yield []
            return
        with self._held():
            ended = threading.Event()
            work = functools.partial(self._read, channel, keys, ended)
            try:
                async with asyncio.timeout(timeout_s):
                    photos = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except TimeoutError as error:
                raise DeadlineExceeded(f"The photos could not be read within {timeout_s:g} s.") from error
            finally:
                ended.set()  # a thread that still reads for it stops after the photo that it has begun
            yield photos

    def close(self) -> None:
        """Release the threads, without waiting for those that still read."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock:
            if self._requests >= _MOST_REQUESTS:
                raise QueueFull("Too many requests name photos by keys at once.", retry_after_s=_RETRY_S)
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    def _read(self, channel: str, keys: Sequence[str], ended: threading.Event) -> list[bytes]:
        named, photos, total = self._open_photos(channel), list[bytes](), 0
        for key in keys:
            if ended.is_set():
                break
            try:
                photos.append(named.read(key))
            except PhotoNotFound as error:
                raise RequestInvalid(str(error)) from error
            total += len(photos[-1])
            if total > self._max_bytes:
                raise RequestInvalid(
                    f"These photos have more than {self._max_bytes / 1e6:g} MB in all. Name fewer at once."
                )
        return photos
