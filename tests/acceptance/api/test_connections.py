"""Connections of a real server process: half-open ones end, heads are bounded, one client cannot take them all."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from shoplens.testing.cost import Meter, megabytes
from tests.acceptance.api.test_clients import STRANGER, answer_of, connection_to, head
from tests.conftest import RunningServer, running_server

CONNECTIONS = 40
GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server for forty connections, twenty of one client, behind a proxy at 127.0.0.9."""
    settings = {"max_connections": str(CONNECTIONS), "trusted_proxies": "127.0.0.9"}
    with running_server(tmp_path_factory.mktemp("small"), models_dir, **settings) as server:
        yield server


def seconds_until_closed(connection: socket.socket) -> float:
    """How long the server keeps a connection."""
    began = time.monotonic()
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def test_a_connection_without_a_request_is_closed_after_ten_seconds(server: RunningServer) -> None:
    """Whether it sends nothing, half a head, or half of another one."""
    heads = (b"", b"GET / HTTP/1.1\r\nHost: 127", b"\r\n\r\n", GET + b"GET /", head("POST", "/", Content_Length=9)[:-2])

    def wait(sent: bytes) -> float:
        with connection_to(server) as connection:
            connection.sendall(sent)
            return seconds_until_closed(connection)

    with ThreadPoolExecutor(len(heads)) as clients:
        waited_s = dict(zip(heads, clients.map(wait, heads), strict=True))
    assert {} == {sent: seconds for sent, seconds in waited_s.items() if not 4 < seconds < 40}


def test_a_head_that_arrives_byte_by_byte_is_closed_after_ten_seconds(server: RunningServer) -> None:
    """Each byte is not a reason to wait again."""
    with connection_to(server) as connection:
        began = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() - began < 30:
                connection.sendall(b"GET / HTTP/1.1\r\nX-Filler: "[:1])
                time.sleep(0.2)
        assert 8 < time.monotonic() - began < 29


def test_a_head_without_end_is_refused(server: RunningServer) -> None:
    """At 64 kB, however it goes on."""
    with connection_to(server) as connection:
        connection.sendall(b"\r\n\r\nGET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Filler: aaaaaaaaaaaaa\r\n" * 4_000)
        assert answer_of(connection).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "before",
    [
        GET,
        head("GET", "/predictions.csv"),
        head("POST", "/feedback", Content_Length=70_000),
        head("POST", "/", Content_Length=30_000_000),
        head("POST", "/batch/runs", Transfer_Encoding="chunked") + b"1\r\na\r\n0\r\n\r\n",
    ],
)
def test_headers_without_end_are_refused_after_other_requests_too(server: RunningServer, before: bytes) -> None:
    """While one is served, and after one whose body was refused: the server takes a bounded part of them."""
    sent, line = 0, b"X-Filler: " + b"a" * 50_000 + b"\r\n"
    with connection_to(server) as connection:
        connection.settimeout(0.2)
        connection.sendall(before)
        began = time.monotonic()
        try:
            while time.monotonic() - began < 20 and sent < 100_000_000:
                try:
                    sent += connection.send(line)
                except TimeoutError:
                    connection.recv(1_000_000)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 50_000_000
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert 200 == client.get("/health/live").status_code


def test_requests_that_are_sent_in_advance_are_answered_in_order(server: RunningServer) -> None:
    """Two hundred of them, with a last one that ends the connection."""
    with connection_to(server) as connection:
        connection.sendall(GET * 200 + head("GET", "/health/ready", Connection="close"))
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert 201 == received.count(b"HTTP/1.1 200")
    assert received.endswith(b"}}")
    assert 1 == received.count(b'"ready"') == received[-300:].count(b'"ready"')


def test_a_body_that_nobody_reads_does_not_end_the_connection(server: RunningServer) -> None:
    """In chunks or not, a second request is answered on it."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client, connection_to(server) as connection:
        for body in (b"1\r\na\r\n0\r\n\r\n", b"x" * 5_000, b"1\r\na\r\n0\r\n\r\n"):
            kind = {"Transfer_Encoding": "chunked"} if body.startswith(b"1") else {"Content_Length": len(body)}
            connection.sendall(head("DELETE", "/health/live", **kind))
            time.sleep(0.1)
            connection.sendall(body)
            assert answer_of(connection).startswith(b"HTTP/1.1 405")
        assert 200 == client.get("/health/live").status_code


def test_a_refused_upload_in_chunks_reads_its_answer(server: RunningServer) -> None:
    """Although it sends on for a while."""
    with connection_to(server) as connection:
        connection.sendall(head("POST", "/feedback", Content_Type="application/json", Transfer_Encoding="chunked"))
        for _ in range(100):
            connection.sendall(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 413")


def test_a_body_in_tiny_chunks_is_ended(server: RunningServer) -> None:
    """A megabyte in chunks of one byte would take longer to read than any photo takes to classify."""
    tiny = b"1\r\nx\r\n" * 1_000_000
    with connection_to(server) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(head("POST", "/predict", Transfer_Encoding="chunked") + tiny)
        connection.recv(1)
    assert 200 == httpx.get(f"{server.url}/health/live", trust_env=False).status_code


@pytest.mark.parametrize(
    "flood", [b"1\r\nx\r\n" * 4_000_000, b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 2_000_000], ids=["chunks", "trailers"]
)
def test_a_body_that_is_mostly_framing_costs_little(server: RunningServer, flood: bytes) -> None:
    """Each byte in a chunk of its own, and more trailers than photo."""
    with connection_to(server) as connection, Meter(server.process.pid) as meter:
        connection.sendall(head("POST", "/predict", Content_Type="image/jpeg", Transfer_Encoding="chunked"))
        with suppress(ConnectionError):
            connection.sendall(flood)
    assert meter.cost.cpu_s < 0.8
    assert meter.cost.megabytes < 100


def test_requests_in_advance_cost_no_memory(server: RunningServer) -> None:
    """Of a client that reads none of the answers; others are served meanwhile."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client, ExitStack() as opened:
        client.get("/predictions?limit=1")
        before = megabytes(server.process.pid)
        for _ in range(4):
            connection = opened.enter_context(connection_to(server))
            connection.settimeout(0.5)
            stop_at = time.monotonic() + 2
            with suppress(TimeoutError, ConnectionError):
                while time.monotonic() < stop_at:
                    connection.sendall(head("GET", "/predictions?limit=1") * 1_000)
        assert 200 == client.get("/health/live").status_code
        assert megabytes(server.process.pid) - before < 50


def test_what_is_not_http_is_refused_at_once(server: RunningServer) -> None:
    """As when a browser tries https."""
    with connection_to(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        began = time.monotonic()
        assert answer_of(connection).startswith(b"HTTP/1.1 400")
        assert time.monotonic() - began < 8  # one that is waited for has ten seconds


def test_a_stranger_cannot_take_all_connections(small_server: RunningServer) -> None:
    """Half of them at most; the others are served meanwhile, and so is the stranger when they are closed."""
    with ExitStack() as opened:
        held = [opened.enter_context(connection_to(small_server, source=STRANGER)) for _ in range(CONNECTIONS)]
        time.sleep(0.5)
        for each in held:
            each.settimeout(0.05)
        give_up_at = time.monotonic() + 6  # those without a request are closed after ten seconds
        while (refused := sum(map(is_closed, held))) < CONNECTIONS // 2 and time.monotonic() < give_up_at:
            pass
        assert CONNECTIONS // 2 == refused
        assert 200 == httpx.get(f"{small_server.url}/health/live", trust_env=False).status_code
    give_up_at = time.monotonic() + 30
    while not is_served(small_server, source=STRANGER):  # it may not have seen yet that they are closed
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has ended it, at once or within the connection's timeout."""
    try:
        return not connection.recv(1)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def is_served(server: RunningServer, *, source: str) -> bool:
    """Whether a new connection from that address gets an answer."""
    with suppress(ConnectionError), connection_to(server, source=source) as connection:
        connection.sendall(GET)
        return answer_of(connection).startswith(b"HTTP/1.1 200")
    return False


def test_a_configured_proxy_may_have_more_connections(small_server: RunningServer) -> None:
    """Since all its clients come from its address."""
    with ExitStack() as opened:
        for _ in range(CONNECTIONS * 3 // 4):
            connection = opened.enter_context(connection_to(small_server, source="127.0.0.9"))
            connection.sendall(GET)
            assert answer_of(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("source", "status"), [("127.0.0.9", b"403"), ("127.0.0.1", b"404")])
def test_forwarded_headers_count_from_configured_proxies_only(
    small_server: RunningServer, source: str, status: bytes
) -> None:
    """Over https a page of http is another site; a stranger cannot say that a connection is https."""
    headers = {"X_Forwarded_Proto": "https", "Origin": "http://127.0.0.1", "Content_Length": 0}
    with connection_to(small_server, source=source) as connection:
        connection.sendall(head("POST", "/console/nothing", **headers))
        assert b" " + status + b" " in answer_of(connection)[:40].replace(b"405", b"404")


@pytest.mark.parametrize("body", [[], ["--data-binary", "@photo.jpg"], ["-F", "file=@photo.jpg"]])
def test_an_offer_to_upgrade_to_http_2_is_declined_in_silence(
    server: RunningServer, photo: bytes, tmp_path: Path, body: list[str]
) -> None:
    """As `curl --http2` makes it with its first request; two requests share the connection."""
    (tmp_path / "photo.jpg").write_bytes(photo)
    path = "/predict" if body else "/health/live"
    url = f"{server.url}{path}"
    command = ["curl", "-sS", "--noproxy", "*", "--http2", "-m", "20", "-w", " %{http_code}\n", *body, url]
    answers = subprocess.run(
        [*command, "--next", *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ["200", "200"] == re.findall(r" (\d+)$", answers.stdout, re.MULTILINE), answers


def test_a_stopping_server_ends_idle_connections_and_finishes_requests(
    tmp_path: Path, models_dir: Path, photo: bytes, make_large: Callable[[], bytes]
) -> None:
    """Within its time."""
    large = make_large()
    with running_server(tmp_path / "data", models_dir) as server, ExitStack() as opened:
        idle = opened.enter_context(connection_to(server))
        busy = opened.enter_context(connection_to(server))
        busy.sendall(head("POST", "/predict", Content_Length=len(large)) + large[:-1_000])
        # One that comes later is answered, so these two are accepted.
        assert 200 == httpx.get(f"{server.url}/health/live", trust_env=False, timeout=30).status_code
        server.process.terminate()
        time.sleep(0.3)
        busy.sendall(large[-1_000:])
        assert answer_of(busy).startswith(b"HTTP/1.1 200")
        assert seconds_until_closed(idle) < 5
        server.process.wait(15)
    assert photo


@pytest.fixture
def make_large(photo: bytes) -> Callable[[], bytes]:
    """A photo with much behind its end."""
    return lambda: photo + bytes(500_000)


def test_a_server_on_ipv6_takes_uploads(tmp_path: Path, models_dir: Path, photo: bytes) -> None:
    """Announced and in chunks, several on one connection, as curl sends them."""
    with running_server(tmp_path / "data", models_dir, "--host", "::1") as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=10) as client:
            answers = [
                client.post("/predict", content=photo),
                client.post("/predict", content=iter([photo[:100], photo[100:]])),
                client.post("/predict", files={"file": photo}, headers={"expect": "100-continue"}),
                client.get("/health/live"),
            ]
        assert [200] * 4 == [answer.status_code for answer in answers]


def chunked(body: bytes, chance: random.Random) -> bytes:
    """`body` in chunks of random sizes."""
    pieces = []
    while body:
        size = chance.choice((1, 2, 50, 4_000, 100_000))
        pieces.append(b"%x\r\n%s\r\n" % (len(body[:size]), body[:size]))
        body = body[size:]
    return b"".join([*pieces, b"0\r\n\r\n"])


def some_request(chance: random.Random, photo: bytes) -> tuple[bytes, int]:
    """A request of any kind that has a body or not, read or not, and the status that it gets."""
    method, path, body, status = chance.choice(
        [
            ("GET", "/health/live", b"", 200),
            ("GET", "/nothing", b"", 404),
            ("POST", "/predict", photo, 200),
            ("POST", "/predict", b"<html>", 415),
            ("POST", "/feedback", b'{"prediction_id": 1}', 422),
            ("DELETE", "/health/live", b"z" * 3_000, 405),
        ]
    )
    kind = {"Content_Type": "application/json"} if path == "/feedback" else {}
    if body and chance.random() < 0.5:
        return head(method, path, Transfer_Encoding="chunked", **kind) + chunked(body, chance), status
    length = {"Content_Length": len(body)} if body else {}
    return head(method, path, **length, **kind) + body, status


@pytest.mark.parametrize("seed", range(1_000, 1_040))
def test_requests_of_all_kinds_are_answered_in_order_however_they_are_cut(
    server: RunningServer, photo: bytes, seed: int
) -> None:
    """Sent in advance or not, in packets that end anywhere."""
    chance = random.Random(seed)
    requests = [some_request(chance, photo) for _ in range(12)]
    sent = b"".join(data for data, _ in requests) + head("GET", "/health/live", Connection="close")
    with connection_to(server) as connection:
        at = 0
        while at < len(sent):
            size = chance.choice((1, 3, 17, 200, 5_000, 60_000))
            connection.sendall(sent[at : at + size])
            at += size
            time.sleep(chance.choice((0, 0, 0.001, 0.01)))
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", received) if status != b"100"]
    assert [*(status for _, status in requests), 200] == statuses
