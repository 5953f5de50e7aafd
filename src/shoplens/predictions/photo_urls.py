"""Photos that a request names by their address: off until an admin allows some, and a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from shoplens.errors import QueueFull
from shoplens.predictions.errors import PhotoNotFetched
from shoplens.telemetry.threads import run_in

AT_ONCE: Final = 4
MOST_WAITING: Final = 16
_RETRY_S: Final = 2.0

ReadUrl = Callable[[str], bytes]
"""Fetches one photo within bounds of size and time. Raises PhotoNotFetched."""


class PhotoUrls:
    """Fetches photos on threads of its own. `read` is None where no address is allowed. Close it at the end."""

    def __init__(self, read: ReadUrl | None) -> None:
        self._read = read
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="photo-url")
        self._in_progress = 0

    @property
    def is_on(self) -> bool:
        """Whether some addresses are allowed."""
        return self._read is not None

    async def fetch(self, url: str) -> bytes:
        """The photo at `url`. Raises PhotoNotFetched, and QueueFull where too many are fetched already."""
        if self._read is None:
            raise PhotoNotFetched(
                "Photos by address are switched off. Send the photo itself, or allow addresses in the setting "
                "photo_urls.url_prefixes."
            )
        if self._in_progress >= AT_ONCE + MOST_WAITING:
            raise QueueFull("Too many photos are being fetched. Try again in a moment.", retry_after_s=_RETRY_S)
        self._in_progress += 1
        try:
            return await run_in(self._threads, partial(self._read, url))
        finally:
            self._in_progress -= 1

    def close(self) -> None:
        """Release the threads; a photo that is being fetched is waited for."""
        self._threads.shutdown(cancel_futures=True)
