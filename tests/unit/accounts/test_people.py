"""People: names, passwords, roles, one-time links, and the last admin."""

from __future__ import annotations

import pytest

from shoplens.accounts.entities import PERMISSIONS, SYSTEM, Permission, Principal, PrincipalKind, Role
from shoplens.accounts.errors import (
    LastAdmin,
    LinkInvalid,
    PasswordUnfit,
    PasswordWrong,
    PersonExists,
    PersonNotFound,
    SignInRefused,
)
from shoplens.accounts.passwords import require_fit
from shoplens.errors import PermissionDenied, RequestInvalid
from tests.unit.accounts.services import HERE, OTHER_PASSWORD, PASSWORD, Services


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short pw", "has 8 characters"),
        ("x" * 201, "more than 200"),
        ("Password123", "first that are guessed"),
        ("aaaaaaaaaaaa", "first that are guessed"),
        ("anna.mueller1", "contains the name"),
    ],
)
def test_a_password_that_is_easy_to_guess_is_refused(password: str, reason: str) -> None:
    """With what is wrong; there are no rules about digits and signs."""
    with pytest.raises(PasswordUnfit, match=reason):
        require_fit(password, name="anna.mueller")


@pytest.mark.parametrize("password", ["seven green bottles", "пароль длинный", "x7!kd9#mq2", "anna.mueller likes tea"])
def test_other_passwords_are_accepted(password: str) -> None:
    """Of any characters."""
    require_fit(password, name="anna.mueller")


def test_a_system_has_no_people_until_one_is_added(services: Services) -> None:
    """What decides whether requests need an account."""
    assert not services.people.any_people()
    person = services.add()
    assert services.people.any_people()
    services.people.change(person.id, by=SYSTEM, disabled=True)
    assert services.people.any_people()


def test_names_are_stored_in_one_form(services: Services) -> None:
    """Two people never have names that look the same."""
    assert "anna" == services.people.add(" Ａnna ", Role.ADMIN, by=SYSTEM).name
    with pytest.raises(PersonExists):
        services.people.add("ANNA", Role.VIEWER, by=SYSTEM)


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 101, "a\x00b", "<b>", "a/b"])
def test_a_name_has_no_spaces_or_signs(services: Services, name: str) -> None:
    """It stands in commands and logs."""
    with pytest.raises(RequestInvalid):
        services.people.add(name, Role.CLERK, by=SYSTEM)


def test_the_first_person_is_an_admin(services: Services) -> None:
    """Nobody else could add people, and everything would be closed."""
    with pytest.raises(RequestInvalid, match="must be an admin"):
        services.people.add("anna", Role.MODERATOR, by=SYSTEM)
    assert not services.people.any_people()


def test_the_last_admin_can_neither_be_disabled_nor_demoted(services: Services) -> None:
    """Otherwise nobody could add people on the pages."""
    first = services.add("first", Role.ADMIN)
    with pytest.raises(LastAdmin):
        services.people.change(first.id, by=SYSTEM, role=Role.VIEWER)
    with pytest.raises(LastAdmin):
        services.people.change(first.id, by=SYSTEM, disabled=True)
    second = services.add("second", Role.ADMIN)
    services.people.change(second.id, by=SYSTEM, disabled=True)
    with pytest.raises(LastAdmin):
        services.people.change(first.id, by=SYSTEM, role=Role.CLERK)
    services.people.change(second.id, by=SYSTEM, disabled=False)
    assert Role.CLERK is services.people.change(first.id, by=SYSTEM, role=Role.CLERK).role


def test_a_key_gets_no_rights_through_people_that_it_does_not_have(services: Services) -> None:
    """It neither makes an admin, nor a link to the password of one, nor takes the second factor of one."""
    admin, ben = services.add(role=Role.ADMIN), services.people.add("ben", Role.VIEWER, by=SYSTEM)
    scopes = PERMISSIONS[Role.VIEWER] | {Permission.ACCOUNTS_ADMIN}
    key = Principal(kind=PrincipalKind.KEY, id="k", name="staff list", permissions=scopes)
    for attempt in (
        lambda: services.people.add("eve", Role.ADMIN, by=key),
        lambda: services.people.change(ben.id, by=key, role=Role.MODERATOR),
        lambda: services.people.change(admin.id, by=key, disabled=True),
        lambda: services.people.make_link(admin.id, by=key),
        lambda: services.second_factor.remove(admin.id, by=key),
    ):
        with pytest.raises(PermissionDenied):
            attempt()
    services.people.make_link(services.people.add("kim", Role.VIEWER, by=key).id, by=key)
    assert services.people.change(ben.id, by=key, disabled=True).disabled_at


def test_a_link_sets_a_password_once(services: Services) -> None:
    """It also ends the sessions and the lock."""
    person = services.add()
    token = services.sign_in().token
    link = services.people.make_link(person.id, by=SYSTEM)
    assert f"/reset/{link.token}" == link.path
    assert "anna" == services.people.person_of_link(link.token).name
    services.people.use_link(link.token, OTHER_PASSWORD)
    assert services.sessions.principal_of(token) is None
    services.sign_in(password=OTHER_PASSWORD)
    with pytest.raises(LinkInvalid):
        services.people.use_link(link.token, PASSWORD)
    with pytest.raises(LinkInvalid):
        services.people.person_of_link(link.token)


def test_a_link_opens_a_locked_name(services: Services) -> None:
    """An admin helps somebody who tried too often."""
    person = services.add()
    for _ in range(5):
        with pytest.raises(SignInRefused):
            services.sign_in(password="wrong password")
    services.people.use_link(services.people.make_link(person.id, by=SYSTEM).token, OTHER_PASSWORD)
    services.sign_in(password=OTHER_PASSWORD)


def test_a_link_expires_and_an_earlier_one_is_void(services: Services) -> None:
    """One per person counts."""
    person = services.add()
    first, second = services.people.make_link(person.id, by=SYSTEM), services.people.make_link(person.id, by=SYSTEM)
    with pytest.raises(LinkInvalid):
        services.people.person_of_link(first.token)
    services.wait(hours=24)
    with pytest.raises(LinkInvalid):
        services.people.use_link(second.token, OTHER_PASSWORD)


def test_a_link_of_somebody_disabled_opens_nothing(services: Services) -> None:
    """Until they are enabled."""
    link = services.people.make_link(services.add().id, by=SYSTEM)
    services.people.change(link.person.id, by=SYSTEM, disabled=True)
    with pytest.raises(LinkInvalid):
        services.people.person_of_link(link.token)


def test_an_unfit_password_does_not_use_up_the_link(services: Services) -> None:
    """The person tries another one."""
    link = services.people.make_link(services.add().id, by=SYSTEM)
    with pytest.raises(PasswordUnfit):
        services.people.use_link(link.token, "short")
    services.people.use_link(link.token, OTHER_PASSWORD)


def test_a_new_password_needs_the_old_one(services: Services) -> None:
    """Who finds an open browser does not take the account."""
    person = services.add()
    with pytest.raises(PasswordWrong):
        services.sign_ins.check_password(person.id, "wrong password", client=HERE)
    services.sign_ins.check_password(person.id, PASSWORD, client=HERE)
    services.people.change_password(person.id, OTHER_PASSWORD)
    services.sign_in(password=OTHER_PASSWORD)


def test_who_is_not_there_is_not_found(services: Services) -> None:
    """By id and by name."""
    with pytest.raises(PersonNotFound):
        services.people.get("0" * 26)
    with pytest.raises(PersonNotFound):
        services.people.named("nobody")
