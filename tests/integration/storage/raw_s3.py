"""Ask S3 for what the client library cannot: names of any kind, and uploads that were never finished."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from servers.seaweed import S3Place


def put_raw(place: S3Place, name: str, data: bytes) -> None:
    """An object below the place's prefix under any name."""
    status, _ = _asked(place, "PUT", f"/{place.bucket}/{quote(f'{place.prefix}/{name}', '/-_.~')}", data=data)
    assert 200 == status


def remove_raw(place: S3Place, name: str) -> None:
    """Remove an object below the place's prefix under any name."""
    status, _ = _asked(place, "DELETE", f"/{place.bucket}/{quote(f'{place.prefix}/{name}', '/-_.~')}")
    assert 204 == status


def unfinished_uploads(place: S3Place, key: str) -> list[str]:
    """The ids of uploads of this key that were begun and not ended."""
    status, body = _asked(place, "GET", f"/{place.bucket}", query="uploads=")
    assert 200 == status, body
    uploads = [each for each in ET.fromstring(body) if each.tag.endswith("Upload")]
    found = [{child.tag.rpartition("}")[2]: child.text or "" for child in upload} for upload in uploads]
    return [each["UploadId"] for each in found if each["Key"] == f"{place.prefix}/{key}"]


def _asked(place: S3Place, method: str, path: str, *, query: str = "", data: bytes = b"") -> tuple[int, bytes]:
    headers = _signed(place, method, path, query, data)
    connection = http.client.HTTPConnection(urlsplit(place.endpoint).netloc, timeout=10)
    try:
        connection.request(method, f"{path}?{query}" if query else path, body=data, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _signed(place: S3Place, method: str, path: str, query: str, body: bytes) -> dict[str, str]:
    """The headers of a request (AWS Signature Version 4). `query` is encoded and sorted."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": urlsplit(place.endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": moment}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    scope = f"{moment[:8]}/{place.region}/s3/aws4_request"
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{place.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={place.access_key}/{scope}"
    return {**headers, "Authorization": f"{credential}, SignedHeaders={names}, Signature={signature}"}
