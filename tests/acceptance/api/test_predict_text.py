"""POST /predict with a text, alone or with a photo, on a channel whose model takes one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from shoplens.platform.server import Platform, build_platform
from shoplens.settings import read_settings
from tests.conftest import client_of, jpeg_of
from tests.support.fusion import write_fusion_bundle

RED = jpeg_of(np.full((48, 64, 3), (250, 5, 5), np.uint8))


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """A shop whose channels have a model of photos and texts; one stores nothing."""
    root = tmp_path_factory.mktemp("paint")
    write_fusion_bundle(root / "models")
    channels: dict[str, Any] = {"paint": {"model": "paint"}, "quiet": {"model": "paint", "keep": "nothing"}}
    platform = build_platform(
        read_settings(data_dir=root / "data", models_dir=root / "models", channels=channels, default_channel="paint")
    )
    yield platform
    await platform.close()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """One that needs no account."""
    async with client_of(platform) as client:
        yield client


def form(text: str) -> dict[str, tuple[None, str]]:
    """A form with a text and no file."""
    return {"text": (None, text)}


async def test_a_text_alone_is_a_record_without_a_photo(client: httpx.AsyncClient) -> None:
    """Read back, shown on its page, and exported."""
    answer = await client.post("/predict", files=form("<b>Green</b> hat\nas green as grass"))
    body = answer.json()
    stored = (await client.get(f"/predictions/{body['id']}")).json()
    shown = await client.get(f"/console/records/{body['id']}", headers={"accept": "text/html"})
    exported = (await client.get("/predictions.csv")).text

    assert (200, "Colours > Green", None) == (answer.status_code, body["labels"][0]["label"], body["image"])
    assert "Green hat\nas green as grass" == body["text"] == stored["text"]
    assert ("A text without a photo." in shown.text, "as green as grass" in shown.text) == (True, True)
    assert "as green as grass" in exported
    missing = await client.get(f"/predictions/{body['id']}/image")
    assert (404, "image_not_kept") == (missing.status_code, missing.json()["code"])


async def test_a_photo_and_a_text_are_one_sample(client: httpx.AsyncClient) -> None:
    """The record has both."""
    answer = await client.post("/predict", files={"file": RED}, data={"text": "hat"})

    body = answer.json()
    assert ("Colours > Red", "jpeg", "hat") == (body["labels"][0]["label"], body["image"]["format"], body["text"])


async def test_a_channel_that_stores_nothing_stores_no_text(client: httpx.AsyncClient) -> None:
    """Neither the photo nor what was written."""
    body = (await client.post("/predict?channel=quiet", files=form("green"))).json()

    assert ("Colours > Green", None) == (body["labels"][0]["label"], body["text"])


@pytest.mark.parametrize("text", ["", " \u202e\x00 ", "<p></p>", "?!"])
async def test_nothing_to_classify_is_refused_with_what_is_needed(client: httpx.AsyncClient, text: str) -> None:
    """However nothing is written."""
    answer = await client.post("/predict", files=form(text))

    assert (422, "request_invalid") == (answer.status_code, answer.json()["code"])
    assert "There is nothing to classify" in answer.json()["detail"]


async def test_a_photo_keeps_the_name_of_its_file(client: httpx.AsyncClient) -> None:
    """That of the form, or the one in the query, without the folders before it; read back, exported and shown."""
    named = [
        (await client.post("/predict", files={"file": ("C:\\Photos\\IMG 2031.JPG", RED)})).json(),
        (await client.post("/predict?file_name=shelf/left.jpg", content=RED)).json(),
        (await client.post("/predict", content=RED)).json(),
    ]
    stored = (await client.get(f"/predictions/{named[0]['id']}")).json()
    shown = await client.get(f"/console/records/{named[1]['id']}", headers={"accept": "text/html"})
    exported = (await client.get("/predictions.csv")).text

    assert ["IMG 2031.JPG", "left.jpg", None] == [each["file_name"] for each in named]
    assert "IMG 2031.JPG" == stored["file_name"]
    assert ",IMG 2031.JPG\r\n" in exported
    assert "left.jpg" in shown.text


async def test_a_channel_that_stores_nothing_stores_no_file_name(client: httpx.AsyncClient) -> None:
    """It may name a person."""
    body = (await client.post("/predict?channel=quiet", files={"file": ("anna.jpg", RED)})).json()

    assert body["file_name"] is None


async def test_a_megabyte_of_text_is_cut(client: httpx.AsyncClient) -> None:
    """What counts stands at its beginning."""
    body = (await client.post("/predict", files=form("green " * 150_000))).json()

    assert body["labels"][0]["label"] == "Colours > Green"
    assert 990 < len(body["text"]) <= 1_000
