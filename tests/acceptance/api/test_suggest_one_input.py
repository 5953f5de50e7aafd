"""POST /catalogue/suggest with a model that looks at photos only, or reads texts only."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shoplens.platform.server import Platform, build_platform
from shoplens.settings import read_settings
from tests.acceptance.catalogue_server import colour_photo
from tests.conftest import client_of
from tests.support.fusion import write_fusion_bundle, write_photo_bundle

BLUE = base64.b64encode(colour_photo("blue")).decode()
APPLES = b"id,path\na,Food > Apples\nb,Food > Pears\n"


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """A shop with two catalogues: one model has no input for texts, one has none for photos."""
    root = tmp_path_factory.mktemp("one-input")
    write_photo_bundle(root / "models")
    write_fusion_bundle(root / "models", name="words", photos=False)
    channels: dict[str, Any] = {
        "photos": {"model": "colours", "accept_at": 0.6, "catalogue": {}},
        "texts": {"model": "words", "accept_at": 0.6, "catalogue": {}},
    }
    platform = build_platform(
        read_settings(data_dir=root / "data", models_dir=root / "models", channels=channels, default_channel="photos")
    )
    yield platform
    await platform.close()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """One that needs no account."""
    async with client_of(platform) as client:
        yield client


@pytest.mark.parametrize(
    ("channel", "kind", "ignored", "path"),
    [("photos", "photo", "text", "Colours > Blue"), ("texts", "text", "photos", "Colours > Red")],
)
async def test_what_the_model_has_no_input_for_is_left_out_and_named(
    client: httpx.AsyncClient, channel: str, kind: str, ignored: str, path: str
) -> None:
    """In the answer of the API, on the page, and where the product is stored."""
    body = {"channel": channel, "designation": "red hat", "photos": [BLUE]}
    found = (await client.post("/catalogue/suggest", json=body)).json()
    saved = (await client.post("/catalogue/products", json={**body, "reference": "A-1"})).json()
    form = {name: (None, str(body[name])) for name in ("channel", "designation")}
    photo = ("a.jpg", colour_photo("blue"))
    page = await client.post("/console/catalogue", files={**form, "file": photo}, headers={"accept": "text/html"})

    assert (kind, ignored, path) == (found["kind"], found["ignored"], found["suggestions"][0]["path"])
    assert (kind, None, path) == (saved["kind"], saved["not_suggested"], saved["suggestions"][0]["path"])
    assert f"it takes no {ignored}" in page.text


@pytest.mark.parametrize(
    ("channel", "body", "sentence"),
    [
        ("photos", {"designation": "red hat"}, "looks at photos only: send a photo"),
        ("texts", {"photos": [BLUE]}, "reads texts only: send a title or a description"),
    ],
)
async def test_a_product_with_nothing_for_the_model_is_refused_with_what_is_needed(
    client: httpx.AsyncClient, channel: str, body: dict[str, Any], sentence: str
) -> None:
    """422, and the stored product says why it has no suggestion."""
    refused = await client.post("/catalogue/suggest", json={"channel": channel, **body})
    saved = await client.post("/catalogue/products", json={"channel": channel, "reference": "A-2", **body})
    assert (422, True) == (refused.status_code, sentence in refused.json()["detail"])
    assert sentence in saved.json()["not_suggested"]


async def test_no_word_is_explained_by_a_model_of_photos(client: httpx.AsyncClient) -> None:
    """The answer says why."""
    tree = (await client.get("/catalogue/categories?channel=photos&text=red")).json()["items"][0]["id"]
    answer = await client.post(
        "/catalogue/explain", json={"channel": "photos", "designation": "red hat", "category": tree}
    )
    assert (422, True) == (answer.status_code, "no word counts" in answer.json()["detail"])


async def test_a_cold_start_reads_the_text_itself(client: httpx.AsyncClient) -> None:
    """For a tree that neither model knows; it is the last test of this file."""
    for channel, ignored in (("photos", None), ("texts", "photos")):
        answer = await client.post(
            f"/catalogue/tree?channel={channel}", files={"file": ("tree.csv", APPLES, "text/csv")}
        )
        assert answer.is_success, answer.text
        body = {"channel": channel, "designation": "ripe apples", "photos": [BLUE]}
        found = (await client.post("/catalogue/suggest", json=body)).json()
        assert (True, ignored, "Food > Apples") == (
            found["cold_start"], found["ignored"], found["suggestions"][0]["path"]
        )  # fmt: skip
