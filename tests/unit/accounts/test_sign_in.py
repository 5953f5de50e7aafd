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
from tests.unit.accounts.desk import HERE, PASSWORD, Desk


def refusal(attempt: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """The sentence with which an attempt is refused."""
    with pytest.raises(SignInRefused) as refused:
        attempt(*arguments, **options)
    return str(refused.value)


@ONLY_SQLITE
def test_all_that_is_wrong_has_the_same_answer(desk: Desk) -> None:
    """Nobody finds out which names exist."""
    desk.add()
    desk.people.add("nopassword", Role.CLERK, by=SYSTEM)
    desk.people.change(desk.add("gone").id, by=SYSTEM, disabled=True)
    attempts = [("anna", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("nopassword", ""), ("a b", "x")]
    assert 1 == len({refusal(desk.sign_in, name, password) for name, password in attempts})


@ONLY_SQLITE
def test_an_unknown_name_takes_as_long_as_a_wrong_password(desk: Desk) -> None:
    """A password is hashed for both; processor time, since the machine may be busy."""
    desk.add()

    def cost(name: str) -> float:
        started = time.thread_time()
        refusal(desk.sign_in, name, "wrong password")
        return time.thread_time() - started

    cost("warm")
    known, unknown = median(cost("anna") for _ in range(4)), median(cost(f"nobody{n}") for n in range(4))
    assert 0.6 < unknown / known < 1.6


def test_names_are_taken_in_any_case(desk: Desk) -> None:
    """Phones begin with a capital letter."""
    desk.add("anna@example.org")
    assert "anna@example.org" == desk.sign_in(" Anna@Example.org ").person.name


@pytest.mark.parametrize("name", ["anna", "nobody"])
def test_a_name_is_locked_for_longer_and_longer(desk: Desk, name: str) -> None:
    """The same for a name that nobody has; the right password does not help while it is locked."""
    desk.add()
    for _ in range(5):
        refusal(desk.sign_in, name, "wrong password")
    with pytest.raises(TooManySignIns, match=r"Try again in (30|29) seconds") as refused:
        desk.sign_in(name)
    assert 25 < refused.value.retry_after_s <= 30


def test_the_lock_of_a_person_ends_and_grows(desk: Desk) -> None:
    """After 30 seconds one try is free; if it fails, the lock lasts a minute."""
    desk.add()
    for _ in range(5):
        refusal(desk.sign_in, password="wrong password")
    desk.wait(seconds=31)
    refusal(desk.sign_in, password="wrong password")
    desk.wait(seconds=31)
    with pytest.raises(TooManySignIns):
        desk.sign_in()
    assert {desk.people.named("anna").id} == desk.people.locked(desk.people.all())
    desk.wait(seconds=30)
    assert set() == desk.people.locked(desk.people.all())
    assert 0 == desk.sign_in().person.failed_sign_ins


def test_locks_grow_to_a_quarter_of_an_hour() -> None:
    """Not longer: an attacker must not keep a person out for days."""
    assert [0, 0, 30, 60, 120, 240, 480, 900, 900] == [lock_s(each) for each in (0, 4, 5, 6, 7, 8, 9, 10, 10_000)]


def fail_from(desk: Desk, addresses: Iterable[str]) -> None:
    """Failed sign-ins that were counted before."""
    for address in addresses:
        desk.throttle.failed(name=None, address=address)


@ONLY_SQLITE
def test_one_address_cannot_try_many_names(desk: Desk) -> None:
    """Thirty failures; another address is not concerned."""
    desk.add()
    fail_from(desk, ["192.0.2.7"] * 29)
    refusal(desk.sign_in, "guess", "wrong password")
    with pytest.raises(TooManySignIns, match="minutes"):
        desk.sign_in()
    desk.sign_in(client=Client(address="192.0.2.8"))


@ONLY_SQLITE
def test_addresses_of_one_ipv6_network_count_as_one(desk: Desk) -> None:
    """A client has 2**64 of them. Addresses of IPv4 that are written as IPv6 are counted one by one."""
    desk.add()
    fail_from(desk, [f"2001:db8::{number:x}" for number in range(1, 31)])
    with pytest.raises(TooManySignIns):
        desk.sign_in(client=Client(address="2001:db8::ffff"))
    desk.sign_in(client=Client(address="2001:db8:0:1::1"))
    fail_from(desk, ["::ffff:192.0.2.7"] * 30)
    desk.sign_in(client=Client(address="::ffff:192.0.2.8"))


def test_between_password_and_code_a_session_opens_nothing(desk: Desk) -> None:
    """It is rotated when the code was right, and the token between is void."""
    totp, _ = desk.enrol(desk.add())
    waiting = desk.sign_in()
    assert waiting.needs_totp
    assert desk.sessions.principal_of(waiting.token) is None
    signed_in = desk.sign_ins.confirm(waiting.token, totp.at(desk.now), client=HERE)
    assert signed_in.token != waiting.token
    assert desk.sessions.find(waiting.token) is None
    assert desk.sessions.principal_of(signed_in.token) is not None


def test_a_code_is_taken_once(desk: Desk) -> None:
    """Who looked over a shoulder comes too late."""
    totp, _ = desk.enrol(desk.add())
    desk.sign_ins.confirm(desk.sign_in().token, totp.at(desk.now), client=HERE)
    again = desk.sign_in().token
    refusal(desk.sign_ins.confirm, again, totp.at(desk.now), client=HERE)
    desk.wait(seconds=30)
    desk.sign_ins.confirm(again, totp.at(desk.now), client=HERE)


@pytest.mark.parametrize(("late_s", "is_taken"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
def test_a_code_may_be_one_step_early_or_late(desk: Desk, late_s: int, is_taken: bool) -> None:
    """Clocks differ, and typing takes time."""
    totp, _ = desk.enrol(desk.add())
    desk.wait(seconds=60)
    token = desk.sign_in().token
    code = totp.at(int(desk.now.timestamp()) + late_s)
    if is_taken:
        desk.sign_ins.confirm(token, code, client=HERE)
    else:
        refusal(desk.sign_ins.confirm, token, code, client=HERE)


def test_wrong_codes_lock_the_person_as_wrong_passwords_do(desk: Desk) -> None:
    """A right password in between does not set the count back."""
    totp, _ = desk.enrol(desk.add())
    for _ in range(5):
        token = desk.sign_in().token
        refusal(desk.sign_ins.confirm, token, "000000", client=HERE)
    with pytest.raises(TooManySignIns):
        desk.sign_ins.confirm(token, totp.at(desk.now), client=HERE)


def test_a_recovery_code_opens_once(desk: Desk) -> None:
    """Ten of them, shown at the beginning; capital letters and spaces do not matter."""
    person = desk.add()
    _, codes = desk.enrol(person)
    assert 10 == len(set(codes)) == desk.second_factor.recovery_codes_left(person.id)
    desk.sign_ins.confirm(desk.sign_in().token, codes[3].upper().replace("-", " "), client=HERE)
    assert 9 == desk.second_factor.recovery_codes_left(person.id)
    refusal(desk.sign_ins.confirm, desk.sign_in().token, codes[3], client=HERE)


def test_the_second_factor_waits_ten_minutes_for_its_code(desk: Desk) -> None:
    """Then the password is asked for again."""
    totp, _ = desk.enrol(desk.add())
    token = desk.sign_in().token
    desk.wait(minutes=10)
    assert "not signed in" in refusal(desk.sign_ins.confirm, token, totp.at(desk.now), client=HERE)


def test_a_program_sends_the_code_with_its_password(desk: Desk) -> None:
    """The password flow has one request."""
    totp, _ = desk.enrol(desk.add())
    with pytest.raises(SecondFactorRequired, match="otp"):
        desk.sign_ins.sign_in("anna", PASSWORD, client=HERE, kind=SessionKind.TOKEN)
    signed_in = desk.sign_ins.sign_in("anna", PASSWORD, client=HERE, kind=SessionKind.TOKEN, code=totp.at(desk.now))
    assert desk.sessions.principal_of(signed_in.token) is not None


def test_a_removed_second_factor_is_not_asked_for(desk: Desk) -> None:
    """And its recovery codes are void."""
    person = desk.add()
    desk.enrol(person)
    desk.second_factor.remove(person.id, by=SYSTEM)
    assert not desk.sign_in().needs_totp
    assert 0 == desk.second_factor.recovery_codes_left(person.id)


@ONLY_SQLITE
def test_hashing_is_bounded(desk: Desk) -> None:
    """Many sign-ins at once are refused instead of taking every thread."""
    hasher = PasswordHasher()
    for _ in range(10):
        hasher._places.acquire()
    with pytest.raises(Exception, match="Too many people sign in at once"):
        hasher.hash(PASSWORD)
