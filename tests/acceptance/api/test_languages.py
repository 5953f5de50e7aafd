"""Pages in the language of the browser or of a choice; answers for programs stay English."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from shoplens.accounts.access import declared
from shoplens.web.rendering import PageRoute

GERMAN = {"accept-language": "de-AT,de;q=0.9,en;q=0.5", "accept": "text/html"}
ENGLISH = re.compile(
    r"(?<![\w./])(the|of|and|with|is|are|not|you|photos?|records?|by|from|people)(?!\w|/|\.\w)", re.IGNORECASE
)
"""Words that every longer English text has and no German one."""
DATA_PAGES = {"/docs", "/console/models", "/console/models/clothing", "/console/catalogue/tree"}
"""They show what the reference says of operations, what authors say of models, and names of categories."""
WITHOUT_END = {"br", "img", "input", "link", "meta", "rect", "path", "circle"}


class Words(HTMLParser):
    """What people read of a page, but for what is marked as not to be translated."""

    def __init__(self) -> None:
        super().__init__()
        self.language = ""
        self.texts: list[str] = []
        self._left_out: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "html":
            self.language = values.get("lang") or ""
        if tag not in WITHOUT_END and (
            self._left_out or values.get("translate") == "no" or tag in ("code", "kbd", "script", "style", "textarea")
        ):
            self._left_out.append(tag)
        elif not self._left_out:
            self.texts += [
                values[name] or "" for name in ("aria-label", "placeholder", "alt", "title") if name in values
            ]

    def handle_endtag(self, tag: str) -> None:
        if self._left_out and self._left_out[-1] == tag:
            self._left_out.pop()

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self.texts.append(data)


def words_of(html: str) -> Words:
    """The words of a page."""
    found = Words()
    found.feed(html)
    return found


def page_paths(client: httpx.AsyncClient) -> list[str]:
    """The addresses of all pages that need nothing but themselves."""
    app: Any = client._transport.app  # type: ignore[attr-defined]
    return sorted(
        {
            str(context.path)
            for context, _ in declared(app)
            if isinstance(context.route, PageRoute)
            and "GET" in (context.route.methods or ())
            and "{" not in str(context.path)
        }
    )


@pytest.fixture(scope="module")
async def record(busy_client: httpx.AsyncClient, photo: bytes) -> str:
    """The id of a record, so that its pages are not empty."""
    answer = await busy_client.post("/predict", files={"file": ("mantel.jpg", photo)})
    return str(answer.json()["id"])


async def test_every_page_speaks_german(busy_client: httpx.AsyncClient, record: str) -> None:
    """All words but those of the shop's own data: titles of channels, names of labels, code."""
    english = {}
    for path in [
        *page_paths(busy_client),
        f"/console/records/{record}",
        "/console/models/clothing",
        "/nothing",
        "/status",
    ]:
        page = await busy_client.get(path, headers=GERMAN, follow_redirects=True)
        if "text/html" not in page.headers["content-type"]:
            continue
        found = words_of(page.text)
        assert ("de", "de") == (found.language, page.headers["content-language"]), path
        assert "Accept-Language, Cookie" in page.headers["vary"]
        if path not in DATA_PAGES and (texts := [each.strip() for each in found.texts if ENGLISH.search(each)]):
            english[path] = texts
    assert {} == english


@pytest.mark.parametrize(
    "path", ["/console/catalogue", "/console/catalogue/runs", "/console/monitoring", "/console/monitoring/drift"]
)
async def test_the_tab_of_a_page_is_marked_in_both_languages(busy_client: httpx.AsyncClient, path: str) -> None:
    """The place of a page in the navigation is told by a name, which must not be translated before."""
    pages = [await busy_client.get(path, headers=each) for each in ({"accept": "text/html"}, GERMAN)]
    english, german = (page.text.count('aria-current="page"') for page in pages)
    assert english == german >= 2


async def test_a_choice_outlives_the_browser_and_leads_back(busy_client: httpx.AsyncClient) -> None:
    """To the page where it was made, never to another site; a language that is not there is refused."""
    for referer, back in (
        ("http://127.0.0.1/console/records?label=dress", "/console/records?label=dress"),
        ("https://evil.example/console", "/"),
        ("http://127.0.0.1//evil.example", "/"),
        ("", "/"),
    ):
        chosen = await busy_client.post(
            "/console/language", data={"language": "de"}, headers={"referer": referer, "origin": "http://127.0.0.1"}
        )
        assert (303, back) == (chosen.status_code, chosen.headers["location"])
    assert "shoplens_language=de" in chosen.headers["set-cookie"]
    busy_client.cookies.set("shoplens_language", "de")
    german = await busy_client.get("/console/records", headers={"accept-language": "en"})
    busy_client.cookies.clear()
    english = await busy_client.get("/console/records", headers={"accept-language": "fr, en;q=0.2, de;q=0"})
    assert ("de", "en") == (german.headers["content-language"], english.headers["content-language"])
    refused = await busy_client.post("/console/language", data={"language": "xx"}, headers={"accept": "text/html"})
    assert 422 == refused.status_code


async def test_programs_get_english(busy_client: httpx.AsyncClient) -> None:
    """Whatever language they accept."""
    problem = await busy_client.get("/predictions/nothing", headers={"accept-language": "de"})
    assert "'nothing' is not the id of a prediction." == problem.json()["detail"]


async def test_an_error_is_said_in_the_language_of_its_reader(busy_client: httpx.AsyncClient) -> None:
    """A page and its scripts speak German, with the values of the sentence; a program reads the sentence in English."""
    for path, sentence in (
        ("/console/records/nothing", "Diesen Eintrag gibt es nicht, oder er wurde gelöscht."),
        ("/console/records?since=yesterday", '"yesterday" ist kein Datum. Daten so schreiben: 2026-01-31.'),
        ("/console/models/nothing", "Kein Modell 'nothing' ist installiert."),
    ):
        page = await busy_client.get(path, headers=GERMAN)
        assert page.status_code in (404, 422)
        assert any(sentence in text for text in words_of(page.text).texts), words_of(page.text).texts
    unsupported = {"file": ("x.pdf", b"%PDF-1.7")}
    for headers, sentence in (
        ({"shoplens-language": "de"}, "Dieser Dateityp wird nicht unterstützt. Das ist ein PDF-Dokument."),
        ({"shoplens-language": "xx", "accept-language": "de"}, "Unsupported file type. This is a PDF document."),
        ({}, "Unsupported file type. This is a PDF document."),
    ):
        problem = await busy_client.post("/predict", headers=headers, files=unsupported)
        assert (415, "image_unsupported") == (problem.status_code, problem.json()["code"])
        assert problem.json()["detail"].startswith(sentence)


async def test_scripts_have_their_texts(busy_client: httpx.AsyncClient) -> None:
    """A page in German loads them before its scripts; there are none for English."""
    page = await busy_client.get("/", headers=GERMAN)
    address = re.search(r'<script src="(/console/texts/de\.js\?v=\w+)"', page.text)
    assert address is not None
    texts = await busy_client.get(address[1])
    assert "immutable" in texts.headers["cache-control"]
    assert "Wird klassifiziert …" in texts.text
    assert 404 == (await busy_client.get("/console/texts/en.js")).status_code
    assert "/console/texts/" not in (await busy_client.get("/", headers={"accept-language": "en"})).text
