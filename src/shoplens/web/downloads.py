"""Stream large tables: made by one thread of their own, so that no number of them keeps pages and photos waiting."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.responses import StreamingResponse

Chunk = TypeVar("Chunk", str, bytes)

# Their rows are made in Python: with several threads a photo would wait for each of them whenever it needs the lock of
# the interpreter.
_THREADS: Final = CapacityLimiter(1)


def download(chunks: Iterable[Chunk], *, name: str, media_type: str) -> StreamingResponse:
    """A file that is made while it is sent. `chunks` blocks; a client that leaves ends it."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_from_threads(chunks), media_type=media_type, headers=headers)


async def _from_threads(chunks: Iterable[Chunk]) -> AsyncIterator[Chunk]:
    iterator = iter(chunks)
    while (chunk := await to_thread.run_sync(_next, iterator, limiter=_THREADS)) is not None:
        yield chunk


def _next(chunks: Iterator[Chunk]) -> Chunk | None:
    """The next chunk, and a pause as long as it took: half of the interpreter's time is left for pages and photos."""
    began = time.thread_time()
    chunk = next(chunks, None)
    time.sleep(time.thread_time() - began)
    return chunk
