"""Who a request acts for: remembered for two seconds, looked up in other threads, closed once there is a person."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shoplens.accounts import principals as module
from shoplens.accounts.entities import Permission, Principal, PrincipalKind
from shoplens.accounts.limits import RateLimit, RateLimits
from shoplens.accounts.principals import REMEMBERED_S, Credentials, KnownKey, Principals
from shoplens.errors import DatabaseUnavailable, NotAuthenticated, TooManyTries

pytestmark = pytest.mark.anyio

ANNA = Principal(kind=PrincipalKind.PERSON, id="anna", name="Anna", permissions=frozenset(Permission))
SHOP = Principal(kind=PrincipalKind.KEY, id="shop", name="Shop", permissions=frozenset({Permission.PREDICT}))


class Accounts:
    """What the database would say; counts how often it is asked."""

    def __init__(self) -> None:
        self.people = True
        self.valid = {"token": KnownKey(principal=ANNA), "slk_key": KnownKey(principal=SHOP)}
        self.asked = 0
        self.away = False
        self.threads: set[str] = set()

    def any_people(self) -> bool:
        """Whether there is a person."""
        self._ask()
        return self.people

    def session(self, token: str) -> Principal | None:
        """Of a session."""
        self._ask()
        known = self.valid.get(token)
        return None if known is None else known.principal

    def key(self, text: str) -> KnownKey | None:
        """Of a key."""
        self._ask()
        return self.valid.get(text)

    def _ask(self) -> None:
        self.asked += 1
        self.threads.add(threading.current_thread().name)
        if self.away:
            raise DatabaseUnavailable("The database is away.")


@pytest.fixture
def accounts() -> Accounts:
    """One person and one key."""
    return Accounts()


@pytest.fixture
def make(accounts: Accounts) -> Iterator[Callable[[], Principals]]:
    """Resolvers over these accounts."""
    made: list[Principals] = []

    def build() -> Principals:
        made.append(
            Principals(any_people=accounts.any_people, session=accounts.session, key=accounts.key, limits=RateLimits())
        )
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the monotonic clock of the resolver forward."""
    ahead = [0.0]
    real = time.monotonic

    class Time:
        monotonic = staticmethod(lambda: real() + ahead[0])

    monkeypatch.setattr(module, "time", Time)

    def forward(seconds: float) -> None:
        ahead[0] += seconds

    return forward


async def test_sessions_and_keys_are_told_apart_by_how_they_begin(make: Callable[[], Principals]) -> None:
    """A bearer token may be either; a cookie is a session."""
    principals = make()
    assert ANNA == await principals.of(Credentials(cookie="token"))
    assert ANNA == await principals.of(Credentials(bearer="token"))
    assert SHOP == await principals.of(Credentials(bearer="slk_key"))


async def test_a_thousand_requests_ask_the_database_once(make: Callable[[], Principals], accounts: Accounts) -> None:
    """Also those that come at once, and never in the thread of the event loop."""
    principals = make()
    accounts.asked, accounts.threads = 0, set()
    await asyncio.gather(*(principals.of(Credentials(bearer="slk_key")) for _ in range(1000)))
    assert 1 == accounts.asked
    assert threading.current_thread().name not in accounts.threads


async def test_a_revoked_key_is_refused_two_seconds_later(
    make: Callable[[], Principals], accounts: Accounts, clock: Callable[[float], None]
) -> None:
    """And at once in the process that revoked it."""
    principals = make()
    await principals.of(Credentials(bearer="slk_key"))
    revoked = accounts.valid.pop("slk_key")
    await principals.of(Credentials(bearer="slk_key"))
    clock(REMEMBERED_S + 0.01)
    with pytest.raises(NotAuthenticated):
        await principals.of(Credentials(bearer="slk_key"))
    accounts.valid["slk_key"] = revoked
    await principals.of(Credentials(bearer="slk_key"))
    del accounts.valid["slk_key"]
    principals.forget()
    with pytest.raises(NotAuthenticated):
        await principals.of(Credentials(bearer="slk_key"))


async def test_the_first_person_closes_a_running_server_within_two_seconds(
    make: Callable[[], Principals], accounts: Accounts, clock: Callable[[float], None]
) -> None:
    """And nothing opens it again."""
    accounts.people = False
    principals = make()
    assert not await principals.closed()
    accounts.people = True
    clock(REMEMBERED_S)
    assert await principals.closed()
    accounts.people = False
    clock(60)
    assert await principals.closed()


async def test_without_an_answer_of_the_database_what_was_known_stays(
    make: Callable[[], Principals], accounts: Accounts, clock: Callable[[float], None]
) -> None:
    """A system without accounts works on as far as it can; one with accounts lets nobody in."""
    accounts.people = False
    open_one = make()
    accounts.people = True
    closed_one = make()
    accounts.away = True
    clock(60)
    assert not await open_one.closed()
    assert await closed_one.closed()
    with pytest.raises(DatabaseUnavailable):
        await closed_one.of(Credentials(bearer="slk_key"))


async def test_wrong_keys_of_one_address_are_slowed_down_and_right_ones_are_not(make: Callable[[], Principals]) -> None:
    """429 with how long to wait; other addresses are not concerned."""
    principals = make()

    async def refused(address: str) -> type[BaseException]:
        with pytest.raises((NotAuthenticated, TooManyTries)) as caught:
            await principals.of(Credentials(bearer="slk_wrong", address=address))
        return caught.type

    seen = [await refused("203.0.113.7") for _ in range(40)]
    assert [NotAuthenticated] * 30 == seen[:30]
    assert TooManyTries in seen[30:]
    assert NotAuthenticated is await refused("203.0.113.8")
    assert SHOP == await principals.of(Credentials(bearer="slk_key", address="203.0.113.7"))


async def test_an_old_cookie_is_only_asked_to_sign_in_again(make: Callable[[], Principals]) -> None:
    """A page that is open in a browser asks again and again."""
    principals = make()
    for _ in range(60):
        with pytest.raises(NotAuthenticated, match="Sign in again"):
            await principals.of(Credentials(cookie="old", address="203.0.113.7"))


async def test_a_key_above_its_rate_has_to_wait(make: Callable[[], Principals], accounts: Accounts) -> None:
    """With how long."""
    accounts.valid["slk_slow"] = KnownKey(principal=SHOP, per_minute=5)
    principals = make()
    for _ in range(5):
        await principals.of(Credentials(bearer="slk_slow"))
    with pytest.raises(TooManyTries) as caught:
        for _ in range(5):  # the window of a clock's minute may have ended in between
            await principals.of(Credentials(bearer="slk_slow"))
    assert 0 < caught.value.retry_after_s <= 60


async def test_nothing_shown_is_refused_with_what_to_do(make: Callable[[], Principals]) -> None:
    """A sentence for people and for programs."""
    with pytest.raises(NotAuthenticated, match="sign in, or send an API key"):
        await make().of(Credentials())


def test_limits_in_redis_hold_for_all_processes_and_survive_its_loss(redis_url: str) -> None:
    """Without Redis each process counts for itself."""
    limit = RateLimit(name="test", most=3, per_s=3600)
    prefix = f"test-{time.time_ns()}"
    one, other = RateLimits(redis_url, prefix=prefix), RateLimits(redis_url, prefix=prefix)
    for limits in (one, other, one):
        limits.require(limit, "shop")
    with pytest.raises(TooManyTries):
        other.require(limit, "shop")
    lost = RateLimits("redis://127.0.0.1:9/0")
    for _ in range(3):
        lost.require(limit, "shop")
    with pytest.raises(TooManyTries):
        lost.require(limit, "shop")


async def test_asking_who_it_is_costs_less_than_50_microseconds(make: Callable[[], Principals]) -> None:
    """Of processor time, for a key or session that is remembered; 7 to 17 were measured for the whole dependency."""
    principals, shown = make(), Credentials(bearer="slk_key", address="203.0.113.7")
    await principals.of(shown)
    costs = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(2000):
            await principals.closed()
            await principals.of(shown)
        costs.append((time.process_time() - started) / 2000)
    assert min(costs) < 50e-6
