"""The whole way of a shopper's photo, in the demo shop and on the page Moderation, with accounts and a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.acceptance.browser.conftest import DESKTOP, PHONE, WAIT_MS
from tests.acceptance.demo_shop import OWN_NETWORK, command, running_shop
from tests.acceptance.moderation_load import BROKEN
from tests.acceptance.moderation_photos import blurred, sharp
from tests.conftest import RunningServer, running_server

PASSWORD: Final = "four words that rhyme"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A shop and the Shoplens behind it."""

    shop: str
    server: RunningServer
    key: str

    def photos(self, state: str) -> list[str]:
        """The ids of the photos in this state, as a program with the shop's key sees them."""
        answer = httpx.get(
            f"{self.server.url}/moderation/photos",
            params={"state": state},
            headers={"Authorization": f"Bearer {self.key}"},
        )
        return [each["id"] for each in answer.raise_for_status().json()["items"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Place]:
    """With an admin, two moderators and a key for the shop."""
    root = tmp_path_factory.mktemp("shop")
    with running_server(root / "data", models_dir, **OWN_NETWORK) as server:
        for name, role in (("ada", "admin"), ("mia", "moderator"), ("noa", "moderator")):
            command(server, "users", "add", name, "--role", role)
        key = command(server, "keys", "create", "shop", "--scope", "moderation:submit").stdout.strip()
        with running_shop(server, root / "shop", key=key) as url:
            yield Place(shop=url, server=server, key=key)


@dataclass
class People:
    """Browsers, each of one person, and what they complained about."""

    chromium: Browser
    contexts: list[BrowserContext]
    complaints: list[str]

    def visit(self, url: str, **options: object) -> Page:
        """A page of a new person."""
        context = self.chromium.new_context(**{**DESKTOP, **options})  # type: ignore[arg-type]  # options of a browser
        context.set_default_timeout(WAIT_MS)
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.goto(url)
        return page


@pytest.fixture
def people(chromium: Browser) -> Iterator[People]:
    """When the test ends, no browser may have complained, about the content security policy or anything else."""
    found = People(chromium=chromium, contexts=[], complaints=[])
    yield found
    for each in found.contexts:
        each.close()
    assert [] == [each for each in found.complaints if "Failed to load resource" not in each]


def sign_in(people: People, place: Place, name: str) -> Page:
    """The page Moderation of somebody who first sets a password with a one-time link."""
    link = re.search(r"(/reset/\S+)", command(place.server, "users", "reset", name).stdout)
    assert link is not None
    page = people.visit(place.server.url + link[1])
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/sign-in**")
    page.goto(f"{place.server.url}/console/moderation")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{place.server.url}/console/moderation")
    return page


def decide(page: Page, *keys: str) -> None:
    """Wait for a photo, and decide it with the keyboard alone."""
    page.goto(page.url)
    expect(page.locator("[data-slot=photo] img")).to_be_visible()
    before = int(page.locator("[data-word=today]").inner_text())
    page.wait_for_function("document.querySelector('[data-slot=photo] img').complete")
    for key in keys:
        page.keyboard.press(key)
    expect(page.locator("[data-word=today]")).to_have_text(str(before + 1))


def shown_photos(page: Page, count: int) -> None:
    """So many photos are in the reviews, once the shop knows; each is really a picture."""
    photos = page.locator(".review .photos img")
    for _ in range(50):
        page.goto(page.url.partition("?")[0].partition("#")[0])
        if photos.count() == count:
            break
        page.wait_for_timeout(200)
    expect(photos).to_have_count(count)
    for number in range(count):
        photos.nth(number).scroll_into_view_if_needed()
        expect(photos.nth(number)).to_have_js_property("complete", True)
        assert photos.nth(number).evaluate("image => image.naturalWidth") > 0


def send_review(page: Page, photos: list[Path]) -> Locator:
    """What the shopper reads of each photo."""
    page.get_by_label("Your name").fill("Wanda")
    page.get_by_label("Your review").fill("Fits as drawn.")
    page.set_input_files("input[type=file]", photos)
    expect(page.locator(".chosen li")).to_have_count(len(photos))
    page.get_by_role("button", name="Send the review").click()
    mine = page.locator(".mine li")
    expect(mine).to_have_count(len(photos))
    return mine


def require_hidden(place: Place, photo_id: str) -> None:
    """Nowhere, and it answers as for a photo that never existed."""
    unknown = "0" * len(photo_id)
    for width in ("", "?w=160", "?w=320", "?w=640", "?w=1280"):
        assert 404 == httpx.get(f"{place.shop}/photos/{photo_id}{width}").status_code
        found, other = (httpx.get(f"{place.server.url}/media/{each}{width}") for each in (photo_id, unknown))
        assert (404, other.status_code) == (found.status_code, 404)
        assert other.json()["detail"] == found.json()["detail"]
        assert other.headers["cache-control"] == found.headers["cache-control"]


def test_a_photo_from_the_review_form_to_the_appeal(place: Place, people: People, tmp_path: Path) -> None:
    """A good, a doubtful and a broken file; a moderator with the keyboard; a report, a refusal, an appeal, a pardon."""
    files = {"good.jpg": sharp(1), "doubtful.jpg": blurred(2), "broken.jpg": BROKEN}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    shopper = people.visit(place.shop)
    mine = send_review(shopper, [tmp_path / name for name in files])
    expect(mine.nth(0)).to_contain_text("Shown")
    expect(mine.nth(1)).to_contain_text("Being checked")
    expect(mine.nth(2)).to_contain_text("Not shown")
    expect(mine.nth(2).locator(".sentence")).not_to_be_empty()
    expect(mine.nth(2).locator("details")).to_have_count(0)

    visitor = people.visit(place.shop, **PHONE)
    shown_photos(visitor, 1)
    expect(visitor.locator(".mine")).to_have_count(0)
    (good,), (doubtful,) = place.photos("published"), place.photos("held")
    require_hidden(place, doubtful)

    mia = sign_in(people, place, "mia")
    decide(mia, "a")
    shown_photos(visitor, 2)
    assert 200 == httpx.get(f"{place.server.url}/media/{doubtful}").status_code

    reported = visitor.locator("figure", has=visitor.locator(f"a[href*='{good}']"))
    reported.get_by_text("Report", exact=True).click()
    reported.get_by_label("What is wrong with this photo?").fill("It shows my neighbour.")
    reported.get_by_role("button", name="Send the report").click()
    expect(visitor.get_by_role("status")).to_contain_text("A person will look at this photo")
    decide(mia, "r", "4")
    assert [good] == place.photos("refused")
    assert 404 == httpx.get(f"{place.server.url}/media/{good}").status_code
    shown_photos(visitor, 1)
    require_hidden(place, good)

    shopper.goto(place.shop)
    expect(mine.nth(0)).to_contain_text("personal details without their consent")
    shopper.get_by_role("link", name="The reasons in full").click()
    expect(shopper.locator("body")).to_contain_text("personal details without their consent")
    shopper.go_back()
    shopper.get_by_text("Ask for a second look").click()
    shopper.get_by_label("Why should this photo be shown?").fill("That is me.")
    shopper.get_by_role("button", name="Ask another person").click()
    expect(mine.nth(0)).to_contain_text("Another person looks at it again")

    mia.goto(mia.url)
    expect(mia.get_by_text("Others look at what waits")).to_be_visible()  # who refused it does not decide again
    noa = sign_in(people, place, "noa")
    expect(noa.locator("main")).to_contain_text("That is me.")
    decide(noa, "a")
    shown_photos(visitor, 2)
    shopper.goto(place.shop)
    expect(mine.nth(0)).to_contain_text("Shown")


@pytest.mark.parametrize(("screen", "scheme"), [(DESKTOP, "dark"), (PHONE, "light")], ids=["desktop", "phone"])
def test_the_shop_fits_every_screen(place: Place, people: People, screen: dict[str, object], scheme: str) -> None:
    """Nothing is cut off at the side, and the dark one is dark."""
    page = people.visit(place.shop, **screen, color_scheme=scheme)
    width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1]
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert (scheme == "dark") == (sum(map(int, re.findall(r"\d+", colours[0])[:3])) > 380)


def test_the_form_works_without_a_script(place: Place, people: People, tmp_path: Path) -> None:
    """A review with more photos than are allowed is refused with a sentence, and its text is still there."""
    page = people.visit(place.shop, java_script_enabled=False)
    photos = [tmp_path / f"{number}.jpg" for number in range(11)]
    for path in photos:
        path.write_bytes(BROKEN)
    page.get_by_label("Your review").fill("Eleven photos.")
    page.set_input_files("input[type=file]", photos)
    page.get_by_role("button", name="Send the review").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose up to 10 photos; these are 11.")
    expect(page.get_by_label("Your review")).to_have_value("Eleven photos.")
