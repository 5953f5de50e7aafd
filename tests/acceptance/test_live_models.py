"""A server follows the champion of the registry while it is used, and refuses what it cannot serve."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.bundles.store import bundle_folders
from shoplens.registry.entities import Aliases
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.storage import open_store
from tests.conftest import RunningServer, jpeg_of, running_server
from tests.support.fusion import write_fusion_bundle

RED = jpeg_of(np.full((48, 64, 3), (250, 5, 5), np.uint8))
CHANNELS = """{"paint": {"model": "paint", "keep": "nothing"}, "shadowed": {"model": "paint", "shadow_share": 1.0},
"goods": {"model": "paint", "shadow_share": 1.0, "catalogue": {}},
"posted": {"model": "paint", "shadow_share": 1.0, "moderation": {}}}"""
SETTINGS = {"CHANNELS": CHANNELS, "DEFAULT_CHANNEL": "paint", "MODELS_POLL_S": "0.5"}
BY: dict[str, Any] = {"by": "a test", "why": "to see", "figures": {}}
ANSWERS = {"1": "Colours > Red", "2": "Colours > Green"}


@dataclass
class Shop:
    """A server, and the registry that it follows."""

    server: RunningServer
    registry: ObjectRegistry
    root: Path
    last: list[str] = field(default_factory=list)

    def promote(self, version: str) -> Aliases:
        """Make it the champion, and wake the server."""
        aliases = self.registry.aliases("paint")
        self.registry.set_alias("paint", "champion", version, expected=aliases, **BY)
        os.kill(self.server.process.pid, signal.SIGHUP)
        return aliases

    def answer(self, **parameters: str) -> httpx.Response:
        """To a red photo."""
        return httpx.post(f"{self.server.url}/predict", params=parameters, content=RED, timeout=30)

    def version(self, **parameters: str) -> str:
        """Which version answers."""
        body = self.answer(**parameters).json()
        assert ANSWERS.get(body["model"]["version"][0]) == body["labels"][0]["label"]
        return str(body["model"]["version"])

    def until(self, version: str) -> None:
        """Until it answers."""
        self.wait(lambda: self.version() == version)

    def wait(self, condition: Callable[[], bool]) -> None:
        """For half a minute."""
        give_up_at = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < give_up_at
            time.sleep(0.05)

    def fault(self) -> str:
        """What the readiness check says of the model."""
        body = httpx.get(f"{self.server.url}/health/ready").json()
        assert "ready" == body["status"]
        return str(body["models"].get("paint", ""))


def bundle(root: Path, version: str) -> Bundle:
    """Versions that begin with 1 see red in a red photo, those with 2 green."""
    return write_fusion_bundle(root / "made", version=version, turned=int(version[0]) - 1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Shop]:
    """Version 1.0 is live, 2.0 is published, and the server keeps two versions."""
    root = tmp_path_factory.mktemp("live")
    shutil.copytree(models_dir, root / "models", copy_function=os.link)
    registry = ObjectRegistry(open_store(str(root / "registry")), "the registry", clock=lambda: datetime.now(UTC))
    for version in ("1.0", "2.0"):
        registry.publish(bundle(root, version), **BY)
    registry.set_alias("paint", "champion", "1.0", expected=Aliases(), **BY)
    settings = SETTINGS | {"MODELS_URL": str(root / "registry"), "PINNED_VERSIONS": "1", "KEPT_VERSIONS": "2"}
    with running_server(root / "data", root / "models", **settings) as server:
        yield Shop(server=server, registry=registry, root=root)


def test_ten_swaps_under_load_fail_no_request(shop: Shop) -> None:
    """Two clients never stop asking, and every answer is of one of the two versions."""
    stop = threading.Event()
    seen: list[tuple[int, str]] = []

    def ask() -> None:
        with httpx.Client(base_url=shop.server.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/predict", content=RED)
                version = answer.json()["model"]["version"] if answer.is_success else answer.text
                seen.append((answer.status_code, version))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            version = ("2.0", "1.0")[number % 2]
            shop.promote(version)
            shop.until(version)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)

    assert {200} == {status for status, _ in seen}
    assert {"1.0", "2.0"} == {version for _, version in seen}
    metrics = httpx.get(f"{shop.server.url}/metrics").text
    assert 'shoplens_model_changes_total{model="paint",outcome="swapped"} 10.0' in metrics
    assert 'shoplens_model_info{model="paint",version="2.0"}' not in metrics


def test_a_challenger_answers_a_share_beside_the_champion(shop: Shop) -> None:
    """Its answers go to nobody; where they differ, the page has both and the record."""
    champion = shop.version()
    shop.registry.publish(bundle(shop.root, "2.9"), **BY)
    aliases = shop.registry.aliases("paint")
    shop.registry.set_alias("paint", "challenger", "2.9", expected=aliases, **BY)
    os.kill(shop.server.process.pid, signal.SIGHUP)

    def is_shown() -> bool:
        answer = shop.answer(channel="shadowed").json()
        assert (champion, "Colours > Red") == (answer["model"]["version"], answer["labels"][0]["label"])
        page = httpx.get(f"{shop.server.url}/console/models", headers={"accept": "text/html"}).text
        return f"{champion} and its challenger 2.9" in page and "Colours &gt; Green" in page

    shop.wait(is_shown)
    page = httpx.get(f"{shop.server.url}/console/models", headers={"accept": "text/html"}).text
    (record, *_) = re.findall(r'href="(/console/records/\w+)"', page)
    assert 200 == httpx.get(f"{shop.server.url}{record}", headers={"accept": "text/html"}).status_code
    assert (
        'shoplens_shadow_answers_total{model="paint",outcome="differed"}'
        in httpx.get(f"{shop.server.url}/metrics").text
    )


def test_a_challenger_sees_suggestions_and_photos_of_moderation_too(shop: Shop) -> None:
    """Its answers are stored with the product or the photo, where there is one."""
    challenger = shop.registry.aliases("paint").challenger
    assert "2.9" == challenger
    photo = {"photos": [b64encode(RED).decode()]}
    posts: list[dict[str, Any]] = [
        {"url": "/catalogue/suggest", "json": {"channel": "goods", **photo}},
        {"url": "/catalogue/products", "json": {"channel": "goods", "reference": "P-1", **photo}},
        {"url": "/moderation/photos", "data": {"channel": "posted"}, "files": {"file": ("a.jpg", RED, "image/jpeg")}},
    ]
    with httpx.Client(base_url=shop.server.url, timeout=30) as client:
        for post in posts:
            answer = client.post(**post)
            assert answer.is_success, answer.text

    def answers() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{shop.root / 'data' / 'shoplens.db'}?mode=ro", uri=True)) as database:
            return database.execute(
                "SELECT channel, photo_id IS NOT NULL, product_id IS NOT NULL, champion_label, challenger_label"
                " FROM shadow_answers WHERE channel IN ('goods', 'posted') ORDER BY 1, 3"
            ).fetchall()

    shop.wait(lambda: len(answers()) >= 3)
    red_green = ("Colours > Red", "Colours > Green")
    assert [("goods", 0, 0, *red_green), ("goods", 0, 1, *red_green), ("posted", 1, 0, *red_green)] == answers()
    page = httpx.get(f"{shop.server.url}/console/models", headers={"accept": "text/html"}).text
    assert 200 == httpx.get(f"{shop.server.url}/console/models", headers={"accept": "text/html"}).status_code
    for place in ("/console/catalogue/products/", "/console/moderation/photos/"):
        assert f'href="{place}' in page


def test_a_request_may_name_a_version(shop: Shop) -> None:
    """It answers that one request; too many of them at once, another model and an unknown version are refused."""
    shop.registry.publish(bundle(shop.root, "2.1"), **BY)
    for wanted in ("paint@9.9", "look@1.0", "paint"):
        missing = shop.answer(model=wanted)
        assert (404, "model_not_found") == (missing.status_code, missing.json()["code"])
    before = shop.version()
    assert "2.0" == shop.version(model="paint@2.0")
    assert before == shop.version()

    full = shop.answer(model="paint@2.1")
    assert (409, "too_many_versions") == (full.status_code, full.json()["code"])


def test_a_tampered_champion_is_refused_by_name_and_digest(shop: Shop) -> None:
    """The old one stays; readiness, metrics, page and log say so, until another version is champion."""
    before = shop.version()
    published = shop.registry.publish(bundle(shop.root, "2.2"), **BY)
    (file,) = (each for each in (shop.root / "registry" / "paint" / "2.2").iterdir() if each.stat().st_size > 40_000)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    shop.promote("2.2")
    shop.wait(lambda: "refused" in shop.fault())

    assert before == shop.version()
    assert "paint@2.2" in shop.fault()
    assert published.digest[:12] in shop.fault()
    assert f"paint@{before} stays" in shop.fault()
    assert 'shoplens_model_refused{model="paint"} 1.0' in httpx.get(f"{shop.server.url}/metrics").text
    page = httpx.get(f"{shop.server.url}/console/models", headers={"accept": "text/html"}).text
    assert "paint@2.2" in page
    assert any(each.get("event") == "model.champion_refused" for each in shop.server.events())
    shop.promote("2.0")
    shop.until("2.0")
    assert "" == shop.fault()


def test_a_registry_that_is_away_changes_nothing(shop: Shop) -> None:
    """What is live stays live and says so; when the registry is back, its champion goes live."""
    live = shop.version()
    aside = shop.root / "aside"
    (shop.root / "registry").rename(aside)
    try:
        (shop.root / "registry").write_text("no folder")
        shop.wait(lambda: shop.fault() != "")
        assert live == shop.version()
    finally:
        (shop.root / "registry").unlink()
        aside.rename(shop.root / "registry")
    shop.wait(lambda: shop.fault() == "")
    shop.promote("1.0")
    shop.until("1.0")


def test_old_versions_make_room_on_the_disk(shop: Shop) -> None:
    """Those that could be fetched again: two stay."""
    for version in ("1.1", "1.2", "1.3"):
        shop.registry.publish(bundle(shop.root, version), **BY)
        shop.promote(version)
        shop.until(version)
    shop.wait(lambda: len(list((shop.root / "models" / "paint").glob("[!.]*"))) <= 2)


def test_a_server_that_is_killed_starts_whole(shop: Shop, tmp_path: Path) -> None:
    """However far it was with a new champion: the next start has one of the two versions, complete."""
    for pause_s in (0.05, 0.4):
        models = tmp_path / f"models-{pause_s}"
        shutil.copytree(shop.root / "models", models, copy_function=os.link)
        settings = SETTINGS | {"MODELS_URL": str(shop.root / "registry")}
        with running_server(tmp_path / f"data-{pause_s}", models, **settings) as server:
            version = f"1.{40 + int(100 * pause_s)}"
            shop.registry.publish(bundle(shop.root, version), **BY)
            shop.promote(version)
            os.kill(server.process.pid, signal.SIGHUP)
            time.sleep(pause_s)
            server.process.kill()
        for folder in bundle_folders(models):
            if folder.parent.name == "paint":
                open_bundle(folder)
