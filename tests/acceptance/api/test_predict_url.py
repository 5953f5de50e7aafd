"""POST /predict with a photo's address: off by default, below allowed prefixes alone, never into private networks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from shoplens.platform.server import Platform, build_platform
from shoplens.settings import read_settings
from tests.conftest import client_of

TOO_LARGE_BYTES = 300_000


@pytest.fixture(scope="module")
def images(photo: bytes) -> Iterator[str]:
    """Where another server has a photo, a larger file, and an address that leads elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/moved.jpg"):
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:1/secret")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * TOO_LARGE_BYTES if self.path.endswith("/large.jpg") else photo)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/photos/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
async def fetching(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, images: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A server that may fetch below that address."""
    settings = read_settings(
        data_dir=tmp_path_factory.mktemp("fetching"),
        models_dir=models_dir,
        console_channel="look",
        photo_urls={"url_prefixes": [images], "url_networks": ["127.0.0.0/8"]},
        max_image_bytes=TOO_LARGE_BYTES - 1,
    )
    platform = build_platform(settings)
    async with client_of(platform) as client:
        yield client
    await platform.close()


async def test_a_photo_by_its_address_is_answered_like_the_photo(
    fetching: httpx.AsyncClient, images: str, photo: bytes
) -> None:
    """As JSON and in a form; its name is kept."""
    sent = (await fetching.post("/predict", content=photo)).json()
    url = f"{images}blue%20shirt.jpg?size=large"
    page = await fetching.post("/", files={"url": (None, url), "file": ("", b"")})
    for answer in (
        await fetching.post("/predict", json={"url": url}),
        await fetching.post("/predict", files={"url": (None, url)}),
        await fetching.get(page.headers["location"].replace("/console/records", "/predictions")),
    ):
        body = answer.json()
        assert sent["labels"] == body["labels"][:5]
        assert (sent["image"]["sha256"], "blue shirt.jpg") == (body["image"]["sha256"], body["file_name"])


@pytest.mark.parametrize(
    ("below", "words"),
    [
        ("../secret.jpg", "is not a plain address"),
        ("large.jpg", "more than the 0.299999 MB that are allowed"),
        ("moved.jpg", "redirects are not followed"),
    ],
)
async def test_an_address_that_leads_elsewhere_is_refused(
    fetching: httpx.AsyncClient, images: str, below: str, words: str
) -> None:
    """With a sentence that says why."""
    answer = await fetching.post("/predict", json={"url": images + below})
    assert (422, "photo_not_fetched") == (answer.status_code, answer.json()["code"])
    assert words in answer.json()["detail"]


async def test_only_allowed_addresses_are_fetched_and_no_private_ones(
    make_platform: Callable[..., Platform], images: str
) -> None:
    """A prefix alone opens no private network."""
    async with client_of(make_platform(photo_urls={"url_prefixes": [images]})) as client:
        private = await client.post("/predict", json={"url": f"{images}1.jpg"})
        other = await client.post("/predict", json={"url": "https://images.example.org/1.jpg"})
    assert "is not a public address that can be reached over https" in private.json()["detail"]
    assert "is not below one of the addresses in photo_urls.url_prefixes" in other.json()["detail"]
    assert [422, 422] == [private.status_code, other.status_code]


async def test_addresses_are_off_by_default(busy_client: httpx.AsyncClient, photo: bytes) -> None:
    """The page does not ask for one either, and the refusal names the setting."""
    for body in (
        {"json": {"url": "https://example.org/1.jpg"}},
        {"files": {"url": (None, "https://example.org/1.jpg")}},
    ):
        answer = await busy_client.post("/predict", **body)
        assert (422, "photo_not_fetched") == (answer.status_code, answer.json()["code"])
        assert "photo_urls.url_prefixes" in answer.json()["detail"]
    assert 'name="url"' not in (await busy_client.get("/")).text
    both = await busy_client.post("/predict", files={"file": photo, "url": (None, "https://example.org/1.jpg")})
    assert (422, "request_invalid") == (both.status_code, both.json()["code"])
