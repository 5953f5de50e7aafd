"""Hostile and unlucky clients against a real server process: each is bounded, and the others do not notice."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shoplens.testing.cost import cpu_seconds
from tests.conftest import RunningServer, jpeg_of, running_server

FORM = "multipart/form-data; boundary=b"
STRANGER = "127.0.0.7"
MOST_WAIT_S = 0.5


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server that waits a second for a byte, where others wait ten."""
    with running_server(tmp_path_factory.mktemp("impatient"), models_dir, upload_idle_s="1") as server:
        yield server


@pytest.fixture(scope="module")
def large_photo() -> bytes:
    """A JPEG of several megabytes: noise does not compress."""
    return jpeg_of(np.random.default_rng(0).integers(0, 256, (1_500, 2_000, 3), np.uint8), quality=95)


@contextmanager
def connection_to(server: RunningServer, *, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A socket of a client at the address `source`."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0)) as connection:
        yield connection


def head(method: str, path: str, **headers: object) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    return "\r\n".join([*lines, *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()), "", ""]).encode()


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the server closes, or until there is nothing more to come."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
        if b"\r\n\r\n" in received and received.endswith(b"}"):
            break
    return received


def leave(connection: socket.socket) -> None:
    """Reset the connection, as a phone does that lost its line."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def longest_wait(server: RunningServer) -> Iterator[list[float]]:
    """How long another client waited at most for a simple answer while the block ran, in seconds."""
    waited, ended = [0.0], threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
            client.get("/health/live")
            while not ended.is_set():
                began = time.perf_counter()
                client.get("/health/live")
                waited[0] = max(waited[0], time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waited
    finally:
        ended.set()
        thread.join()


def wait_beside(server: RunningServer, act: Callable[[httpx.Client], None]) -> float:
    """The longest wait of another client during `act`; measured up to five times where it is long.

    Other programs on the machine hold a server up now and then, what it does itself holds it up each time.
    """
    for _ in range(5):
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client, longest_wait(server) as waited:
            act(client)
        if waited[0] < MOST_WAIT_S:
            break
    return waited[0]


def events_of(server: RunningServer, path: str, *, since: int) -> list[dict[str, Any]]:
    """What was logged after the first `since` lines, once a request for `path` is among it."""
    give_up_at = time.monotonic() + 30
    while not any(each.get("path") == path for each in server.events()[since:]) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    time.sleep(0.5)  # what a fault adds may come after it
    return server.events()[since:]


def test_a_body_is_short_where_no_photo_is_taken(server: RunningServer) -> None:
    """Announced or not, JSON or form."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        json = {"prediction_id": "x", "comment": "y" * 100_000}
        pieces = (b"x" * 1_000 for _ in range(100))
        feedback = "/console/records/01k9hzv3m5x4q8d0j7w2r6t9ab/feedback"
        answers = [
            client.post("/feedback", json=json),
            client.post("/feedback", content=pieces, headers={"content-type": "application/json"}),
            client.post(feedback, data={"comment": "y" * 100_000}),
        ]
        assert [413] * 3 == [answer.status_code for answer in answers]
        assert "body_too_large" == answers[0].json()["code"] == answers[1].json()["code"]
        assert {"prediction_not_found", "request_invalid"} >= {
            client.post("/feedback", json={**json, "comment": "y" * 60_000}).json()["code"]
        }


def test_json_however_deep_or_wide_costs_no_time(server: RunningServer) -> None:
    """As much of it as is taken at all, where a photo may come; others are answered meanwhile."""
    deep = b'{"image":' + b"[" * 13_000_000 + b"]" * 13_000_000 + b"}"
    wide = b'{"image":"x",' + b",".join(b'"%d":0' % number for number in range(2_000_000)) + b"}"
    shallow = b'{"prediction_id":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    kind = {"content-type": "application/json"}
    used_s: list[float] = []

    def send(client: httpx.Client) -> None:
        before = cpu_seconds(server.process.pid)
        answers = [client.post("/predict", content=body, headers=kind) for body in (deep, wide)]
        refused = client.post("/feedback", content=shallow, headers=kind)
        used_s.append(cpu_seconds(server.process.pid) - before)
        assert [422, 422] == [answer.status_code for answer in answers]
        assert refused.status_code in {400, 422}

    waited_s = wait_beside(server, send)
    assert waited_s < MOST_WAIT_S
    assert used_s[-1] < 3 + 60 * waited_s


def test_a_large_photo_in_json_arrives_whole(server: RunningServer, large_photo: bytes) -> None:
    """And others are answered while it is decoded."""
    text = base64.b64encode(large_photo).decode()

    def send(client: httpx.Client) -> None:
        answer = client.post("/predict", json={"image": text})
        assert hashlib.sha256(large_photo).hexdigest() == answer.json()["image"]["sha256"]

    assert wait_beside(server, send) < MOST_WAIT_S


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "zlib_codec", "unicode_escape"])
def test_a_form_in_an_odd_encoding_is_refused(server: RunningServer, charset: str) -> None:
    """Named for the whole form it is 415; named for a part it is not looked at."""
    name = b"b-" * 1_900
    form = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\nContent-Type: text/plain; charset='
    form += charset.encode() + b"\r\n\r\n" + b"a-" * 20_000 + b"\r\n--b--\r\n"
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for path in ("/predict", "/", "/batch/ingest", "/console/records/01k9hzv3m5x4q8d0j7w2r6t9ab/feedback"):
            began = time.monotonic()
            whole = client.post(path, content=form, headers={"content-type": f"{FORM}; charset={charset}"})
            assert 415 == whole.status_code
            part = client.post(path, content=form, headers={"content-type": FORM})
            assert part.status_code in {404, 422}
            assert time.monotonic() - began < 10  # it was 18


def test_idle_forms_of_a_stranger_keep_nobody_from_sending_one(impatient: RunningServer, photo: bytes) -> None:
    """And they are ended."""
    announced = head("POST", "/batch/ingest", Content_Type=FORM, Content_Length=9_000_000) + b"--b\r\n"
    with ExitStack() as opened:
        idle = [opened.enter_context(connection_to(impatient, source=STRANGER)) for _ in range(8)]
        for each in idle:
            each.sendall(announced)
        time.sleep(0.2)
        answer = httpx.post(f"{impatient.url}/", files={"file": photo}, trust_env=False, timeout=60)
        assert 303 == answer.status_code
        answers = [answer_of(each) for each in idle]
    assert 4 == sum(b"HTTP/1.1 408" in each for each in answers)
    assert 4 == sum(b"HTTP/1.1 429" in each for each in answers)


def test_a_phone_on_a_slow_line_succeeds(impatient: RunningServer) -> None:
    """At 40 kB per second an upload takes many times as long as a pause may: its rate is what counts."""
    photo = jpeg_of(np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8), quality=95)
    assert len(photo) > 120_000  # more than three times what may be on its way in a second
    with connection_to(impatient) as connection:
        connection.sendall(head("POST", "/predict", Content_Length=len(photo)))
        for at in range(0, len(photo), 4_000):
            connection.sendall(photo[at : at + 4_000])
            time.sleep(0.1)
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert hashlib.sha256(photo).hexdigest().encode() in answer


def test_a_body_below_the_least_rate_is_ended(impatient: RunningServer) -> None:
    """It sends often enough, but too little."""
    with connection_to(impatient) as connection:
        connection.sendall(head("POST", "/predict", Content_Length=1_000_000))
        began = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() - began < 15:
                connection.sendall(b"x" * 100)
                time.sleep(0.1)
                connection.setblocking(False)
                try:
                    if b"HTTP/1.1 408" in connection.recv(65_536):
                        raise ConnectionResetError
                except BlockingIOError:
                    pass
                connection.setblocking(True)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["/predict", "/", "/batch/ingest", "/feedback"])
@pytest.mark.parametrize("kind", [FORM, "application/json", "image/jpeg"])
def test_a_client_that_leaves_in_its_upload_is_no_error(server: RunningServer, path: str, kind: str) -> None:
    """The log has no traceback and no status of 500."""
    already = len(server.events())
    with connection_to(server) as connection:
        connection.sendall(head("POST", path, Content_Type=kind, Content_Length=60_000) + b"--b\r\nContent-Dis")
        time.sleep(0.2)
        leave(connection)
    assert_no_fault(events_of(server, path, since=already), path)


@pytest.mark.parametrize("path", ["/predictions.csv", "/predict"])
def test_a_client_that_leaves_before_its_answer_is_no_error(server: RunningServer, path: str, photo: bytes) -> None:
    """While a photo is classified, and while a download runs."""
    already = len(server.events())
    for _ in range(5):
        with connection_to(server) as connection:
            if path == "/predict":
                connection.sendall(head("POST", path, Content_Length=len(photo)) + photo)
            else:
                connection.sendall(head("GET", path))
            leave(connection)
    assert_no_fault(events_of(server, path, since=already), path)


def assert_no_fault(events: list[dict[str, Any]], path: str) -> None:
    """Requests for `path` were logged, none of them as a fault of the server."""
    answered = [each for each in events if each.get("path") == path]
    assert answered
    assert [] == [each for each in events if each["level"] == "error" or each.get("status", 0) >= 500]


@pytest.mark.parametrize("hosts", [["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "evil.example"], []])
def test_other_than_one_host_is_malformed(server: RunningServer, hosts: list[str]) -> None:
    """Whichever of them a proxy in front would have looked at."""
    with connection_to(server) as connection:
        lines = ["GET /health/live HTTP/1.1", *(f"Host: {host}" for host in hosts), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_long_address_and_large_headers_are_refused(server: RunningServer) -> None:
    """With the status that says which of them."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        long = client.get("/predictions?label=" + "a" * 9_000)
        large = client.get("/predictions", headers={f"x-{number}": "a" * 8_000 for number in range(9)})
        assert (414, "address_too_long") == (long.status_code, long.json()["code"])
        assert (431, "headers_too_large") == (large.status_code, large.json()["code"])
        assert 200 == client.get("/predictions", headers={"x-filler": "a" * 30_000}).status_code
