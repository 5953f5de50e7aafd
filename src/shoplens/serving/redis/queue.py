"""The queue itself: jobs in streams with a consumer group, one script per change, so that each is whole or not at all.

For each model and priority there is one stream. An entry stays in it until it is answered, so the length of a stream is
what waits and what is in work, and what a dead worker had taken is still there. All times are those of Redis' clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from shoplens.errors import QueueFull
from shoplens.serving.engine import Priority
from shoplens.serving.redis import wire
from shoplens.serving.redis.link import Client, translated

GROUP: Final = "workers"
PRIORITIES: Final[tuple[Priority, ...]] = ("online", "batch")
ANSWER_LIFE_MS: Final = 60_000
"""How long an answer waits for a client that may be gone."""
_SET_ASIDE_LENGTH: Final = 1_000
_RETRY_FULL_S: Final = 1.0

# KEYS: stream, bytes.  ARGV: most entries, most bytes, milliseconds, version, id, answer list, body, image.
_ADD: Final = """
local length = redis.call('XLEN', KEYS[1])
local held = 0
if length > 0 then held = tonumber(redis.call('GET', KEYS[2]) or '0') end
if length >= tonumber(ARGV[1]) or (length > 0 and held + #ARGV[8] > tonumber(ARGV[2])) then return {length} end
local now = redis.call('TIME')
local by = now[1] * 1000 + math.floor(now[2] / 1000) + tonumber(ARGV[3])
local entry = redis.call('XADD', KEYS[1], '*', 'v', ARGV[4], 'id', ARGV[5], 'to', ARGV[6],
  'by', string.format('%.0f', by), 'body', ARGV[7], 'image', ARGV[8])
redis.call('SET', KEYS[2], string.format('%.0f', held + #ARGV[8]))
return {length, entry}
"""
# KEYS: stream, bytes, answer list.  ARGV: group, entry, bytes of its image, answer ('': none), its life in ms.
_FINISH: Final = """
local there = redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if there == 0 then return 0 end
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[2])
else redis.call('DECRBY', KEYS[2], ARGV[3]) end
if ARGV[4] ~= '' then
  redis.call('RPUSH', KEYS[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
return 1
"""
# KEYS: stream.  ARGV: group.  Each worker's name and how many entries it has; nothing where there is no group yet.
_OWNERS: Final = """
local rows = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
local found = {}
if rows.err then return found end
for _, row in ipairs(rows) do
  for at = 1, #row, 2 do
    if row[at] == 'name' then found[#found + 1] = row[at + 1] end
  end
  for at = 1, #row, 2 do
    if row[at] == 'pending' then found[#found + 1] = row[at + 1] end
  end
end
return found
"""
# KEYS: stream.  ARGV: group, owner, new owner, least idle ms, most entries.  What was pending, and what was claimed.
_CLAIM: Final = """
local rows = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[4], '-', '+', ARGV[5], ARGV[2])
if #rows == 0 then return {} end
local entries = {}
for at, row in ipairs(rows) do entries[at] = row[1] end
return {rows, redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], ARGV[4], unpack(entries))}
"""
_LENGTHS: Final = """
local lengths = {}
for at, stream in ipairs(KEYS) do lengths[at] = redis.call('XLEN', stream) end
return lengths
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An entry that this worker has. `deliveries` counts how many workers had it, this one included."""

    stream: str
    entry: bytes
    fields: dict[bytes, bytes]
    deliveries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many photos of one model and priority, and bytes of them, may be in the queue."""

    jobs: int
    image_bytes: int


class JobQueue:
    """Every verb raises QueueUnavailable. For one event loop."""

    def __init__(self, client: Client, *, prefix: str, place: str) -> None:
        self._client = client
        self._prefix = prefix
        self.place = place
        self._digests: dict[str, str] = {}

    def stream(self, model: str, priority: Priority) -> str:
        """The stream of this model and priority."""
        return f"{self._prefix}:jobs:{priority}:{model}"

    def answers(self, client_id: str) -> str:
        """The list in which a client finds its answers."""
        return f"{self._prefix}:answers:{client_id}"

    async def add(
        self, stream: str, job_id: str, *, to: str, body: bytes, image: bytes, timeout_s: float, bounds: Bounds
    ) -> bytes:
        """The new entry's id. Raises QueueFull, and then nothing was added."""
        timeout_ms = max(1, round(1000 * timeout_s))
        added = await self._script(
            _ADD, [stream, f"{stream}:bytes"],
            [bounds.jobs, bounds.image_bytes, timeout_ms, wire.VERSION, job_id, to, body, image],
        )  # fmt: skip
        if len(added) < 2:
            raise QueueFull(f"{added[0]} photos wait already; try again.", retry_after_s=_RETRY_FULL_S)
        return bytes(added[1])

    async def holds(self, stream: str, entry: bytes) -> bool:
        """Whether an entry is still to be answered."""
        with translated(self.place):
            return bool(await self._client.execute_command("XRANGE", stream, entry, entry, "COUNT", 1))

    async def finish(self, stream: str, entry: bytes, *, byte_count: int, to: str, answer: bytes) -> bool:
        """Answer an entry and remove it; False, and no answer, where that was done before."""
        keys = [stream, f"{stream}:bytes", to]
        done = await self._script(_FINISH, keys, [GROUP, entry, byte_count, answer, ANSWER_LIFE_MS])
        return bool(done)

    async def forget(self, stream: str, entry: bytes, *, byte_count: int) -> None:
        """Remove an entry for whose answer nobody waits any more."""
        await self.finish(stream, entry, byte_count=byte_count, to=f"{self._prefix}:answers:nobody", answer=b"")

    async def take(self, streams: Sequence[str], worker_id: str, *, count: int, block_ms: int | None) -> list[Taken]:
        """Up to `count` new entries of each stream; waits up to `block_ms` for the first one, None: not at all."""
        wait = () if block_ms is None else ("BLOCK", block_ms)
        command = ("XREADGROUP", "GROUP", GROUP, worker_id, "COUNT", count, *wait, "STREAMS", *streams)
        with translated(self.place):
            try:
                found = await self._client.execute_command(*command, *(">" for _ in streams))
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._make_groups(streams)
                return []
        return [
            Taken(stream=name.decode(), entry=entry, fields=fields or {})
            for name, entries in found or ()
            for entry, fields in entries
        ]

    async def owners(self, stream: str) -> dict[str, int]:
        """How many entries each worker has of this stream; workers without any are there too."""
        rows = await self._script(_OWNERS, [stream], [GROUP])
        return {name.decode(): int(pending) for name, pending in zip(rows[::2], rows[1::2], strict=True)}

    async def claim(self, stream: str, owner: str, worker_id: str, *, count: int, idle_ms: int) -> list[Taken]:
        """Take entries over that `owner` has had for `idle_ms` at least."""
        found = await self._script(_CLAIM, [stream], [GROUP, owner, worker_id, idle_ms, count])
        deliveries = {row[0]: int(row[3]) for row in found[0]} if found else {}
        return [
            Taken(stream=stream, entry=entry, fields=_pairs(fields), deliveries=deliveries[entry] + 1)
            for entry, fields in (found[1] if found else ())
        ]

    async def leave(self, stream: str, worker_id: str) -> None:
        """Forget a worker that has no entries of this stream any more."""
        with translated(self.place):
            await self._client.execute_command("XGROUP", "DELCONSUMER", stream, GROUP, worker_id)

    async def set_aside(self, taken: Taken, reason: str) -> None:
        """Keep what is known of an entry that cannot be worked on, without its photo, for whoever looks into it."""
        small = {name: value[:_SET_ASIDE_LENGTH] for name, value in taken.fields.items() if name != b"image"}
        fields = [part for pair in small.items() for part in pair]
        with translated(self.place):
            await self._client.execute_command(
                "XADD", f"{self._prefix}:set-aside", "MAXLEN", "~", _SET_ASIDE_LENGTH, "*",
                "stream", taken.stream, "reason", reason, *fields,
            )  # fmt: skip

    async def collect(self, to: str, *, count: int, block_s: float) -> list[bytes]:
        """Up to `count` answers; waits up to `block_s` for the first one."""
        with translated(self.place):
            found = await self._client.execute_command("BLMPOP", block_s, 1, to, "LEFT", "COUNT", count)
        return [] if found is None else list(found[1])

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        """How many entries each stream holds."""
        return [int(length) for length in await self._script(_LENGTHS, streams, [])]

    async def now_ms(self) -> int:
        """The time of Redis' clock."""
        with translated(self.place):
            seconds, microseconds = await self._client.execute_command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def close(self) -> None:
        """Give all connections back."""
        await self._client.aclose()

    async def _make_groups(self, streams: Sequence[str]) -> None:
        """From the beginning: what was added before the first worker came waits for it."""
        for stream in streams:
            try:
                await self._client.execute_command("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def _script(self, text: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        with translated(self.place):
            digest = self._digests.get(text) or await self._load(text)
            try:
                return await self._client.execute_command("EVALSHA", digest, len(keys), *keys, *arguments)
            except NoScriptError:
                digest = await self._load(text)
                return await self._client.execute_command("EVALSHA", digest, len(keys), *keys, *arguments)

    async def _load(self, text: str) -> str:
        loaded = await self._client.execute_command("SCRIPT LOAD", text)
        digest = loaded if isinstance(loaded, str) else loaded.decode()
        self._digests[text] = digest
        return digest


def _pairs(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
