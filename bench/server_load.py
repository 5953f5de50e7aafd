"""Load on a server over keep-alive connections: a cheap client, so that the server gets the cores.

Runs as its own process: `python -m bench.server_load URL FOLDER CONNECTIONS SECONDS`; prints the latencies in
seconds as one JSON list. Any answer but 200 ends it with an error, for a refused photo would look fast.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

_BOUNDARY = b"bench-2c1f3c6a5b7d4e9f"


def main() -> None:
    """See the module's first lines."""
    url, folder, connections, seconds = sys.argv[1:]
    load = Load(url, [_request(url, path) for path in sorted(Path(folder).iterdir())], seconds=float(seconds))
    threads = [threading.Thread(target=load.client, args=(index,)) for index in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if load.faults:
        sys.exit(load.faults[0])
    print(json.dumps(load.latencies_s))


class Load:
    """What all clients share: the requests to send, until when, and what came of them."""

    def __init__(self, url: str, requests: list[bytes], *, seconds: float) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._requests = requests
        self._stop_at = time.perf_counter() + seconds
        self.latencies_s: list[float] = []
        self.faults: list[str] = []

    def client(self, index: int) -> None:
        """One connection, one request at a time."""
        connection = socket.create_connection(self._address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = index
        while (started := time.perf_counter()) < self._stop_at and not self.faults:
            connection.sendall(self._requests[at % len(self._requests)])
            answer = _answer(connection)
            self.latencies_s.append(time.perf_counter() - started)
            at += 1
            if not answer.startswith(b"HTTP/1.1 200"):
                self.faults.append(answer.decode(errors="replace"))


def _request(url: str, path: Path) -> bytes:
    """What `curl -F file=@photo.jpg URL` sends."""
    parts = urlsplit(url)
    body = (
        b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + path.read_bytes() + b"\r\n--" + _BOUNDARY + b"--\r\n"
    )
    head = (
        f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n\r\n"
    )
    return head.encode() + body


def _answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += _received(connection)
    return head + b"\r\n\r\n" + body


def _received(connection: socket.socket) -> bytes:
    chunk = connection.recv(65536)
    if not chunk:
        raise ConnectionError("the server closed the connection")
    return chunk


if __name__ == "__main__":
    main()
