"""Signing in: the same answer for all that is wrong, locks that grow, and the second factor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import pytest

from shoplens.accounts.entities import SYSTEM, Role, SessionKind
from shoplens.accounts.errors import SecondFactorRequired, SignInRefused, TooManySignIns
from shoplens.accounts.passwords import PasswordHasher
from shoplens.accounts.sessions import Client
from shoplens.accounts.throttle import lock_s
from tests.conftest import ONLY_SQLITE
from tests.unit.accounts.services import HERE, PASSWORD, Services


def refusal(attempt: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """The sentence with which an attempt is refused."""
    with pytest.raises(SignInRefused) as refused:
        attempt(*arguments, **options)
    return str(refused.value)


@ONLY_SQLITE
def test_all_that_is_wrong_has_the_same_answer(services: Services) -> None:
    """Nobody finds out which names exist."""
    services.add()
    services.people.add("nopassword", Role.CLERK, by=SYSTEM)
    services.people.change(services.add("gone").id, by=SYSTEM, disabled=True)
    attempts = [("anna", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("nopassword", ""), ("a b", "x")]
    assert 1 == len({refusal(services.sign_in, name, password) for name, password in attempts})


@ONLY_SQLITE
def test_an_unknown_name_takes_as_long_as_a_wrong_password(services: Services) -> None:
    """A password is hashed for both; processor time, since the machine may be busy."""
    services.add()

    def cost(name: str) -> float:
        started = time.thread_time()
        refusal(services.sign_in, name, "wrong password")
        return time.thread_time() - started

    cost("warm")
    known, unknown = median(cost("anna") for _ in range(4)), median(cost(f"nobody{n}") for n in range(4))
    assert 0.6 < unknown / known < 1.6


def test_names_are_taken_in_any_case(services: Services) -> None:
    """Phones begin with a capital letter."""
    services.add("anna@example.org")
    assert "anna@example.org" == services.sign_in(" Anna@Example.org ").person.name


@pytest.mark.parametrize("name", ["anna", "nobody"])
def test_a_name_is_locked_for_longer_and_longer(services: Services, name: str) -> None:
    """The same for a name that nobody has; the right password does not help while it is locked."""
    services.add()
    for _ in range(5):
        refusal(services.sign_in, name, "wrong password")
    with pytest.raises(TooManySignIns, match=r"Try again in (30|29) seconds") as refused:
        services.sign_in(name)
    assert 25 < refused.value.retry_after_s <= 30


def test_the_lock_of_a_person_ends_and_grows(services: Services) -> None:
    """After 30 seconds one try is free; if it fails, the lock lasts a minute."""
    services.add()
    for _ in range(5):
        refusal(services.sign_in, password="wrong password")
    services.wait(seconds=31)
    refusal(services.sign_in, password="wrong password")
    services.wait(seconds=31)
    with pytest.raises(TooManySignIns):
        services.sign_in()
    assert {services.people.named("anna").id} == services.people.locked(services.people.all())
    services.wait(seconds=30)
    assert set() == services.people.locked(services.people.all())
    assert 0 == services.sign_in().person.failed_sign_ins


def test_locks_grow_to_a_quarter_of_an_hour() -> None:
    """Not longer: an attacker must not keep a person out for days."""
    assert [0, 0, 30, 60, 120, 240, 480, 900, 900] == [lock_s(each) for each in (0, 4, 5, 6, 7, 8, 9, 10, 10_000)]


def fail_from(services: Services, addresses: Iterable[str]) -> None:
    """Failed sign-ins that were counted before."""
    for address in addresses:
        services.throttle.failed(name=None, address=address)


@ONLY_SQLITE
def test_one_address_cannot_try_many_names(services: Services) -> None:
    """Thirty failures; another address is not concerned."""
    services.add()
    fail_from(services, ["192.0.2.7"] * 29)
    refusal(services.sign_in, "guess", "wrong password")
    with pytest.raises(TooManySignIns, match="minutes"):
        services.sign_in()
    services.sign_in(client=Client(address="192.0.2.8"))


@ONLY_SQLITE
def test_addresses_of_one_ipv6_network_count_as_one(services: Services) -> None:
    """A client has 2**64 of them. Addresses of IPv4 that are written as IPv6 are counted one by one."""
    services.add()
    fail_from(services, [f"2001:db8::{number:x}" for number in range(1, 31)])
    with pytest.raises(TooManySignIns):
        services.sign_in(client=Client(address="2001:db8::ffff"))
    services.sign_in(client=Client(address="2001:db8:0:1::1"))
    fail_from(services, ["::ffff:192.0.2.7"] * 30)
    services.sign_in(client=Client(address="::ffff:192.0.2.8"))


def test_between_password_and_code_a_session_opens_nothing(services: Services) -> None:
    """It is rotated when the code was right, and the token between is void."""
    totp, _ = services.enrol(services.add())
    waiting = services.sign_in()
    assert waiting.needs_totp
    assert services.sessions.principal_of(waiting.token) is None
    signed_in = services.sign_ins.confirm(waiting.token, totp.at(services.now), client=HERE)
    assert signed_in.token != waiting.token
    assert services.sessions.find(waiting.token) is None
    assert services.sessions.principal_of(signed_in.token) is not None


def test_a_code_is_taken_once(services: Services) -> None:
    """Who looked over a shoulder comes too late."""
    totp, _ = services.enrol(services.add())
    services.sign_ins.confirm(services.sign_in().token, totp.at(services.now), client=HERE)
    again = services.sign_in().token
    refusal(services.sign_ins.confirm, again, totp.at(services.now), client=HERE)
    services.wait(seconds=30)
    services.sign_ins.confirm(again, totp.at(services.now), client=HERE)


@pytest.mark.parametrize(("late_s", "is_taken"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
def test_a_code_may_be_one_step_early_or_late(services: Services, late_s: int, is_taken: bool) -> None:
    """Clocks differ, and typing takes time."""
    totp, _ = services.enrol(services.add())
    services.wait(seconds=60)
    token = services.sign_in().token
    code = totp.at(int(services.now.timestamp()) + late_s)
    if is_taken:
        services.sign_ins.confirm(token, code, client=HERE)
    else:
        refusal(services.sign_ins.confirm, token, code, client=HERE)


def test_wrong_codes_lock_the_person_as_wrong_passwords_do(services: Services) -> None:
    """A right password in between does not set the count back."""
    totp, _ = services.enrol(services.add())
    for _ in range(5):
        token = services.sign_in().token
        refusal(services.sign_ins.confirm, token, "000000", client=HERE)
    with pytest.raises(TooManySignIns):
        services.sign_ins.confirm(token, totp.at(services.now), client=HERE)


def test_a_recovery_code_opens_once(services: Services) -> None:
    """Ten of them, shown at the beginning; capital letters and spaces do not matter."""
    person = services.add()
    _, codes = services.enrol(person)
    assert 10 == len(set(codes)) == services.second_factor.recovery_codes_left(person.id)
    services.sign_ins.confirm(services.sign_in().token, codes[3].upper().replace("-", " "), client=HERE)
    assert 9 == services.second_factor.recovery_codes_left(person.id)
    refusal(services.sign_ins.confirm, services.sign_in().token, codes[3], client=HERE)


def test_the_second_factor_waits_ten_minutes_for_its_code(services: Services) -> None:
    """Then the password is asked for again."""
    totp, _ = services.enrol(services.add())
    token = services.sign_in().token
    services.wait(minutes=10)
    assert "not signed in" in refusal(services.sign_ins.confirm, token, totp.at(services.now), client=HERE)


def test_a_program_sends_the_code_with_its_password(services: Services) -> None:
    """The password flow has one request."""
    totp, _ = services.enrol(services.add())
    with pytest.raises(SecondFactorRequired, match="otp"):
        services.sign_ins.sign_in("anna", PASSWORD, client=HERE, kind=SessionKind.TOKEN)
    signed_in = services.sign_ins.sign_in(
        "anna", PASSWORD, client=HERE, kind=SessionKind.TOKEN, code=totp.at(services.now)
    )
    assert services.sessions.principal_of(signed_in.token) is not None


def test_a_removed_second_factor_is_not_asked_for(services: Services) -> None:
    """And its recovery codes are void."""
    person = services.add()
    services.enrol(person)
    services.second_factor.remove(person.id, by=SYSTEM)
    assert not services.sign_in().needs_totp
    assert 0 == services.second_factor.recovery_codes_left(person.id)


@ONLY_SQLITE
def test_hashing_is_bounded(services: Services) -> None:
    """Many sign-ins at once are refused instead of taking every thread."""
    hasher = PasswordHasher()
    for _ in range(10):
        hasher._places.acquire()
    with pytest.raises(Exception, match="Too many people sign in at once"):
        hasher.hash(PASSWORD)
