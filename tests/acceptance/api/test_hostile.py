"""Hostile bodies against a real server process: refused one by one, and nothing else is disturbed."""

from __future__ import annotations

import httpx
import pytest

from shoplens.testing.cost import megabytes
from shoplens.testing.hostile import bodies, corpus
from tests.conftest import RunningServer, colourful, jpeg_of

ALLOWED_GROWTH_MB = 60


def test_every_file_of_the_corpus_is_answered_as_it_must_be(server: RunningServer) -> None:
    """Refused with a code, or decoded; never a 500, never a hang."""
    wrong = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for file in corpus():
            answer = client.post("/predict", content=file.data)
            allowed = {"refused": {413, 415, 422}, "decoded": {200}, "either": {200, 413, 415, 422}}[file.expected]
            if answer.status_code not in allowed or not (answer.status_code == 200 or answer.json()["code"]):
                wrong.append((file.name, answer.status_code, answer.text[:200]))
    assert [] == wrong


def test_a_thousand_mutated_pictures_leave_no_trace_in_memory(server: RunningServer) -> None:
    """After the caches are warm, memory stays where it is; the next good photo is answered."""
    statuses: set[int] = set()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for body in bodies(300, seed=1):
            client.post("/predict", content=body)
        before = megabytes(server.process.pid)
        for body in bodies(1_000, seed=2):
            statuses.add(client.post("/predict", content=body).status_code)
        grown = megabytes(server.process.pid) - before
        assert 200 == client.post("/predict", content=jpeg_of(colourful(9))).status_code
    assert statuses <= {200, 413, 415, 422}
    assert grown < ALLOWED_GROWTH_MB


@pytest.mark.parametrize("announced", [b"99999999999", b"-5", b"abc", b"1e3", b"5, 6"])
def test_a_lying_length_ends_that_connection_only(server: RunningServer, announced: bytes) -> None:
    """A client error, and the server lives."""
    import socket

    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + announced + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert 200 == httpx.get(f"{server.url}/health/live", timeout=60).status_code
