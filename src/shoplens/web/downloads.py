"""Stream large tables: made by one thread of their own, so that no number of them keeps pages and photos waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
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
    while (chunk := await to_thread.run_sync(next, iterator, None, limiter=_THREADS)) is not None:
        yield chunk
