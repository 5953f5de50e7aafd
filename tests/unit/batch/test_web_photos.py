"""Photos from the web: which addresses are allowed, and what a server may do to an import."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from shoplens.batch.sources import FileSkipped, SkipReason
from shoplens.batch.web_photos import WebPhotos
from shoplens.errors import Misconfigured
from shoplens.settings import read_settings

PREFIX = "https://images.example.org/reviews/"
MAX_BYTES = 50_000


def photos(prefix: str = PREFIX, *, networks: tuple[str, ...] = ()) -> WebPhotos:
    """The rules of a test."""
    return WebPhotos([prefix], networks=networks, max_bytes=MAX_BYTES)


def read(web: WebPhotos, url: str) -> bytes:
    """The photo at this address."""
    return b"".join(web.file(url, label="list.csv, line 2", changed_ms=0).chunks())


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.org/other/1.jpg",
        "https://images.example.org.evil.example/reviews/1.jpg",
        "https://images.example.org@evil.example/reviews/1.jpg",
        "http://images.example.org/reviews/1.jpg",
        "https://images.example.org/reviews/../admin/1.jpg",
        "https://images.example.org/reviews/%2e%2e/admin/1.jpg",
        "https://images.example.org/reviews/%252e%252e/admin/1.jpg",
        "https://images.example.org/reviews/..\\admin/1.jpg",
        "https://images.example.org/reviews/1.jpg\r\nHost: evil.example",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_leads_elsewhere_is_not_allowed(url: str) -> None:
    """However it is written."""
    assert photos().fault(url) is not None
    assert photos().fault(f"{PREFIX}2026/1.jpg?size=large") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "[::1]", "localhost"])
def test_a_private_address_is_not_connected_to(host: str) -> None:
    """Unless its network is named: an import must not be a way into the shop's own network."""
    prefix = f"https://{host}/photos/"
    with pytest.raises(FileSkipped, match="is not a public address that can be reached over https") as refused:
        read(photos(prefix), f"{prefix}1.jpg")
    assert SkipReason.UNREADABLE is refused.value.skipped.reason
    assert "list.csv, line 2" in refused.value.skipped.name


@pytest.fixture
def server() -> Iterator[str]:
    """Sends as many bytes as the path says; one path ends early."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            self.send_response(200)
            if name == "early":
                self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * (10 if name == "early" else int(name)))

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    started = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=started.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{started.server_address[1]}/"
    started.shutdown()
    thread.join()
    started.server_close()


def test_a_photo_is_bounded_while_it_is_fetched(server: str) -> None:
    """A server may say nothing of its length, or lie; one that ends early has sent no photo."""
    web = photos(server, networks=("127.0.0.0/8",))
    assert MAX_BYTES == len(read(web, f"{server}{MAX_BYTES}"))
    with pytest.raises(FileSkipped, match=r"more than the 0\.05 MB that are allowed"):
        read(web, f"{server}{MAX_BYTES + 1}")
    with pytest.raises(FileSkipped, match="could not be fetched"):
        read(web, f"{server}early")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("URL_PREFIXES", "https://images.example.org", "ends with a slash"),
        ("URL_PREFIXES", "ftp://images.example.org/", "ends with a slash"),
        ("URL_PREFIXES", "https://user:pw@images.example.org/", "no user, query or fragment"),
        ("URL_NETWORKS", "everything", "is not a network such as"),
    ],
)
def test_a_setting_that_allows_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """Such as a prefix that other hosts begin with too."""
    monkeypatch.setenv(f"SHOPLENS_CHANNELS__RETURNS__BATCH__{name}", value)
    with pytest.raises(Misconfigured, match=words):
        read_settings()
