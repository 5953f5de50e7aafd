"""A queue in which nobody waits for more than one item of each other client, however many that client has sent."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What waits in the queue."""

    @property
    def client(self) -> str:
        """Who sent it; "" where that is not known."""
        ...

    @property
    def enqueued_at(self) -> float:
        """When it came (monotonic seconds)."""
        ...


Waiting = TypeVar("Waiting", bound=Queued)


class FairQueue(Generic[Waiting]):
    """Takes from each client in turn, and of each client the oldest first. Not safe to share between threads."""

    def __init__(self) -> None:
        # In the order of their turns; a client without items is not in it.
        self._of_client: dict[str, deque[Waiting]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def oldest_at(self) -> float:
        """When the oldest item came. Raises ValueError where there is none."""
        return min(items[0].enqueued_at for items in self._of_client.values())

    def append(self, item: Waiting) -> None:
        """Add an item; a client that had none gets its turn after all others."""
        self._of_client.setdefault(item.client, deque()).append(item)
        self._length += 1

    def popleft(self) -> Waiting:
        """Take the oldest item of the client whose turn it is. Raises StopIteration where there is none."""
        client = next(iter(self._of_client))
        items = self._of_client.pop(client)
        item = items.popleft()
        if items:
            self._of_client[client] = items
        self._length -= 1
        return item

    def make_room(self, client: str) -> Waiting | None:
        """Take the newest item of the client with the most; None if `client` would then have as many."""
        most = max(self._of_client, key=lambda each: len(self._of_client[each]), default=None)
        if most is None or len(self._of_client[most]) <= len(self._of_client.get(client, ())) + 1:
            return None
        self._length -= 1
        return self._of_client[most].pop()
