"""A real Chromium before a real server, and pages that complain about everything that a browser complains about."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from shoplens.bundles.store import resolve_bundle
from shoplens.platform.parts import utc_now
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.storage import open_store
from shoplens.testing.registry_contract import promote, publish
from shoplens.web.browser import COOKIE
from tests.conftest import RunningServer, running_server
from tools.browser import NONE_FOUND, find_chromium

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 60_000
"""How long a page may take for what a test waits for, on a loaded machine."""
expect.set_options(timeout=WAIT_MS)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1440, "height": 900}}
STRICT = {"model": "opennsfw", "keep": "original", "labels": {"safe": {"reject_at": 0.05}}}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in this folder can be chosen, or left out, by the marker. Without a browser one test says so."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.browser)
    if here and find_program() is None:
        config.hook.pytest_deselected(items=here[1:])
        items[:] = [item for item in items if item not in here[1:]]


find_program = cache(find_chromium)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one file. It must end with them: while it runs, the thread has a running event loop,
    and the asynchronous tests of other files could not have theirs.
    """
    program = find_program()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(NONE_FOUND, pytrace=False)
        pytest.skip(f"NOT TESTED IN A BROWSER. {NONE_FOUND}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server with a third channel that keeps originals and rejects nearly everything, and a published model."""
    root = tmp_path_factory.mktemp("shop")
    registry = ObjectRegistry(open_store(str(root / "registry")), "the registry", clock=utc_now)
    publish(registry, resolve_bundle("opennsfw", models_dir))
    promote(registry, "opennsfw", registry.versions("opennsfw")[0].ref.version)
    with running_server(
        root, models_dir, channels__strict=json.dumps(STRICT), photo_urls__url_prefixes="https://127.0.0.1/photos/"
    ) as started:
        yield started


@dataclass
class Visit:
    """A browser context with what went wrong in it. A test that provokes a status names it in `expected`."""

    context: BrowserContext
    origin: str
    expected: set[int] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def page(self, path: str = "/") -> Page:
        """A page of the console, watched from its first byte."""
        page = self.context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.goto(self.origin + path)
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        # The status of a failed request is looked at in `_on_response`; being offline is always on purpose here.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.complaints.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", f"blob:{self.origin}/")):
            self.complaints.append(f"foreign request: {request.url}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self.complaints.append(f"status {response.status}: {response.url}")


VisitMaker = Callable[..., Visit]


@pytest.fixture
def visit(chromium: Browser, shop: RunningServer) -> Iterator[VisitMaker]:
    """Makes visits; when the test ends, none of them may have a complaint (a CSP violation is one)."""
    visits: list[Visit] = []

    def make(*, at: RunningServer = shop, expected: set[int] | None = None, person: int = 0, **options: Any) -> Visit:
        context = chromium.new_context(**{**DESKTOP, **options})
        context.add_cookies([{"name": COOKIE, "value": f"{person:032x}", "url": at.url}])
        context.set_default_timeout(WAIT_MS)
        visits.append(Visit(context=context, origin=at.url, expected=expected or set()))
        return visits[-1]

    yield make
    for each in visits:
        each.context.close()
    assert [] == [complaint for each in visits for complaint in each.complaints]


def write_photo(path: Path, seed: int = 1) -> Path:
    """A smooth colourful picture; its format follows from the suffix."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    """A JPEG on disk."""
    return write_photo(tmp_path / "blue shirt.jpg")


def pick(page: Page, *files: Path) -> None:
    """Choose files as the file dialog would, and wait for the answer."""
    page.set_input_files("#file", list(files))
    page.wait_for_selector("#answers .bars .label-score")
