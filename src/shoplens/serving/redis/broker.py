"""Redis as the broker between web processes and workers: the queue of jobs, their replies, and who works.

For each model and priority there is one stream with a consumer group. An entry stays in its stream until it is
answered, so the length of a stream is what waits and what is in work, and the entries of a dead worker can be claimed.
Every change is one script, so it happens wholly or not at all. All times are by the clock of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError

from shoplens.errors import Misconfigured, QueueFull, QueueUnavailable
from shoplens.serving.engine import Priority
from shoplens.serving.redis import messages
from shoplens.serving.redis.messages import Heartbeat
from shoplens.telemetry.secrets import shown_address

PRIORITIES: Final[tuple[Priority, ...]] = ("online", "batch")
HEARTBEAT_S: Final = 1.0
ALIVE_MS: Final = 4_000
"""A worker without a heartbeat for so long counts as dead, and its jobs are claimed by others."""

_CONNECT_S: Final = 3.0
_COMMAND_S: Final = 5.0
"""How long a command may take beyond the time that it blocks by itself."""
_CONNECTIONS: Final = 32
_OPTIONS: Final[dict[str, Any]] = {
    "socket_connect_timeout": _CONNECT_S,
    "socket_timeout": _COMMAND_S,
    "protocol": 2,
    "client_name": "shoplens",
}
_GROUP: Final = "workers"
_REPLY_LIFE_MS: Final = 60_000
"""How long a reply waits for a client that may be gone."""
_FORGOTTEN_MS: Final = 3_600_000
_QUARANTINE_LENGTH: Final = 1_000
_QUARANTINED_BYTES: Final = 1_000
_RETRY_FULL_S: Final = 1.0

# KEYS: stream, bytes.  ARGV: most entries, most bytes, milliseconds, version, id, reply list, job, image.
_ADD: Final = """
local length = redis.call('XLEN', KEYS[1])
local held = 0
if length > 0 then held = tonumber(redis.call('GET', KEYS[2]) or '0') end
if length >= tonumber(ARGV[1]) or (length > 0 and held + #ARGV[8] > tonumber(ARGV[2])) then return {length} end
local now = redis.call('TIME')
local by = now[1] * 1000 + math.floor(now[2] / 1000) + tonumber(ARGV[3])
local entry = redis.call('XADD', KEYS[1], '*', 'v', ARGV[4], 'id', ARGV[5], 'to', ARGV[6],
  'by', string.format('%.0f', by), 'job', ARGV[7], 'image', ARGV[8])
redis.call('SET', KEYS[2], string.format('%.0f', held + #ARGV[8]))
return {length, entry}
"""
# KEYS: stream, bytes, reply list.  ARGV: group, entry, bytes of its image, reply ('': none), its life in ms.
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
# KEYS: times, heartbeats.  ARGV: worker, heartbeat ('': it leaves), forgotten after ms.
_HEARTBEAT: Final = """
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
"""
# KEYS: times, heartbeats.  ARGV: alive for ms.  The heartbeats of those who are alive.
_WORKERS: Final = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local found = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ms - tonumber(ARGV[1]), '+inf')) do
  local heartbeat = redis.call('HGET', KEYS[2], worker)
  if heartbeat then found[#found + 1] = heartbeat end
end
return found
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An entry that a worker has taken. `attempt` counts the workers that had it, this one included."""

    stream: str
    entry: bytes
    fields: dict[bytes, bytes]
    attempt: int = 1

    @property
    def added_ms(self) -> int:
        """When it was added, by the clock of Redis: the first half of an entry's id."""
        return int(self.entry.partition(b"-")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many photos of one model and priority, and how many bytes of them, the queue may hold."""

    jobs: int
    image_bytes: int


class Broker:
    """One pool of connections, opened with the first command, for one event loop.

    Every coroutine raises QueueUnavailable, with what to do, when Redis does not answer or refuses. Raises
    Misconfigured for a URL that is not one of Redis.
    """

    def __init__(self, url: str, *, prefix: str) -> None:
        with _readable(url):
            pool = BlockingConnectionPool.from_url(
                url, retry=Retry(NoBackoff(), 0), max_connections=_CONNECTIONS, timeout=_COMMAND_S, **_OPTIONS
            )
        self._client: Redis = Redis.from_pool(pool)
        self._server = shown_address(url)
        self._prefix = prefix
        self._workers = (f"{prefix}:workers:seen", f"{prefix}:workers:heartbeats")
        register = self._client.register_script
        self._add, self._finish, self._owners, self._claim = map(register, (_ADD, _FINISH, _OWNERS, _CLAIM))
        self._lengths, self._heartbeat, self._alive = map(register, (_LENGTHS, _HEARTBEAT, _WORKERS))

    def stream(self, model: str, priority: Priority) -> str:
        """The stream of this model and priority."""
        return f"{self._prefix}:jobs:{priority}:{model}"

    def replies(self, client_id: str) -> str:
        """The list in which a client finds its replies."""
        return f"{self._prefix}:replies:{client_id}"

    async def add(
        self,
        stream: str,
        job_id: str,
        *,
        reply_to: str,
        job: bytes,
        image: bytes,
        timeout_s: float,
        limits: QueueLimits,
    ) -> bytes:
        """Put a job into `stream`, to be answered within `timeout_s`, and return the id of its entry.

        Raises QueueFull, and then nothing was added.
        """
        timeout_ms = max(1, round(1000 * timeout_s))
        with self._translated():
            added = await self._add(
                [stream, f"{stream}:bytes"],
                [limits.jobs, limits.image_bytes, timeout_ms, messages.VERSION, job_id, reply_to, job, image],
            )
        if len(added) < 2:
            raise QueueFull(f"The queue is full ({added[0]} photos wait); try again.", retry_after_s=_RETRY_FULL_S)
        return bytes(added[1])

    async def holds(self, stream: str, entry: bytes) -> bool:
        """Whether an entry has not been answered yet."""
        with self._translated():
            return bool(await self._client.xrange(stream, entry, entry, 1))

    async def finish(self, stream: str, entry: bytes, *, image_bytes: int, reply_to: str, reply: bytes) -> bool:
        """Remove an entry and send its reply; returns False, and sends none, when it was removed before."""
        with self._translated():
            keys = [stream, f"{stream}:bytes", reply_to]
            return bool(await self._finish(keys, [_GROUP, entry, image_bytes, reply, _REPLY_LIFE_MS]))

    async def discard(self, stream: str, entry: bytes, *, image_bytes: int) -> None:
        """Remove an entry whose reply nobody waits for."""
        await self.finish(stream, entry, image_bytes=image_bytes, reply_to=self.replies("nobody"), reply=b"")

    async def take(self, streams: Sequence[str], worker_id: str, *, count: int, block_ms: int | None) -> list[Delivery]:
        """Up to `count` new entries of each stream; waits up to `block_ms` for the first one, None: not at all."""
        with self._translated():
            try:
                found: Any = await self._client.xreadgroup(
                    _GROUP, worker_id, dict.fromkeys(streams, ">"), count=count, block=block_ms
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._make_groups(streams)
                return []
        return [
            Delivery(stream=name.decode(), entry=entry, fields=fields or {})
            for name, entries in found or ()
            for entry, fields in entries
        ]

    async def owners(self, stream: str) -> dict[str, int]:
        """How many entries each worker has of this stream; workers without any are included."""
        with self._translated():
            rows = await self._owners([stream], [_GROUP])
        return {name.decode(): int(pending) for name, pending in zip(rows[::2], rows[1::2], strict=True)}

    async def claim(self, stream: str, owner: str, worker_id: str, *, count: int, idle_ms: int) -> list[Delivery]:
        """Take over entries that `owner` has had for at least `idle_ms`."""
        with self._translated():
            found = await self._claim([stream], [_GROUP, owner, worker_id, idle_ms, count])
        attempts = {row[0]: int(row[3]) + 1 for row in found[0]} if found else {}
        return [
            Delivery(
                stream=stream,
                entry=entry,
                fields=dict(zip(fields[::2], fields[1::2], strict=True)),
                attempt=attempts[entry],
            )
            for entry, fields in (found[1] if found else ())
        ]

    async def forget_worker(self, stream: str, worker_id: str) -> None:
        """Remove a worker that has no entries of this stream any more from its group."""
        with self._translated():
            await self._client.xgroup_delconsumer(stream, _GROUP, worker_id)

    async def quarantine(self, delivery: Delivery, reason: str) -> None:
        """Keep what is known of an entry that cannot be processed, without its photo, for people to look at."""
        fields: dict[Any, Any] = {"stream": delivery.stream, "reason": reason}
        fields |= {name: value[:_QUARANTINED_BYTES] for name, value in delivery.fields.items() if name != b"image"}
        with self._translated():
            await self._client.xadd(f"{self._prefix}:quarantine", fields, maxlen=_QUARANTINE_LENGTH)

    async def collect(self, reply_to: str, *, count: int, block_s: float) -> list[bytes]:
        """Up to `count` replies; waits up to `block_s` for the first one."""
        with self._translated():
            found: Any = await self._client.blmpop(block_s, 1, reply_to, direction="LEFT", count=count)
        return [] if found is None else list(found[1])

    async def lengths(self, streams: Sequence[str]) -> list[int]:
        """How many entries each stream holds."""
        with self._translated():
            return [int(length) for length in await self._lengths(list(streams), [])]

    async def now_ms(self) -> int:
        """The time by the clock of Redis."""
        with self._translated():
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Tell everyone that this worker is alive."""
        with self._translated():
            await self._heartbeat(
                self._workers, [heartbeat.worker_id, messages.encode_heartbeat(heartbeat), _FORGOTTEN_MS]
            )

    async def leave(self, worker_id: str) -> None:
        """Tell everyone that a worker has stopped."""
        with self._translated():
            await self._heartbeat(self._workers, [worker_id, b"", _FORGOTTEN_MS])

    async def workers(self) -> tuple[Heartbeat, ...]:
        """The workers that are alive."""
        with self._translated():
            return messages.decode_heartbeats(await self._alive(self._workers, [ALIVE_MS]))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _make_groups(self, streams: Sequence[str]) -> None:
        """From the beginning of each stream, so that jobs added before the first worker started are taken."""
        for stream in streams:
            try:
                await self._client.xgroup_create(stream, _GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def _translated(self) -> Any:
        return _translated(self._server)


def list_workers(url: str, *, prefix: str) -> tuple[Heartbeat, ...]:
    """The workers that are alive, in a blocking call. Raises QueueUnavailable within seconds, and Misconfigured."""
    with _readable(url):
        client = redis.Redis.from_url(url, **_OPTIONS)
    with _translated(shown_address(url)), client:
        keys = (f"{prefix}:workers:seen", f"{prefix}:workers:heartbeats")
        found: Any = client.eval(_WORKERS, len(keys), *keys, str(ALIVE_MS))
        return messages.decode_heartbeats(found)


@contextmanager
def _readable(url: str) -> Iterator[None]:
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise Misconfigured("redis_url does not begin with redis://, rediss:// or unix://.")
    try:
        yield
    except ValueError as error:
        raise Misconfigured("redis_url cannot be read; it looks like redis://:password@host:6379/0.") from error


@contextmanager
def _translated(server: str) -> Iterator[None]:
    """Raises every error of the client as QueueUnavailable, which says what to do and never holds the password."""
    try:
        yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise QueueUnavailable(f"Redis at {server} denies access. Check user and password in redis_url.") from error
    except ResponseError as error:
        if "AUTH" in str(error):
            raise QueueUnavailable(f"Redis at {server} requires a password. Add one to redis_url.") from error
        raise QueueUnavailable(f"Redis at {server} reports an error: {str(error)[:200]}") from error
    except (RedisError, OSError, TimeoutError) as error:
        cause = error.__cause__ or error.__context__
        reason = getattr(cause, "strerror", None) or type(error).__name__
        raise QueueUnavailable(
            f"Redis at {server} does not answer ({reason}). Is it running, and is redis_url right?"
        ) from error
