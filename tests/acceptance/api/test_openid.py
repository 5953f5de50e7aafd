"""Sign-in with an OpenID provider: a real one in a process of its own, through the pages that a browser would take."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from shoplens.accounts.entities import SYSTEM, Role
from shoplens.accounts.errors import OpenIdRefused, ProviderUnavailable
from shoplens.accounts.openid import OpenIdConfig, OpenIdProvider
from shoplens.platform.server import Platform, build_platform
from shoplens.settings import Settings, read_settings
from tests.conftest import client_of

pytestmark = pytest.mark.anyio

PEOPLE = (
    {"sub": "anna", "email": "anna@example.org", "email_verified": True, "groups": ["photo-team"]},
    {"sub": "berta", "email": "berta@example.org", "email_verified": False, "preferred_username": "berta"},
    {"sub": "carla", "email": "carla@example.org", "email_verified": True, "preferred_username": "owner"},
    {"sub": "dora", "email": "dora@elsewhere.org", "email_verified": True},
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A provider with four people."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    users = [argument for person in PEOPLE for argument in ("--user-claims", json.dumps(person))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port), *users]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, issuer: str) -> AsyncIterator[Platform]:
    """A shop whose people sign in there; one admin has a password."""
    oidc = {
        "issuer": issuer,
        "client_id": "shoplens",
        "client_secret": "test",
        "name": "Shop login",
        "role_claim": "groups",
        "roles": {"photo-team": "moderator"},
        "domains": ["Example.org"],
    }
    platform = build_platform(
        read_settings(data_dir=tmp_path_factory.mktemp("openid"), models_dir=models_dir, oidc=oidc)
    )
    platform.accounts.people.add("owner", Role.ADMIN, by=SYSTEM, email="carla@example.org")
    yield platform
    await platform.close()


@pytest.fixture
async def browser(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A browser without cookies."""
    async with client_of(platform) as client:
        client.headers["accept"] = "text/html"
        yield client


async def sign_in(browser: httpx.AsyncClient, subject: str, **changes: str) -> httpx.Response:
    """Begin here, sign in there, come back; `changes` replace parameters of the way back."""
    begun = await browser.get("/sign-in/openid?next=/console/records")
    assert 303 == begun.status_code, begun.text
    async with httpx.AsyncClient(trust_env=False) as there:
        answer = await there.post(begun.headers["location"], data={"sub": subject})
    assert 302 == answer.status_code, answer.text
    back = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    return await browser.get("/sign-in/openid/callback", params={**back, **changes})


async def test_the_sign_in_page_offers_the_provider(browser: httpx.AsyncClient) -> None:
    """Under its name, with the way back."""
    page = await browser.get("/sign-in?next=/console/records")
    assert 'href="/sign-in/openid?next=/console/records"' in page.text
    assert "Sign in with Shop login" in page.text


async def test_a_new_person_gets_the_role_that_the_provider_says(
    browser: httpx.AsyncClient, platform: Platform
) -> None:
    """Signed in, back where they wanted to go, and known the next time."""
    for _ in range(2):
        back = await sign_in(browser, "anna")
        assert (303, "/console/records") == (back.status_code, back.headers["location"]), back.text
        assert 200 == (await browser.get("/console/records")).status_code
    [anna] = [each for each in platform.accounts.people.all() if each.subject == "anna"]
    assert (Role.MODERATOR, "anna@example.org") == (anna.role, anna.email)


async def test_somebody_whom_an_admin_added_is_known_by_the_verified_address(
    browser: httpx.AsyncClient, platform: Platform
) -> None:
    """The last admin stays one; with another admin there, the role is what the provider says."""
    assert 303 == (await sign_in(browser, "carla")).status_code
    owner = platform.accounts.people.named("owner")
    assert ("carla", Role.ADMIN) == (owner.subject, owner.role)
    platform.accounts.people.add("another", Role.ADMIN, by=SYSTEM)
    assert 303 == (await sign_in(browser, "carla")).status_code
    assert Role.VIEWER is platform.accounts.people.named("owner").role


@pytest.mark.parametrize("subject", ["berta", "dora"])
async def test_who_has_no_verified_address_of_the_shop_is_refused(
    browser: httpx.AsyncClient, platform: Platform, subject: str
) -> None:
    """On a page with a sentence; nobody is added."""
    back = await sign_in(browser, subject)
    assert 401 == back.status_code
    assert "verified e-mail address of this shop" in back.text
    assert subject not in {each.subject for each in platform.accounts.people.all()}


async def test_a_disabled_person_is_refused(browser: httpx.AsyncClient, platform: Platform) -> None:
    """Whatever the provider says."""
    await sign_in(browser, "anna")
    [anna] = [each for each in platform.accounts.people.all() if each.subject == "anna"]
    platform.accounts.people.change(anna.id, by=SYSTEM, disabled=True)
    assert 401 == (await sign_in(browser, "anna")).status_code
    platform.accounts.people.change(anna.id, by=SYSTEM, disabled=False)


@pytest.mark.parametrize("changes", [{"state": "forged"}, {"code": "forged"}, {"error": "access_denied"}, {"code": ""}])
async def test_a_forged_way_back_opens_nothing(browser: httpx.AsyncClient, changes: dict[str, str]) -> None:
    """A state of another browser, a code that was not given, a refusal of the provider."""
    back = await sign_in(browser, "anna", **changes)
    assert 401 == back.status_code
    assert "shoplens_session" not in browser.cookies


async def test_the_way_back_without_the_beginning_opens_nothing(browser: httpx.AsyncClient) -> None:
    """Another site may lead a browser there."""
    back = await browser.get("/sign-in/openid/callback?code=x&state=y")
    assert 401 == back.status_code


async def test_nobody_is_led_away_afterwards(browser: httpx.AsyncClient) -> None:
    """The way on is a path of this server: for a moderator the queue."""
    begun = await browser.get("/sign-in/openid?next=https://evil.example/")
    assert 303 == begun.status_code
    async with httpx.AsyncClient(trust_env=False) as there:
        answer = await there.post(begun.headers["location"], data={"sub": "anna"})
    back = await browser.get(answer.headers["location"])
    assert "/console/moderation" == back.headers["location"]


def provider_of(issuer: str) -> OpenIdProvider:
    """A client of the provider."""
    return OpenIdProvider(OpenIdConfig(issuer=issuer, client_id="shoplens", client_secret="test"))


def code_of(url: str) -> str:
    """What the provider gives to the browser after a sign-in."""
    answer = httpx.post(url, data={"sub": "anna"}, trust_env=False)
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


def test_the_provider_is_asked_with_pkce_state_and_nonce(issuer: str) -> None:
    """New random values for each attempt; the challenge is that of the verifier, which stays in the browser."""
    (url, attempt), (_, other) = (
        provider_of(issuer).begin("http://shop/cb"),
        provider_of(issuer).begin("http://shop/cb"),
    )
    sent = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert (attempt.state, attempt.nonce, "S256") == (sent["state"], sent["nonce"], sent["code_challenge_method"])
    assert create_s256_code_challenge(attempt.verifier) == sent["code_challenge"]
    assert attempt.verifier not in url
    assert not {attempt.state, attempt.nonce, attempt.verifier} & {other.state, other.nonce, other.verifier}


def test_a_token_of_another_attempt_or_client_is_refused(issuer: str) -> None:
    """Its nonce or its audience is not ours."""
    provider = provider_of(issuer)
    url, attempt = provider.begin("http://shop/cb")
    _, other = provider.begin("http://shop/cb")
    with pytest.raises(OpenIdRefused, match="not valid"):
        provider.finish(other, code=code_of(url), redirect_uri="http://shop/cb")
    assert "anna" == provider.finish(attempt, code=code_of(url), redirect_uri="http://shop/cb")["sub"]
    checked: Callable[..., dict[str, Any]] = OpenIdProvider(
        OpenIdConfig(issuer=issuer, client_id="other", client_secret="test")
    )._checked
    tokens = httpx.post(
        f"{issuer}/oauth2/token",
        data={"grant_type": "authorization_code", "code": code_of(url), "redirect_uri": "http://shop/cb"},
        auth=("shoplens", "test"),
        trust_env=False,
    ).json()
    with pytest.raises(OpenIdRefused):
        checked(tokens["id_token"], attempt.nonce)
    with pytest.raises(OpenIdRefused):
        provider._checked(tokens["id_token"][:-8] + "AAAAAAAA", attempt.nonce)


def test_a_provider_that_is_away_says_so_within_seconds() -> None:
    """And costs nothing else: nobody asks it before somebody wants to sign in with it."""
    started = time.monotonic()
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        provider_of("http://127.0.0.1:9").begin("http://shop/cb")
    assert time.monotonic() - started < 10


async def test_without_the_provider_everything_else_works(make_platform: Callable[..., Platform]) -> None:
    """The server starts, the sign-in page and passwords work, and the button leads to a sentence."""
    oidc = {"issuer": "http://127.0.0.1:9", "client_id": "shoplens", "client_secret": "test"}
    platform = make_platform(oidc=oidc)
    platform.accounts.people.add("owner", Role.ADMIN, by=SYSTEM, password="seven green bottles")
    async with client_of(platform) as browser:
        browser.headers.update({"accept": "text/html", "origin": "http://127.0.0.1"})
        away = await browser.get("/sign-in/openid")
        assert 503 == away.status_code
        assert "cannot be reached" in away.text
        form = {"name": "owner", "password": "seven green bottles"}
        assert 303 == (await browser.post("/sign-in", data=form)).status_code
        assert 200 == (await browser.get("/console/records")).status_code


def test_an_address_that_is_not_https_is_refused_with_a_sentence(make_settings: Callable[..., Settings]) -> None:
    """The client's secret is sent there."""
    with pytest.raises(Exception, match="https://"):
        make_settings(oidc={"issuer": "http://login.example.org", "client_id": "a", "client_secret": "b"})
