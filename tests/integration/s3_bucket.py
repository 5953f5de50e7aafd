"""A bucket that speaks enough of S3 to be listed, read and emptied: for tests of how foreign objects are reached."""

from __future__ import annotations

import hashlib
import html
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_MOMENT = ("2026-11-20T08:00:00.000Z", "Fri, 20 Nov 2026 08:00:00 GMT")


@contextmanager
def s3_bucket(objects: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """Serve `objects`, which change with what is asked; yields the options of a client."""

    class Bucket(_Bucket):
        kept = objects

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {
                "region": "eu-central-1",
                "endpoint": f"http://127.0.0.1:{server.server_port}",
                "access_key_id": "a",
                "secret_access_key": "b",
            }
        finally:
            server.shutdown()
            thread.join()


class _Bucket(BaseHTTPRequestHandler):
    kept: dict[str, bytes]

    def do_GET(self) -> None:
        wanted = parse_qs(urlsplit(self.path).query)
        if "list-type" in wanted:
            self._answer(200, self._listing(wanted.get("prefix", [""])[0]).encode())
        else:
            self._send_object()

    def do_HEAD(self) -> None:
        self._send_object()

    def do_POST(self) -> None:
        """Delete many."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = [html.unescape(key) for key in re.findall("<Key>(.*?)</Key>", body)]
        for key in keys:
            self.kept.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def _send_object(self) -> None:
        data = self.kept.get(unquote(urlsplit(self.path).path).split("/", 2)[2])
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {"ETag": _tag(data), "Last-Modified": _MOMENT[1]}
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, end = int(found[1]), min(int(found[2]) + 1, len(data))
            self._answer(206, data[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
        else:
            self._answer(200, data, headers)

    def _listing(self, prefix: str) -> str:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_MOMENT[0]}</LastModified>"
            f"<ETag>{escape(_tag(data))}</ETag><Size>{len(data)}</Size></Contents>"
            for key, data in sorted(self.kept.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
