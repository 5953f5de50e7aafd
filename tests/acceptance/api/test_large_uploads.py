"""Bodies of several megabytes over a real socket: they arrive whole, however they are cut into packets."""

from __future__ import annotations

import hashlib
import socket
import time

import httpx
import numpy as np
import pytest

from tests.conftest import RunningServer, jpeg_of


@pytest.fixture(scope="module")
def large_photo() -> bytes:
    """A JPEG of several megabytes: noise does not compress."""
    photo = jpeg_of(np.random.default_rng(0).integers(0, 256, (1_500, 2_000, 3), np.uint8), quality=95)
    assert len(photo) > 3_000_000
    return photo


def test_a_large_photo_arrives_whole(server: RunningServer, large_photo: bytes) -> None:
    """As form and raw, twice over one connection, and with a request to wait in advance."""
    expected = hashlib.sha256(large_photo).hexdigest()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answers = [
            client.post("/predict", files={"file": large_photo}),
            client.post("/predict", content=large_photo),
            client.post("/predict", content=large_photo, headers={"expect": "100-continue"}),
        ]
    assert [expected] * 3 == [answer.json()["image"]["sha256"] for answer in answers]


def test_a_photo_in_many_small_packets_arrives_whole(server: RunningServer, large_photo: bytes) -> None:
    """A slow line, with pauses in odd places."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(large_photo)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode())
        for at in range(0, len(large_photo), 300_007):
            connection.sendall(large_photo[at : at + 300_007])
            time.sleep(0.01)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert hashlib.sha256(large_photo).hexdigest().encode() in answer


def test_two_requests_in_one_packet_are_answered_in_order(server: RunningServer) -> None:
    """Pipelined bodies do not run into each other."""
    host, port = server.url.removeprefix("http://").split(":")
    one = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 6\r\n\r\n<html>"
    two = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall((one + two).encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.index(b"image_unsupported") < answer.index(b"image_missing")
