"""Attackers for `python -m bench.mixed`: strangers that try to make a server fail, slow or full.

Runs as its own process: `python -m bench.attack URL SECONDS`. Every attacker has an address of its own within
127.0.0.0/8, as strangers have, and takes a pause between its attempts, since the generator shares the server's cores.
Prints one JSON document: for each kind of attack, how often each outcome was met.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from urllib.parse import urlsplit

from shoplens.testing.hostile import bodies, corpus

_PAUSE_S = 0.25
_TIMEOUT_S = 60
_IDLE_CONNECTIONS = 8
_HALF_OPEN = 100
_UNREAD_DOWNLOADS = 10


class Attackers:
    """What all attackers share: the server, until when, and what they met."""

    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._address = (parts.hostname, parts.port)
        self._host = parts.netloc
        self._stop_at = time.monotonic() + seconds
        self.outcomes: dict[str, Counter[str]] = {}

    def run(self) -> None:
        """All of them at once, until the time is over."""
        kinds: dict[str, Callable[[str], Iterator[str]]] = {
            "hostile photos": self._hostile_photos,
            "mutated photos": self._mutated_photos,
            "views of originals": self._views,
            "idle forms": self._idle_forms,
            "half-open headers": self._half_open,
            "unread downloads": self._unread_downloads,
            "large JSON": self._large_json,
            "forms in odd charsets": self._odd_charsets,
            "pipelined requests": self._pipelined,
            "large headers": self._large_headers,
        }
        threads = []
        for number, (name, attack) in enumerate(kinds.items(), start=2):
            self.outcomes[name] = Counter()
            threads.append(threading.Thread(target=self._repeat, args=(name, attack, f"127.0.0.{number}")))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _repeat(self, name: str, attack: Callable[[str], Iterator[str]], own_address: str) -> None:
        while time.monotonic() < self._stop_at:
            try:
                for outcome in attack(own_address):
                    self.outcomes[name][outcome] += 1
                    time.sleep(_PAUSE_S)
                    if time.monotonic() >= self._stop_at:
                        return
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[name][type(error).__name__] += 1
                time.sleep(_PAUSE_S)

    def _ask(self, own: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_S, source_address=(own, 0))
        with contextlib.closing(connection):
            connection.request(method, path, body or None, {name.replace("_", "-"): v for name, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _connect(self, own: str) -> socket.socket:
        return socket.create_connection(self._address, timeout=_TIMEOUT_S, source_address=(own, 0))

    def _hostile_photos(self, own: str) -> Iterator[str]:
        for file in corpus():
            yield str(self._ask(own, "POST", "/predict", file.data)[0])

    def _mutated_photos(self, own: str) -> Iterator[str]:
        for body in bodies(1_000_000, seed=random.randrange(2**32)):
            yield str(self._ask(own, "POST", "/predict", body)[0])

    def _views(self, own: str) -> Iterator[str]:
        _, page = self._ask(own, "GET", "/predictions?limit=100")
        for record in cycle(json.loads(page)["items"]):
            yield str(self._ask(own, "GET", f"/predictions/{record['id']}/image?size=view")[0])

    def _idle_forms(self, own: str) -> Iterator[str]:
        """Announce forms of several megabytes, and send a byte each second."""
        head = (
            f"POST /batch/ingest HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        ).encode()
        with contextlib.ExitStack() as opened:
            held = [opened.enter_context(self._connect(own)) for _ in range(_IDLE_CONNECTIONS)]
            for connection in held:
                connection.sendall(head)
            for _ in range(30):
                for connection in held:
                    connection.sendall(b"x")
                yield "byte sent"
                time.sleep(1)

    def _half_open(self, own: str) -> Iterator[str]:
        with contextlib.ExitStack() as opened:
            for _ in range(_HALF_OPEN):
                opened.enter_context(self._connect(own)).sendall(b"GET / HTTP/1.1\r\nHost: ")
            for _ in range(60):
                yield "held"

    def _unread_downloads(self, own: str) -> Iterator[str]:
        request = f"GET /predictions.csv HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        with contextlib.ExitStack() as opened:
            for _ in range(_UNREAD_DOWNLOADS):
                connection = opened.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.bind((own, 0))
                connection.connect(self._address)
                connection.sendall(request)
            for _ in range(40):
                yield "held"

    def _large_json(self, own: str) -> Iterator[str]:
        deep = b'{"image":' + b"[" * 500_000 + b"]" * 500_000 + b"}"
        wide = b'{"image":"x",' + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}"
        for body, path in cycle(((deep, "/predict"), (wide, "/predict"), (deep, "/feedback"), (wide, "/feedback"))):
            yield str(self._ask(own, "POST", path, body, Content_Type="application/json")[0])

    def _odd_charsets(self, own: str) -> Iterator[str]:
        for charset in cycle(("punycode", "idna", "utf-7", "zlib_codec", "unicode_escape")):
            form = (
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
                + b"a" * 400_000
                + b'\r\n--x\r\nContent-Disposition: form-data; name="'
                + b"b-" * 3_000
                + b'"\r\n\r\n1\r\n--x--\r\n'
            )
            kind = f"multipart/form-data; boundary=x; charset={charset}"
            yield str(self._ask(own, "POST", "/predict", form, Content_Type=kind)[0])

    def _pipelined(self, own: str) -> Iterator[str]:
        request = f"GET /predictions?limit=100 HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        with contextlib.closing(self._connect(own)) as connection:
            connection.settimeout(5)
            connection.sendall(request * 200)
            for _ in range(20):
                yield "held"

    def _large_headers(self, own: str) -> Iterator[str]:
        long_path = "/predictions?" + "a" * 60_000
        for headers, path in cycle((({"X-Filler": "a" * 60_000}, "/"), ({}, long_path))):
            yield str(self._ask(own, "GET", path, b"", **headers)[0])


def main() -> None:
    """See the module's first lines."""
    url, seconds = sys.argv[1:]
    attackers = Attackers(url, float(seconds))
    attackers.run()
    print(json.dumps(attackers.outcomes))


if __name__ == "__main__":
    main()
