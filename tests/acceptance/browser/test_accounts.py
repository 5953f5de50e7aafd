"""People in a real browser: the first password, signing in and out, the second factor, the own page, and People."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyotp
import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.browser.conftest import PHONE, VisitMaker
from tests.conftest import RunningServer, running_server

PASSWORD = "seven green bottles"
OTHER_PASSWORD = "eight yellow lamps"
BOSS = "boss@example.org"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server with an admin."""
    with running_server(tmp_path_factory.mktemp("office"), models_dir) as server:
        set_password(server, httpx.post(f"{server.url}/people", json={"name": BOSS, "role": "admin"}))
        yield server


def set_password(server: RunningServer, made: httpx.Response) -> None:
    """Use the link of a person who was just added."""
    path = httpx.URL(made.json()["link"]["url"]).path
    fields = {"password": PASSWORD, "again": PASSWORD}
    assert 303 == httpx.post(f"{server.url}{path}", data=fields, headers={"origin": server.url}).status_code


def add(server: RunningServer, name: str, role: str = "clerk") -> None:
    """Somebody with the password `PASSWORD`."""
    token = httpx.post(f"{server.url}/auth/token", data={"username": BOSS, "password": PASSWORD}).json()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    set_password(server, httpx.post(f"{server.url}/people", json={"name": name, "role": role}, headers=headers))


def sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fill in the form."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_signing_in_leads_to_the_wanted_page_and_signing_out_back(visit: VisitMaker, office: RunningServer) -> None:
    """The page says who is signed in; after signing out, going back shows nothing."""
    add(office, "anna")
    page = visit(at=office, expected={401}).page("/console/records?label=cat")
    expect(page).to_have_url(re.compile(r"/sign-in\?next="))
    sign_in(page, "anna", "wrong password")
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    sign_in(page, "anna")
    expect(page).to_have_url(f"{office.url}/console/records?label=cat")
    page.locator("summary", has_text="anna").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.goto(f"{office.url}/console/records")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_curl_command_of_somebody_signed_in_takes_a_key(
    visit: VisitMaker, office: RunningServer, photo_file: Path
) -> None:
    """Without one the server would refuse what the page offers for copying."""
    add(office, "carl")
    page = visit(at=office).page("/account")
    sign_in(page, "carl")
    page.goto(office.url)
    page.set_input_files("#file", photo_file)
    expect(page.locator("[data-curl]")).to_contain_text('-H "Authorization: Bearer $SHOPLENS_KEY" -F')


def test_a_new_person_sets_the_password_that_the_admin_never_sees(visit: VisitMaker, office: RunningServer) -> None:
    """The admin adds them on the page and hands over the link; also on a phone."""
    admin = visit(at=office).page("/console/people")
    sign_in(admin, BOSS)
    admin.get_by_label("Name").fill("dora")
    admin.get_by_label("Moderator: decides shoppers' photos").check()
    admin.get_by_role("button", name="Add", exact=True).click()
    link = admin.locator("[data-link]").inner_text()
    assert link.startswith(f"{office.url}/reset/")
    person = visit(at=office, expected={422}, **PHONE).page(httpx.URL(link).path)
    for again, password in ((PASSWORD, OTHER_PASSWORD), (OTHER_PASSWORD, OTHER_PASSWORD)):
        person.get_by_label("New password").fill(password)
        person.get_by_label("The same again").fill(again)
        person.get_by_role("button", name="Set the password").click()
    expect(person.get_by_role("status")).to_contain_text("Your password is set.")
    sign_in(person, "dora", OTHER_PASSWORD)
    expect(person.get_by_label("Pages")).to_contain_text("Moderation")
    expect(person.get_by_label("Pages")).not_to_contain_text("Admin")
    expect(person).to_have_url(f"{office.url}/console/moderation")
    person.goto(f"{office.url}/account")
    assert person.evaluate("document.documentElement.scrollWidth") <= 390


def test_people_are_changed_and_disabled_on_the_page(visit: VisitMaker, office: RunningServer) -> None:
    """Who is disabled is out at the next click; the last admin stays."""
    add(office, "emil")
    admin, emil = visit(at=office, expected={409}).page("/console/people"), visit(at=office).page("/account")
    sign_in(emil, "emil")
    sign_in(admin, BOSS)
    row = admin.get_by_role("row", name="emil")
    row.get_by_label("Role of emil").select_option("viewer")
    row.get_by_role("button", name="Save").click()
    expect(admin.get_by_role("status")).to_contain_text("The role is changed.")
    emil.reload()
    expect(emil.locator(".page-head").first).to_contain_text("Viewer")
    row.locator("summary", has_text="Disable").click()
    row.get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("disabled")
    emil.reload()
    expect(emil.get_by_role("heading", name="Sign in")).to_be_visible()
    mine = admin.get_by_role("row", name=BOSS)
    mine.get_by_label(f"Role of {BOSS}").select_option("clerk")
    mine.get_by_role("button", name="Save").click()
    expect(admin.get_by_role("alert")).to_contain_text("is the last admin")


def test_a_second_factor_is_added_used_and_removed(visit: VisitMaker, office: RunningServer) -> None:
    """The secret by QR code or as text, the code, the recovery codes, other ones, and the password for both changes."""
    add(office, "fritz")
    page = visit(at=office, expected={401, 422}).page("/account")
    sign_in(page, "fritz")
    page.get_by_role("button", name="Add a second factor").click()
    picture = page.get_by_role("img", name="QR code")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth > 100)")
    totp = pyotp.TOTP(page.locator(".secret").inner_text())
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    page.get_by_label("Code").fill(totp.now())
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator(".codes code")).to_have_count(10)
    codes = page.locator(".codes code").all_inner_texts()
    assert 10 == len(set(codes))
    again = visit(at=office, expected={401}).page("/docs")
    sign_in(again, "fritz")
    expect(again.get_by_role("heading", name="Second factor")).to_be_visible()
    again.get_by_label("Code").fill("wrong")
    again.get_by_role("button", name="Sign in").click()
    expect(again.get_by_role("alert")).to_contain_text("The code is wrong")
    again.get_by_label("Code").fill(codes[0])
    again.get_by_role("button", name="Sign in").click()
    expect(again).to_have_url(f"{office.url}/docs")
    page.goto(f"{office.url}/account")
    expect(page.locator("#second-factor")).to_contain_text("9 of your recovery codes are left")
    page.locator("summary", has_text="New recovery codes").click()
    renewing = page.locator('form[action$="/recovery-codes"]')
    renewing.get_by_label("Your password").fill(PASSWORD)
    renewing.get_by_role("button", name="Show new codes").click()
    expect(page.get_by_role("heading", name="Your new recovery codes")).to_be_visible()
    assert set(codes).isdisjoint(page.locator(".codes code").all_inner_texts())
    page.get_by_role("link", name="I have kept them").click()
    expect(page.locator("#second-factor")).to_contain_text("10 of your recovery codes are left")
    removing = page.locator('form[action$="/remove"]')
    for password in ("wrong password", PASSWORD):
        if password == "wrong password":
            page.locator("summary", has_text="Remove the second factor").click()
        removing.get_by_label("Your password").fill(password)
        removing.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Your second factor is removed.")


def test_the_own_page_shows_where_one_is_signed_in_and_ends_it(visit: VisitMaker, office: RunningServer) -> None:
    """One session, or all of them; a new password ends all others."""
    add(office, "greta")
    first, second = visit(at=office).page("/account"), visit(at=office).page("/account")
    for page in (first, second):
        sign_in(page, "greta")
    first.reload()
    rows = first.locator("#sessions tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="This browser")).to_contain_text("127.0.0.1")
    rows.filter(has_not_text="This browser").get_by_role("button", name="End").click()
    expect(rows).to_have_count(1)
    second.reload()
    sign_in(second, "greta")
    first.get_by_label("Old password").fill(PASSWORD)
    first.get_by_label("New password").fill(OTHER_PASSWORD)
    first.get_by_label("The same again").fill(OTHER_PASSWORD)
    first.get_by_role("button", name="Change the password").click()
    expect(first.get_by_role("status")).to_contain_text("Your password is changed.")
    second.reload()
    expect(second.get_by_role("heading", name="Sign in")).to_be_visible()
    first.get_by_role("button", name="Sign out everywhere").click()
    expect(first.get_by_role("status")).to_have_text("You are signed out everywhere.")


def test_the_api_page_authorizes_and_tries(visit: VisitMaker, office: RunningServer) -> None:
    """With the session at first, then with a token, which also stands in the commands."""
    add(office, "hanna", "viewer")
    page = visit(at=office, expected={401, 403}).page("/docs")
    sign_in(page, "hanna")
    me = page.locator("#get_me")
    page.get_by_role("searchbox").fill("get_me")
    me.locator("summary").click()
    expect(me.locator("pre").first).to_contain_text("Authorization: Bearer $TOKEN")
    me.get_by_role("button", name="Try").click()
    expect(me.locator("[data-answer]")).to_contain_text('"name": "hanna"')
    form = page.locator("[data-token-form]")
    for password in ("wrong password", PASSWORD):
        form.get_by_label("Name").fill(BOSS)
        form.get_by_label("Password").fill(password)
        form.get_by_role("button", name="Get a token").click()
        said = (
            f"You have a token of {BOSS} for 8 hours." if password == PASSWORD else "The name or the password is wrong."
        )
        expect(page.locator("[data-token-state]")).to_have_text(said)
    me.get_by_role("button", name="Try").click()
    expect(me.locator("[data-answer]")).to_contain_text(f'"name": "{BOSS}"')
    expect(me.locator("pre").first).not_to_contain_text("$TOKEN")
    page.get_by_role("button", name="Forget it").click()
    people = page.locator("#list_people")
    page.get_by_role("searchbox").fill("list_people")
    people.locator("summary").click()
    people.get_by_role("button", name="Try").click()
    expect(people.locator("[data-answer]")).to_contain_text("permission_denied")
