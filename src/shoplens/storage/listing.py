"""List a prefix of S3 with names that the client library cannot express, so that one of them does not hide the rest.

Only needed where the library gave up: for names with empty segments (`a//b.jpg`), with `.` and `..`, or with control
characters. It signs its own requests, so it knows only keys that are written in the options or the environment.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote_plus, urlsplit

from obstore.exceptions import GenericError

_TIMEOUT_S: Final = 10.0
_TRIES: Final = 3
_SAFE: Final = "-_.~"
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """One object. `name` is relative to the prefix and may be anything."""

    name: str
    byte_count: int
    modified_at: datetime
    e_tag: str | None

    @property
    def is_nameable(self) -> bool:
        """Whether the library can ask for it."""
        segments = self.name.removesuffix("/").split("/")
        return all(each not in {"", ".", ".."} for each in segments) and not _CONTROLS.search(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What signs a request."""

    key_id: str
    secret: str
    token: str | None
    region: str


class S3Listing:
    """Lists `s3://bucket/prefix`. Raises GenericError, as the library does."""

    def __init__(self, url: str, keys: Keys, address: str) -> None:
        self._prefix = f"{folder}/" if (folder := urlsplit(url).path.strip("/")) else ""
        self._keys = keys
        self._address = address

    def after(self, name: str | None) -> Iterator[ListedObject]:
        """Everything, or what comes after `name`, a page in memory at a time."""
        wanted = {"start-after": self._prefix + name} if name is not None else {}
        while True:
            page = self._page(wanted)
            encoded = _text(page, "EncodingType") == "url"
            yield from (self._described(entry, encoded=encoded) for entry in _all(page, "Contents"))
            if _text(page, "IsTruncated") != "true":
                return
            wanted = {"continuation-token": _text(page, "NextContinuationToken")}

    def _described(self, entry: ET.Element, *, encoded: bool) -> ListedObject:
        key = _text(entry, "Key")
        return ListedObject(
            name=(unquote_plus(key) if encoded else key).removeprefix(self._prefix),
            byte_count=int(_text(entry, "Size")),
            modified_at=datetime.fromisoformat(_text(entry, "LastModified")),
            e_tag=_text(entry, "ETag") or None,
        )

    def _page(self, wanted: Mapping[str, str]) -> ET.Element:
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._prefix, **wanted}
        for tries_left in reversed(range(_TRIES)):
            try:
                return self._asked(query)
            except (OSError, ET.ParseError) as error:
                if not tries_left:
                    raise GenericError(f"The listing failed: {error}") from error
        raise AssertionError("unreachable")

    def _asked(self, query: Mapping[str, str]) -> ET.Element:
        asked = "&".join(f"{quote(name, _SAFE)}={quote(value, _SAFE)}" for name, value in sorted(query.items()))
        headers = signed(self._address, asked, self._keys)
        request = urllib.request.Request(f"{self._address}?{asked}", headers=headers)  # noqa: S310 - http(s) only
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return ET.fromstring(answer.read())  # noqa: S314


def open_listing(url: str, options: Mapping[str, Any], endpoint: str | None) -> S3Listing | None:
    """None where it is not S3, or where the keys are not known here."""

    def told(name: str) -> str | None:
        return options.get(name) or options.get(f"aws_{name}") or os.environ.get(f"AWS_{name.upper()}")

    key_id, secret = told("access_key_id"), told("secret_access_key")
    if urlsplit(url).scheme != "s3" or not key_id or not secret:
        return None
    region = told("region") or told("default_region") or "us-east-1"
    keys = Keys(key_id=key_id, secret=secret, token=told("session_token") or told("token"), region=region)
    host = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
    in_host = str(told("virtual_hosted_style_request")).lower() == "true"
    return S3Listing(url, keys, f"{host}/" if in_host else f"{host}/{urlsplit(url).netloc}")


def signed(address: str, query: str, keys: Keys, *, method: str = "GET", body: bytes = b"") -> dict[str, str]:
    """The headers of a request (AWS Signature Version 4). `query` is encoded and sorted."""
    parts, moment = urlsplit(address), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": moment}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    scope = f"{moment[:8]}/{keys.region}/s3/aws4_request"
    request = f"{method}\n{parts.path}\n{query}\n{lines}\n{names}\n{digest}"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={keys.key_id}/{scope}"
    return {**headers, "Authorization": f"{credential}, SignedHeaders={names}, Signature={signature}"}


def _all(element: ET.Element, name: str) -> list[ET.Element]:
    """Its children of this name, in whatever namespace."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _text(element: ET.Element, name: str) -> str:
    return next((child.text or "" for child in _all(element, name)), "")
