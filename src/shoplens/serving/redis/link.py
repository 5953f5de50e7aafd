"""The connection to Redis: opened from a URL, with bounded times, and with every fault told without the password."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError

from shoplens.errors import Misconfigured, QueueUnavailable

CONNECT_S: Final = 3.0
ANSWER_S: Final = 5.0
"""How long a command may take beyond the time that it blocks by itself."""
_READ_BYTES: Final = 262_144
_CONNECTIONS: Final = 32
_OPTIONS: Final[dict[str, Any]] = {
    "socket_connect_timeout": CONNECT_S,
    "socket_timeout": ANSWER_S,
    "protocol": 2,
    "client_name": "shoplens",
}


class Client(Protocol):
    """What we use of the library's client, which has no types for it."""

    def execute_command(self, *parts: Any) -> Awaitable[Any]:
        """Send one command and wait for its reply."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Give all connections back."""
        ...


def connect(url: str) -> Client:
    """A pool of connections for one event loop, none of them open yet. Raises Misconfigured for another kind of URL."""
    _require_redis(url)
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_read_size=_READ_BYTES,
            max_connections=_CONNECTIONS,
            timeout=ANSWER_S,
            **_OPTIONS,
        )
    except ValueError as error:
        raise Misconfigured("redis_url cannot be read; it looks like redis://:password@host:6379/0.") from error
    return cast("Client", Redis.from_pool(pool))


def connect_blocking(url: str) -> redis.Redis:
    """The same for plain calls, before there is an event loop. Raises Misconfigured for another kind of URL."""
    _require_redis(url)
    try:
        return redis.Redis.from_url(url, **_OPTIONS)
    except ValueError as error:
        raise Misconfigured("redis_url cannot be read; it looks like redis://:password@host:6379/0.") from error


def place_of(url: str) -> str:
    """How messages name the server: without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Every fault of the queue as QueueUnavailable with what to do."""
    try:
        yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise QueueUnavailable(f"Redis at {place} refuses us. Check user and password in redis_url.") from error
    except ResponseError as error:
        if "AUTH" in str(error):
            raise QueueUnavailable(f"Redis at {place} wants a password. Put one into redis_url.") from error
        raise QueueUnavailable(f"Redis at {place} refuses: {str(error)[:200]}") from error
    except (RedisError, OSError, TimeoutError) as error:
        raise QueueUnavailable(
            f"Redis at {place} does not answer ({_kind(error)}). Is it running, and is redis_url right?"
        ) from error


def _kind(error: BaseException) -> str:
    """A fault in a few words; nothing of a URL is in it."""
    cause = error.__cause__ or error.__context__
    text = getattr(cause, "strerror", None) or type(error).__name__
    return str(text)


def _require_redis(url: str) -> None:
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise Misconfigured("redis_url does not begin with redis://, rediss:// or unix://.")
