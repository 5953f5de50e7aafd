"""A fault of a store is reported within seconds, in a sentence, with what to do, and without secrets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from servers.seaweed import S3Place
from shoplens.errors import Misconfigured, SourceUnavailable, StorageUnavailable
from shoplens.storage import open_prefix, open_store
from shoplens.storage.store import reason_of
from shoplens.testing.store_contract import KEY

SECRET = "c0ffee-not-for-anybodys-eyes"


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that answers everything with an error."""

    class Refusal(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._refuse()

        def do_PUT(self) -> None:
            self._refuse()

        def do_POST(self) -> None:
            self._refuse()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def reported(endpoint: str, *, fail_fast: bool = True) -> list[str]:
    """What the store and the source say of a place."""
    options = {"region": "x", "endpoint": endpoint, "access_key_id": "a", "secret_access_key": SECRET}
    began_s = time.monotonic()
    store = open_store("s3://shop/photos", setting="storage_url", options=options, fail_fast=fail_fast)
    source = open_prefix("s3://shop/drop", setting="returns.source", options=options)
    acts: list[Callable[[], object]] = [store.check, lambda: store.put_if(KEY, b"photo", seen=None), source.check]

    def sentence_of(act: Callable[[], object]) -> str:
        with pytest.raises((StorageUnavailable, SourceUnavailable)) as caught:
            act()
        return str(caught.value)

    with ThreadPoolExecutor(3) as threads:
        sentences = list(threads.map(sentence_of, acts))
    # Four seconds and ten, and what a busy machine adds.
    assert (9 if fail_fast else 30) > time.monotonic() - began_s
    assert [] == [each for each in sentences if SECRET in each or "\n" in each]
    assert {"storage_url", "returns.source"} == {each.partition("(")[2].partition(")")[0] for each in sentences}
    return sentences


@pytest.mark.parametrize(
    ("status", "code", "what", "remedy"),
    [
        (503, "SlowDown", "overloaded", "Look at its log"),
        (500, "", "an internal error", "try again"),
        (404, "NoSuchBucket", "there is no such bucket", "Create it"),
        (403, "AccessDenied", "may not do this", "AWS_ACCESS_KEY_ID"),
        (403, "InvalidAccessKeyId", "not known there", "Set AWS_ACCESS_KEY_ID"),
        (400, "AuthorizationHeaderMalformed", "the region is wrong", "Set AWS_REGION"),
        (400, "ExpiredToken", "expired", "AWS_SESSION_TOKEN"),
    ],
)
def test_an_answer_that_refuses_is_put_in_words(status: int, code: str, what: str, remedy: str) -> None:
    """By the store and by the source alike."""
    with answering(status, code) as endpoint:
        for sentence in reported(endpoint):
            assert what in sentence
            assert remedy in sentence


@pytest.mark.parametrize("fail_fast", [True, False])
def test_a_server_that_never_answers_costs_seconds(fail_fast: bool) -> None:
    """Few where somebody looks whether it is there; ten at work, where a photo may be large and the network slow."""
    with silent() as endpoint:
        for sentence in reported(endpoint, fail_fast=fail_fast):
            assert f"{endpoint} did not answer in time" in sentence
            assert "AWS_ENDPOINT_URL" in sentence


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [
        ("http://127.0.0.1:9", "nothing listens at http://127.0.0.1:9"),
        ("http://no-such-host.invalid", "no-such-host.invalid"),
    ],
)
def test_an_unreachable_endpoint_is_reported(endpoint: str, what: str) -> None:
    """With the address that was tried."""
    for sentence in reported(endpoint):
        assert what in sentence
        assert "AWS_ENDPOINT_URL" in sentence


def test_an_https_address_of_an_http_server_is_reported() -> None:
    """An easy mistake."""
    with answering(500, "") as endpoint:
        for sentence in reported(endpoint.replace("http:", "https:")):
            assert "no encrypted connection" in sentence


def test_a_wrong_secret_is_refused_by_a_real_server(s3: S3Place) -> None:
    """And reported, whichever verb meets it, without the secret."""
    options = {**s3.options, "secret_access_key": SECRET}
    store = open_store(s3.url, setting="storage_url", options=options)
    acts: list[Callable[[], object]] = [
        store.check,
        lambda: store.put(KEY, b"x"),
        lambda: store.put_if(KEY, b"x", seen=None),
        lambda: store.put_pieces(KEY, [b"x"]),
        lambda: store.get(KEY),
        lambda: store.exists(KEY),
        lambda: store.delete(KEY),
        lambda: store.move(KEY, "b"),
        lambda: list(store.list("")),
        open_prefix(s3.url, options=options).check,
    ]
    for act in acts:
        with pytest.raises((StorageUnavailable, SourceUnavailable), match="AWS_SECRET_ACCESS_KEY") as caught:
            act()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variables", "what"),
    [
        ("s3://shop/x", {"AWS_ENDPOINT_URL": "127.0.0.1:8333"}, "AWS_ENDPOINT_URL is '127.0.0.1:8333'"),
        ("s3://shop/x", {"AWS_ENDPOINT_URL": "http://host:port"}, "not the URL of a server"),
        ("s3://shop/x", {"AWS_ENDPOINT_URL": f"http://u:{SECRET}@host"}, "not the URL of a server"),
        ("s3://shop/x", {"AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY is not set"),
        ("s3://sh op/x", {}, "not a valid bucket name"),
        (f"s3://key:{SECRET}@shop/x", {}, "Set keys in the environment"),
        (f"ftp://key:{SECRET}@shop/x", {}, "cannot be stored at ftp://"),
    ],
)
def test_invalid_settings_are_reported_before_any_request(
    url: str, variables: dict[str, str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable that is wrong, and no password."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=what) as caught:
        open_store(url)
    assert SECRET not in str(caught.value)


def test_a_fault_that_nobody_knows_is_one_line() -> None:
    """The rest is debugging output."""
    assert "odd" == reason_of(ValueError("odd\n\nDebug source: …"))
    assert "ValueError" == reason_of(ValueError())


@pytest.mark.parametrize(
    ("status", "remedy"), [("403 Forbidden", "AWS_SECRET_ACCESS_KEY"), ("400 Bad Request", "AWS_REGION")]
)
def test_a_response_without_a_message_is_reported_by_its_status(status: str, remedy: str) -> None:
    """A look at an object has no room for more."""
    assert remedy in reason_of(ValueError(f"Generic S3 error: Server returned non-2xx status code: {status}: "))


def test_missing_credentials_are_named() -> None:
    """The library looks for those of a role last."""
    error = ValueError("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 3 s")
    assert "there are no keys for it. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." == reason_of(error)
