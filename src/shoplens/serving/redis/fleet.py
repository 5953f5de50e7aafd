"""Who works: each worker announces itself every second, and everybody can read who is there and what it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shoplens.bundles.manifest import ModelRef
from shoplens.serving.engine import ServedModel
from shoplens.serving.redis import wire
from shoplens.serving.redis.link import Client, translated

ANNOUNCED_EVERY_S: Final = 1.0
ALIVE_MS: Final = 4_000
"""How long a worker that says nothing counts as alive; then its jobs go to others."""
_FORGOTTEN_MS: Final = 3_600_000

# KEYS: times, announcements.  ARGV: worker, announcement ('': it leaves), forgotten after ms.
ANNOUNCE: Final = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ms - tonumber(ARGV[3]))) do
  redis.call('HDEL', KEYS[2], old)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms - tonumber(ARGV[3]))
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[1], string.format('%.0f', ms), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
return string.format('%.0f', ms)
"""
# KEYS: times, announcements.  ARGV: alive for ms.  The time, then pairs of worker and announcement.
READ: Final = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local found = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ms - tonumber(ARGV[1]), '+inf')) do
  local said = redis.call('HGET', KEYS[2], worker)
  if said then found[#found + 1] = worker; found[#found + 1] = said end
end
return found
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a worker says of itself. `models` are by the name under which jobs ask for them."""

    worker_id: str
    host: str
    pid: int
    models: dict[str, ServedModel]
    wire_version: int = wire.VERSION

    @property
    def understood(self) -> bool:
        """Whether it speaks as this process does."""
        return self.wire_version == wire.VERSION


class Fleet:
    """The workers that share a prefix. Every verb raises QueueUnavailable. For one event loop."""

    def __init__(self, client: Client, *, prefix: str, place: str) -> None:
        self._client = client
        self._keys = times_and_announcements(prefix)
        self._place = place

    async def announce(self, mine: Announcement) -> None:
        """Say that this worker is alive."""
        await self._tell(mine.worker_id, announcement_bytes(mine))

    async def leave(self, worker_id: str) -> None:
        """Say that a worker takes nothing any more."""
        await self._tell(worker_id, b"")

    async def alive(self) -> tuple[Announcement, ...]:
        """Who has said something lately."""
        with translated(self._place):
            found = await self._client.execute_command("EVAL", READ, 2, *self._keys, ALIVE_MS)
        return announcements(found)

    async def _tell(self, worker_id: str, said: bytes) -> None:
        with translated(self._place):
            await self._client.execute_command("EVAL", ANNOUNCE, 2, *self._keys, worker_id, said, _FORGOTTEN_MS)


def times_and_announcements(prefix: str) -> tuple[str, str]:
    """The two keys of a fleet."""
    return f"{prefix}:workers:seen", f"{prefix}:workers:said"


def announcement_bytes(mine: Announcement) -> bytes:
    """An announcement as it lies in Redis."""
    models = {
        name: {
            "name": each.ref.name,
            "version": each.ref.version,
            "provider": each.provider,
            "batching": each.batching,
        }
        for name, each in mine.models.items()
    }
    return orjson.dumps({"v": mine.wire_version, "host": mine.host, "pid": mine.pid, "models": models})


def announcements(found: Sequence[bytes]) -> tuple[Announcement, ...]:
    """What a script's reply says; what cannot be read is left out, since a newer worker may say other things."""
    pairs = zip(found[::2], found[1::2], strict=True)
    return tuple(each for worker_id, said in pairs if (each := _announcement(worker_id.decode(), said)) is not None)


def _announcement(worker_id: str, said: bytes) -> Announcement | None:
    try:
        parts = orjson.loads(said)
        return Announcement(
            worker_id=worker_id,
            host=str(parts["host"]),
            pid=int(parts["pid"]),
            models={name: _served(each) for name, each in parts["models"].items()},
            wire_version=int(parts["v"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _served(parts: dict[str, Any]) -> ServedModel:
    return ServedModel(
        ref=ModelRef(name=parts["name"], version=parts["version"]),
        provider=parts["provider"],
        batching=parts["batching"],
    )
