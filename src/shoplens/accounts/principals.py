"""Who a request acts for: the session or key that it shows, looked up in the database and remembered for two seconds.

Nothing here blocks the event loop: the database is asked in threads of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import structlog

from shoplens.accounts.entities import Principal, PrincipalKind
from shoplens.accounts.limits import RateLimit, RateLimits
from shoplens.errors import DatabaseUnavailable, NotAuthenticated
from shoplens.telemetry.logs import get_logger

KEY_PREFIX: Final = "slk_"
"""What every API key begins with."""
REMEMBERED_S: Final = 2.0
"""How long a session or key counts without being looked up again, and how old "nobody has an account" may be."""
_ANSWER_S: Final = 5.0
_THREADS: Final = 2
_LOCAL: Final = "local"
_MOST_REMEMBERED: Final = 10_000
_WRONG_CREDENTIALS: Final = RateLimit(name="wrong-credentials", most=30, per_s=60)

current: Final[ContextVar[Principal | None]] = ContextVar("principal", default=None)
"""The principal of the request that is being served; None where none was asked for yet."""

_log = get_logger(__name__)


def note_principal(found: Principal) -> None:
    """Note whom the current request is served for: in its log lines as `who`, and in `current`."""
    current.set(found)
    structlog.contextvars.bind_contextvars(who=_LOCAL if found.kind is PrincipalKind.LOCAL else found.id)


def forget_principal() -> None:
    """The request is over."""
    current.set(None)
    structlog.contextvars.unbind_contextvars("who")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request shows. `bearer` is a key or the token of a session, `cookie` that of a browser's session."""

    bearer: str | None = None
    cookie: str | None = None
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key that is valid now. `per_minute` bounds its requests; None: no bound of its own."""

    principal: Principal
    per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    principal: Principal
    per_minute: int | None
    until: float


class Principals:
    """Tells who asks. Its calls come from one event loop; close it at the end.

    `any_people` says whether there is any account, `session` who a token belongs to, and `key` what a key may do; all
    three may block.
    """

    def __init__(
        self,
        *,
        any_people: Callable[[], bool],
        session: Callable[[str], Principal | None],
        key: Callable[[str], KnownKey | None],
        limits: RateLimits,
    ) -> None:
        """Raises DatabaseUnavailable."""
        self._any_people = any_people
        self._session = session
        self._key = key
        self._limits = limits
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="accounts")
        self._has_people = any_people()
        self._asked_at = time.monotonic()
        self._asking: Future[bool] | None = None
        self._remembered: dict[bytes, _Remembered] = {}
        self._looking: dict[bytes, Future[_Remembered | None]] = {}
        self._changes = 0

    async def closed(self) -> bool:
        """Whether requests need an account: there is, or was, at least one person.

        It is never taken back while the process runs, so a disabled last person leaves the system closed. If the
        database does not answer, the last known answer stays.
        """
        if self._has_people or time.monotonic() - self._asked_at < REMEMBERED_S / 2:
            return self._has_people
        if self._asking is None:
            self._asking = self._threads.submit(self._any_people)
        asking = self._asking
        await _done(asking)
        self._asked_at = time.monotonic()
        if asking.done():
            self._asking = None
            if asking.exception() is None:
                self._has_people = asking.result()
                if self._has_people:
                    _log.info("accounts.closed", detail="There is a person now, so every request needs an account.")
        return self._has_people

    async def of(self, shown: Credentials) -> Principal:
        """Who shows these credentials; call it only while the system is closed.

        Raises NotAuthenticated, TooManyTries for a key above its rate and for an address with too many wrong
        credentials, and DatabaseUnavailable.
        """
        secret = shown.bearer or shown.cookie
        if not secret:
            raise NotAuthenticated("This needs an account: sign in, or send an API key as `Authorization: Bearer`.")
        digest = hashlib.sha256(secret.encode()).digest()
        known = self._remembered.get(digest)
        if known is None or known.until < time.monotonic():
            known = await self._look_up(secret, digest)
        if known is None:
            if shown.bearer:
                # Only here: a good key or session is not refused because its address also sends wrong ones.
                _log.info("access.wrong_credentials", address=shown.address)
                await self._limited(_WRONG_CREDENTIALS, shown.address)
                raise NotAuthenticated("This API key or token is not valid: it is wrong, expired or revoked.")
            raise NotAuthenticated("This session has ended. Sign in again.")
        if known.per_minute is not None:
            await self._limited(RateLimit(name="key", most=known.per_minute, per_s=60), known.principal.id)
        return known.principal

    def forget(self) -> None:
        """Look everything up again, after a person, a session or a key was changed in this process."""
        self._changes += 1
        self._asked_at = -REMEMBERED_S
        self._remembered.clear()

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, secret: str, digest: bytes) -> _Remembered | None:
        looking = self._looking.get(digest)
        if looking is None:
            looking = self._looking[digest] = self._threads.submit(self._find, secret, digest, self._changes)
            looking.add_done_callback(lambda _: self._looking.pop(digest, None))
        await _done(looking)
        if not looking.done():
            raise DatabaseUnavailable(f"The database did not say within {_ANSWER_S:g} s who asks.")
        return looking.result()

    def _find(self, secret: str, digest: bytes, changes: int) -> _Remembered | None:
        """Look it up and remember it, unless something was changed meanwhile."""
        if secret.startswith(KEY_PREFIX):
            found = self._key(secret)
        else:
            person = self._session(secret)
            found = None if person is None else KnownKey(principal=person)
        if found is None:
            self._remembered.pop(digest, None)
            return None
        until = time.monotonic() + REMEMBERED_S
        known = _Remembered(principal=found.principal, per_minute=found.per_minute, until=until)
        if changes == self._changes:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[digest] = known
        return known

    async def _limited(self, limit: RateLimit, who: str) -> None:
        if self._limits.blocks:
            await asyncio.wrap_future(self._threads.submit(self._limits.require, limit, who))
        else:
            self._limits.require(limit, who)


async def _done(work: Future[Any]) -> None:
    """Wait until `work` is done, but no longer than `_ANSWER_S`."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def wake(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    work.add_done_callback(wake)
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            await done.wait()
