"""Signing in over HTTP: pages with a cookie, programs with a token, and what attackers try."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pyotp
import pytest

from shoplens.accounts.entities import SYSTEM, Person, Role
from shoplens.platform.server import Platform, build_platform
from shoplens.settings import read_settings
from tests.acceptance.api.guides import run_guide
from tests.conftest import RunningServer, client_of, running_server

pytestmark = pytest.mark.anyio

PASSWORD = "seven green bottles"
OTHER_PASSWORD = "eight yellow lamps"
HERE = "http://127.0.0.1"
PAGE = {"accept": "text/html", "origin": HERE}


@pytest.fixture(scope="module")
async def office(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> AsyncIterator[Platform]:
    """A system with an admin; each test adds people of its own."""
    platform = build_platform(read_settings(data_dir=tmp_path_factory.mktemp("office"), models_dir=models_dir))
    platform.accounts.people.add("boss", Role.ADMIN, by=SYSTEM, password=PASSWORD)
    yield platform
    await platform.close()


@pytest.fixture
async def browser(office: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without a cookie."""
    async with client_of(office) as client:
        client.headers.update(PAGE)
        yield client


def add(office: Platform, name: str, role: Role = Role.CLERK) -> Person:
    """Somebody with the password `PASSWORD`."""
    return office.accounts.people.add(name, role, by=SYSTEM, password=PASSWORD)


async def sign_in(browser: httpx.AsyncClient, name: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    """Send the form."""
    return await browser.post("/sign-in", data={"name": name, "password": password, **more})


async def status(browser: httpx.AsyncClient, path: str = "/me") -> int:
    """What a request of the browser gets now."""
    return (await browser.get(path, headers={"accept": "application/json"})).status_code


async def test_there_is_no_cookie_before_the_sign_in_and_a_guarded_one_after(
    office: Platform, browser: httpx.AsyncClient
) -> None:
    """Not for scripts, and not with what other sites send."""
    add(office, "cookie")
    assert "set-cookie" not in (await browser.get("/sign-in")).headers
    answer = await sign_in(browser, "cookie", next="/console/records?label=cat")
    assert (303, "/console/records?label=cat") == (answer.status_code, answer.headers["location"])
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("shoplens_session=")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=604800"} <= set(cookie.split("; "))
    assert "no-store" == answer.headers["cache-control"]
    page = await browser.get("/console/records")
    assert ">cookie<" in page.text
    assert "Sign out" in page.text


async def test_over_https_the_cookie_is_bound_to_this_host(office: Platform) -> None:
    """Its name begins with __Host-, so no other host can set it; the plain one is not read there."""
    add(office, "secure")
    async with client_of(office) as client:
        client.base_url = httpx.URL("https://127.0.0.1")
        client.headers.update({"accept": "text/html", "origin": "https://127.0.0.1"})
        answer = await sign_in(client, "secure")
        assert answer.headers["set-cookie"].startswith("__Host-shoplens_session=")
        assert "Secure" in answer.headers["set-cookie"].split("; ")
        assert 200 == await status(client)
        token = client.cookies["__Host-shoplens_session"]
        client.cookies.clear()
        client.cookies.set("shoplens_session", token)
        assert 401 == await status(client)


@pytest.mark.parametrize(
    "next_path",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/sign-in", "/a b", "/\tb"],
)
async def test_nobody_is_led_away_after_signing_in(
    office: Platform, browser: httpx.AsyncClient, next_path: str
) -> None:
    """Only to a path of this server."""
    answer = await sign_in(browser, "boss", next=next_path)
    assert (303, "/") == (answer.status_code, answer.headers["location"])


async def test_a_wrong_password_is_refused_with_the_form(office: Platform, browser: httpx.AsyncClient) -> None:
    """With 401, the name kept, and no cookie."""
    add(office, "typo")
    answer = await sign_in(browser, "typo", "wrong password", next="/docs")
    assert 401 == answer.status_code
    assert "The name or the password is wrong." in answer.text
    assert 'value="typo"' in answer.text
    assert 'value="/docs"' in answer.text
    assert "set-cookie" not in answer.headers


async def test_too_many_failures_say_how_long_to_wait(office: Platform, browser: httpx.AsyncClient) -> None:
    """429 with Retry-After, on the page and for programs, also with the right password."""
    add(office, "locked")
    for _ in range(5):
        assert 401 == (await sign_in(browser, "locked", "wrong password")).status_code
    answer = await sign_in(browser, "locked")
    assert 429 == answer.status_code
    assert 20 < int(answer.headers["retry-after"]) <= 30
    assert re.search(r"Try again in \d+ seconds", answer.text)
    token = await browser.post(
        "/auth/token", data={"username": "locked", "password": PASSWORD}, headers={"accept": "application/json"}
    )
    assert (429, "too_many_sign_ins") == (token.status_code, token.json()["code"])
    assert 20 < token.json()["retry_after_s"] <= 30


async def test_a_planted_token_is_not_the_one_of_the_session(office: Platform, browser: httpx.AsyncClient) -> None:
    """Session fixation: whatever the browser had before, the sign-in makes a token of its own."""
    add(office, "fixed")
    browser.cookies.set("shoplens_session", "planted", domain="127.0.0.1")
    await sign_in(browser, "fixed")
    first = browser.cookies.get("shoplens_session", domain="127.0.0.1")
    assert first not in (None, "planted")
    await sign_in(browser, "fixed")
    assert first != browser.cookies.get("shoplens_session", domain="127.0.0.1")
    assert office.accounts.sessions.find(str(first)) is None


async def test_signing_out_ends_the_session_at_once(office: Platform, browser: httpx.AsyncClient) -> None:
    """A kept copy of the cookie opens nothing."""
    add(office, "leaver")
    await sign_in(browser, "leaver")
    token = browser.cookies["shoplens_session"]
    assert 200 == await status(browser)
    answer = await browser.post("/sign-out")
    assert (303, "/sign-in?out=signed-out") == (answer.status_code, answer.headers["location"])
    assert "shoplens_session" not in browser.cookies
    browser.cookies.set("shoplens_session", token)
    assert 401 == await status(browser)


@pytest.mark.parametrize("headers", [{}, {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/account/sessions/end-all", "/console/people"])
async def test_another_site_can_send_no_form(office: Platform, path: str, headers: dict[str, str]) -> None:
    """Neither with the cookie nor, at the sign-in, without: the request must say that it comes from a page here."""
    async with client_of(office) as client:
        await client.post("/sign-in", data={"name": "boss", "password": PASSWORD}, headers=PAGE)
        assert "shoplens_session" in client.cookies
        answer = await client.post(path, data={"name": "boss", "password": PASSWORD}, headers=headers)
        assert 403 == answer.status_code
        assert "request_forbidden" in answer.text
        assert 200 == await status(client)


async def test_a_request_of_ones_own_page_passes(office: Platform, browser: httpx.AsyncClient) -> None:
    """Either header is enough; a program with a token needs none."""
    add(office, "own", Role.ADMIN)
    await sign_in(browser, "own")
    del browser.headers["origin"]
    answer = await browser.post("/batch/looks", json={"items": []}, headers={"sec-fetch-site": "same-origin"})
    assert 200 == answer.status_code
    token = browser.cookies["shoplens_session"]
    browser.cookies.clear()
    answer = await browser.post("/batch/looks", json={"items": []}, headers={"authorization": f"Bearer {token}"})
    assert 200 == answer.status_code


async def test_the_second_factor_is_asked_for_and_the_token_between_opens_nothing(
    office: Platform, browser: httpx.AsyncClient
) -> None:
    """Password, then code, then another token."""
    person = add(office, "careful")
    totp = pyotp.TOTP(office.accounts.second_factor.begin(person.id).secret)
    recovery, *_ = office.accounts.second_factor.confirm(person.id, totp.now())
    answer = await sign_in(browser, "careful", next="/docs")
    assert "/sign-in/code?next=/docs" == answer.headers["location"]
    assert "Max-Age=600" in answer.headers["set-cookie"]
    between = browser.cookies["shoplens_session"]
    assert 401 == await status(browser)
    wrong = await browser.post("/sign-in/code", data={"code": "000000", "next": "/docs"})
    assert 401 == wrong.status_code
    assert "The code is wrong" in wrong.text
    right = await browser.post("/sign-in/code", data={"code": recovery, "next": "/docs"})
    assert (303, "/docs") == (right.status_code, right.headers["location"])
    assert between != browser.cookies["shoplens_session"]
    assert 200 == await status(browser)
    assert office.accounts.sessions.find(between) is None


async def test_a_second_factor_that_was_not_confirmed_is_begun_with_another_secret(
    office: Platform, browser: httpx.AsyncClient
) -> None:
    """Who saw the earlier one has nothing; a mistyped code does not change the one that the phone has."""
    person = add(office, "beginner")
    await sign_in(browser, "beginner")
    secret = re.compile(r"<code[^>]*>([A-Z2-7]{32,})</code>")
    pages = [(await browser.post("/account/second-factor")).text for _ in range(2)]
    secrets = [secret.findall(each)[0] for each in pages]
    assert secrets[0] != secrets[1]
    earlier = pyotp.TOTP(secrets[0]).now()
    wrong = await browser.post("/account/second-factor/confirm", data={"code": earlier})
    assert (422, secrets[1:]) == (wrong.status_code, secret.findall(wrong.text))
    right = await browser.post("/account/second-factor/confirm", data={"code": pyotp.TOTP(secrets[1]).now()})
    assert 200 == right.status_code
    assert office.accounts.people.get(person.id).totp_confirmed_at is not None


async def test_recovery_codes_are_renewed_with_the_password(office: Platform, browser: httpx.AsyncClient) -> None:
    """On the page and over HTTP; the earlier ones are void at once."""
    person = add(office, "forgetful")
    second_factor = office.accounts.second_factor
    await sign_in(browser, "forgetful")
    without = await browser.post(
        "/me/recovery-codes", json={"password": PASSWORD}, headers={"Accept": "application/json"}
    )
    assert (409, "conflict") == refusal(without)
    first, *_ = second_factor.confirm(person.id, pyotp.TOTP(second_factor.begin(person.id).secret).now())
    place = "/account/second-factor/recovery-codes"
    wrong = await browser.post(place, data={"password": "wrong password"})
    assert (422, True) == (wrong.status_code, "The password is wrong." in wrong.text)
    shown = await browser.post(place, data={"password": PASSWORD})
    codes = re.findall(r"<li><code>(.*?)</code></li>", shown.text)
    assert (200, "no-store", 10) == (shown.status_code, shown.headers["cache-control"], len(codes))
    answer = await browser.post("/me/recovery-codes", json={"password": PASSWORD})
    assert (200, "no-store") == (answer.status_code, answer.headers["cache-control"])
    browser.cookies.clear()
    await sign_in(browser, "forgetful")
    for void in (first, codes[0]):
        assert 401 == (await browser.post("/sign-in/code", data={"code": void})).status_code
    assert 303 == (await browser.post("/sign-in/code", data={"code": answer.json()["codes"][9]})).status_code


async def test_a_new_password_signs_out_everywhere_else(office: Platform, browser: httpx.AsyncClient) -> None:
    """And gives this browser another token."""
    add(office, "changer")
    await sign_in(browser, "changer")
    old = browser.cookies["shoplens_session"]
    fields = {"old": PASSWORD, "password": OTHER_PASSWORD, "again": OTHER_PASSWORD}
    for wrong in ({"old": "wrong password"}, {"again": "another one"}, {"password": "short", "again": "short"}):
        assert 422 == (await browser.post("/account/password", data=fields | wrong)).status_code
    answer = await browser.post("/account/password", data=fields)
    assert (303, "/account?done=password") == (answer.status_code, answer.headers["location"])
    assert old != browser.cookies["shoplens_session"]
    assert 200 == await status(browser)
    assert office.accounts.sessions.find(old) is None


async def test_a_link_sets_the_first_password_and_then_leads_nowhere(
    office: Platform, browser: httpx.AsyncClient
) -> None:
    """Nobody keeps a copy of the page."""
    await sign_in(browser, "boss")
    made = await browser.post("/people", json={"name": "newcomer", "role": "moderator"})
    assert 201 == made.status_code
    path = httpx.URL(made.json()["link"]["url"]).path
    browser.cookies.clear()
    page = await browser.get(path)
    assert "no-store" == page.headers["cache-control"]
    assert "newcomer" in page.text
    unfit = await browser.post(path, data={"password": "newcomer123", "again": "newcomer123"})
    assert 422 == unfit.status_code
    answer = await browser.post(path, data={"password": PASSWORD, "again": PASSWORD})
    assert 303 == answer.status_code
    assert 404 == (await browser.get(path)).status_code
    assert 303 == (await sign_in(browser, "newcomer")).status_code


async def test_people_are_managed_over_http(office: Platform, browser: httpx.AsyncClient) -> None:
    """With the same refusals as on the page, and without a hash or secret in any answer."""
    await sign_in(browser, "boss")
    browser.headers["accept"] = "application/json"
    person = (await browser.post("/people", json={"name": "temp", "role": "clerk"})).json()["person"]
    assert (409, "person_exists") == refusal(await browser.post("/people", json={"name": "TEMP", "role": "clerk"}))
    assert (422, "request_invalid") == refusal(await browser.post("/people", json={"name": "a b", "role": "clerk"}))
    changed = await browser.patch(f"/people/{person['id']}", json={"role": "viewer", "disabled": True})
    assert ("viewer", True) == (changed.json()["role"], changed.json()["disabled"])
    boss = next(each for each in (await browser.get("/people")).json()["people"] if each["name"] == "boss")
    assert {"id", "name", "role", "has_password", "has_second_factor"} <= boss.keys()
    assert not {key for key in boss if "hash" in key or "secret" in key}
    for others in office.accounts.people.all():
        if others.role is Role.ADMIN and others.id != boss["id"]:
            office.accounts.people.change(others.id, by=SYSTEM, disabled=True)
    assert (409, "last_admin") == refusal(await browser.patch(f"/people/{boss['id']}", json={"disabled": True}))
    assert (404, "person_not_found") == refusal(await browser.post(f"/people/{'0' * 26}/reset"))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Its status and code."""
    return answer.status_code, answer.json()["code"]


async def test_a_program_signs_in_as_oauth_2_describes_it(office: Platform) -> None:
    """Form fields, the answer's names, and the error with its header."""
    person = add(office, "script", Role.VIEWER)
    async with client_of(office) as client:
        fields = {"grant_type": "password", "username": "script", "password": PASSWORD, "scope": ""}
        answer = await client.post("/auth/token", data=fields)
        assert {"access_token", "token_type", "expires_in"} == answer.json().keys()
        assert ("bearer", 8 * 3600) == (answer.json()["token_type"], answer.json()["expires_in"])
        headers = {"authorization": f"Bearer {answer.json()['access_token']}"}
        me = (await client.get("/me", headers=headers)).json()
        assert ("person", person.id, "script") == (me["kind"], me["id"], me["name"])
        assert "records:read" in me["permissions"]
        assert "predict" not in me["permissions"]
        wrong = await client.post("/auth/token", data=fields | {"password": "wrong password"})
        assert (401, "sign_in_refused") == refusal(wrong)
        assert "Bearer" == wrong.headers["www-authenticate"]
        assert 422 == (await client.post("/auth/token", data=fields | {"scope": "admin"})).status_code
        assert 422 == (await client.post("/auth/token", data={"username": "script"})).status_code
        totp = pyotp.TOTP(office.accounts.second_factor.begin(person.id).secret)
        recovery, *_ = office.accounts.second_factor.confirm(person.id, totp.now())
        assert (401, "second_factor_required") == refusal(await client.post("/auth/token", data=fields))
        assert 200 == (await client.post("/auth/token", data=fields | {"otp": recovery})).status_code


async def test_the_document_says_how_to_authorize(office: Platform, browser: httpx.AsyncClient) -> None:
    """Generated clients know the token's address; probes need nothing."""
    await sign_in(browser, "boss")
    document = (await browser.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert "/auth/token" == schemes["OAuth2PasswordBearer"]["flows"]["password"]["tokenUrl"]
    assert [{name: []} for name in schemes] == document["security"]
    assert "security" not in document["paths"]["/predict"]["post"]
    for path in ("/health/live", "/health/ready"):
        assert [] == document["paths"][path]["get"]["security"]
    assert [] == document["paths"]["/auth/token"]["post"]["security"]


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[tuple[RunningServer, ...]]:
    """Two processes over one database."""
    root = tmp_path_factory.mktemp("two")
    with running_server(root / "one", models_dir) as first:
        database = f"sqlite:///{root}/one/shoplens.db"
        with running_server(root / "two", models_dir, database_url=database) as second:
            yield first, second


@pytest.fixture(scope="module")
def guided(two_servers: tuple[RunningServer, ...], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the commands of the guide print; they add the admin anna and others at the first server."""
    return run_guide("add-people.md", two_servers[0], tmp_path_factory.mktemp("guide"))


def test_the_guide_works_as_written(guided: str) -> None:
    """From a system without accounts to people, a token and changes."""
    assert '"kind":"person"' in guided
    assert '"name":"anna"' in guided
    assert '"role":"moderator"' in guided
    assert "/reset/" in guided
    assert '"disabled":true' in guided


def test_two_servers_over_one_database_know_the_same_sessions(
    two_servers: tuple[RunningServer, ...], guided: str
) -> None:
    """What one opens the other knows; what one ends is over at the other within two seconds."""
    first, second = (httpx.Client(base_url=each.url) for each in two_servers)
    with first, second:
        for each in (first, second):
            each.headers.update({"accept": "application/json", "origin": str(each.base_url)})
        assert 303 == first.post("/sign-in", data={"name": "anna", "password": PASSWORD}).status_code
        second.cookies.set("shoplens_session", first.cookies["shoplens_session"], domain="127.0.0.1")
        time.sleep(2.1)  # the second learns that there are accounts
        assert ["anna", "anna"] == [each.get("/me").json()["name"] for each in (first, second)]
        first.post("/sign-out")
        time.sleep(2.1)
        assert 401 == second.get("/me").status_code
