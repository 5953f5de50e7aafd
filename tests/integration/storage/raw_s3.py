"""Ask S3 for what the client library cannot: names of any kind, and uploads that were never finished."""

from __future__ import annotations

import http.client
import xml.etree.ElementTree as ET
from urllib.parse import quote, urlsplit

from servers.seaweed import S3Place
from shoplens.storage.listing import Keys, signed


def put_raw(place: S3Place, name: str, data: bytes) -> None:
    """An object below the place's prefix under any name."""
    status, _ = _asked(place, "PUT", f"/{place.bucket}/{quote(f'{place.prefix}/{name}', '/-_.~')}", data=data)
    assert 200 == status


def unfinished_uploads(place: S3Place, key: str) -> list[str]:
    """The ids of uploads of this key that were begun and not ended."""
    status, body = _asked(place, "GET", f"/{place.bucket}", query="uploads=")
    assert 200 == status, body
    uploads = [each for each in ET.fromstring(body) if each.tag.endswith("Upload")]
    told = [{child.tag.rpartition("}")[2]: child.text or "" for child in upload} for upload in uploads]
    return [each["UploadId"] for each in told if each["Key"] == f"{place.prefix}/{key}"]


def _asked(place: S3Place, method: str, path: str, *, query: str = "", data: bytes = b"") -> tuple[int, bytes]:
    keys = Keys(key_id=place.access_key, secret=place.secret_key, token=None, region=place.region)
    headers = signed(f"{place.endpoint}{path}", query, keys, method=method, body=data)
    connection = http.client.HTTPConnection(urlsplit(place.endpoint).netloc, timeout=10)
    try:
        connection.request(method, f"{path}?{query}" if query else path, body=data, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
