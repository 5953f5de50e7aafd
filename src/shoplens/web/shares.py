"""What one client address may hold or begin, so that none can take everything from the others."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.requests import Request

from shoplens.errors import QueueFull
from shoplens.messages import marked

_REMEMBERED_ADDRESSES: Final = 10_000


class ClientShares:
    """An amount of something, such as bytes, that all clients share; one address may hold `largest_share` of it."""

    def __init__(self, total: int, *, largest_share: int, what: str, retry_after_s: float) -> None:
        self._free = total
        self.largest_share = largest_share
        self._what = what
        self._retry_after_s = retry_after_s
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, address: str, amount: int) -> Iterator[None]:
        """Hold `amount` until the block ends. Raises QueueFull."""
        if self._held[address] + amount > self.largest_share:
            raise self._refusal(marked("from your address "))
        if amount > self._free:
            raise self._refusal("")
        self._free -= amount
        self._held[address] += amount
        try:
            yield
        finally:
            self._free += amount
            self._held[address] -= amount
            if not self._held[address]:
                del self._held[address]

    def _refusal(self, whose: str) -> QueueFull:
        return QueueFull(
            f"The server is receiving too many {self._what} {whose}now. Try again in {self._retry_after_s:g} s.",
            retry_after_s=self._retry_after_s,
        )


class ClientRate:
    """At most `per_minute` uploads of one address in a minute, in bursts of any size; None: any number."""

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._free_at: dict[str, float] = {}

    def require(self, address: str) -> None:
        """Count an upload. Raises QueueFull with the time until the next one is allowed."""
        if self._per_minute is None:
            return
        now, interval_s = time.monotonic(), 60 / self._per_minute
        if len(self._free_at) >= _REMEMBERED_ADDRESSES:
            self._free_at = {each: at for each, at in self._free_at.items() if at > now}
        # The time at which the counted uploads would be over, had they come at exactly the allowed rate.
        over_at = max(now, self._free_at.get(address, now)) + interval_s
        wait_s = over_at - now - 60
        if wait_s > 0:
            raise QueueFull(
                f"Your address may send {self._per_minute} uploads per minute. Try again in {math.ceil(wait_s)} s.",
                retry_after_s=wait_s,
            )
        self._free_at[address] = over_at


def address_of(request: Request) -> str:
    """The address of the client; "" where the server does not know it."""
    return request.client.host if request.client else ""
