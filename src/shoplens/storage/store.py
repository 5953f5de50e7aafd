"""The port for stored objects: keys, the `Store` protocol, and what went wrong at an object store in a sentence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from shoplens.errors import ImageChanged, RequestInvalid

CHECK_KEY: Final = "health/check"
"""Written by `Store.check`."""

_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_MAX_KEY: Final = 512


class Store(Protocol):
    """Objects by key. Thread-safe. Every method raises StorageUnavailable when the store does not answer or refuses,
    and RequestInvalid for a key that is not made of plain path segments.
    """

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """Store `data` under `key`, completely or not at all. Writes nothing where the key has an object of that size.

        With `durable`, content and name survive a loss of power once this returns, on local disks too.
        """
        ...

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Store what `pieces` yields, completely or not at all, one piece in memory at a time; always durable.

        Raises what `pieces` raises; then `key` is unchanged.
        """
        ...

    def version(self, key: str) -> str | None:
        """A string that changes with the object under `key`; None where there is none."""
        ...

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """Store `data` if the object under `key` still has the version `seen` (None: if there is no object).

        Of several concurrent calls exactly one succeeds. False where the object has another version; it is unchanged.
        """
        ...

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """Move an object. On a local disk the move survives a loss of power, without `durable` only after `sync`.

        Does nothing where `source` is missing and `target` exists. Raises BlobNotFound where neither exists.
        """
        ...

    def sync(self, keys: Iterable[str]) -> None:
        """Make moves from and to these keys survive a loss of power; much cheaper for many keys than for each alone."""
        ...

    def get(self, key: str) -> bytes:
        """The content. Raises BlobNotFound."""
        ...

    def pieces(self, key: str) -> Iterator[bytes]:
        """The content, one piece in memory at a time, all of one version. Raises BlobNotFound."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; does nothing where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys below the folder `prefix` (complete segments; "" means all), in no particular order.

        Objects of others whose names are not keys are left out.
        """
        ...

    def check(self) -> None:
        """Raises StorageUnavailable, within seconds, unless an object can be written now. Writes `CHECK_KEY`."""
        ...


def image_key(sha256: str, suffix: str) -> str:
    """The key of a photo: `images/ab/cd/abcd….jpg`. `suffix` has no dot."""
    return f"images/{sha256[:2]}/{sha256[2:4]}/{sha256}.{suffix}"


def require_unchanged(photo: bytes, sha256: str) -> bytes:
    """`photo` itself. Raises ImageChanged unless its hash is the one that was computed when it was received."""
    if hashlib.sha256(photo).hexdigest() != sha256:
        raise ImageChanged(
            "The photo in the store is not the one that was received: its content has changed. Put the original back "
            "from a backup, and look at the disk and at who may write to the store."
        )
    return photo


def is_key(text: str) -> bool:
    """Whether `text` is made of plain segments (no `..`, no leading dot or slash)."""
    return len(text) <= _MAX_KEY and _KEY.fullmatch(text) is not None


def require_key(key: str) -> str:
    """`key` itself. Raises RequestInvalid unless it is made of plain segments (no `..`, no leading dot or slash)."""
    if not is_key(key):
        raise RequestInvalid(
            f"{key[:80]!r} is not a key: use names of letters, digits, '.', '_' and '-', joined by '/'."
        )
    return key


_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_ENDPOINT: Final = re.compile(r"Error performing [A-Z]+ (https?://[^/\s?]+)")
_KEYS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_METADATA_SERVICE: Final = "169.254."
"""Cloud machines ask here for the keys of their role."""

_BY_CODE: Final = {
    "SignatureDoesNotMatch": "the secret key is wrong. Set AWS_SECRET_ACCESS_KEY to the secret of AWS_ACCESS_KEY_ID.",
    "InvalidAccessKeyId": f"the access key is not known there. Set {_KEYS}.",
    "AccessDenied": f"the access key may not do this. Grant it the permission, or set {_KEYS} to another key.",
    "ExpiredToken": f"the session's keys have expired. Renew {_KEYS} and AWS_SESSION_TOKEN.",
    "InvalidToken": f"the session's token is wrong. Renew {_KEYS} and AWS_SESSION_TOKEN.",
    "NoSuchBucket": "there is no such bucket. Create it, or name another one.",
    "AuthorizationHeaderMalformed": "the region is wrong. Set AWS_REGION to that of the bucket.",
    "IllegalLocationConstraintException": "the region is wrong. Set AWS_REGION to that of the bucket.",
    "PermanentRedirect": "the bucket is in another region. Set AWS_REGION to that of the bucket, and AWS_ENDPOINT_URL.",
    "RequestTimeTooSkewed": "the clocks differ by too much. Set the clock of this machine.",
    "EntityTooLarge": "it accepts no object of this size.",
    "QuotaExceeded": "its quota is used up. Free some space there.",
}
_BY_STATUS: Final = {
    "400": f"the request is invalid for it. Check AWS_REGION, {_KEYS}, and AWS_SESSION_TOKEN if there is one.",
    "301": _BY_CODE["PermanentRedirect"],
    "401": f"the access key was refused. Set {_KEYS}.",
    "403": f"the access key was refused, or may not do this. Set {_KEYS}, and check the permissions of the key.",
    "507": "it has no space left. Free some space there.",
}
_BY_CONNECTION: Final = (
    (re.compile("connection refused", re.IGNORECASE), "nothing listens at {endpoint}. Start it, or set "
     "AWS_ENDPOINT_URL."),
    (re.compile("dns error|failed to lookup|no record found", re.IGNORECASE),
     "the host of {endpoint} is not known. Check AWS_ENDPOINT_URL."),
    (re.compile("certificate|corrupt message|InvalidContentType|tls|HandshakeFailure"),
     "no encrypted connection to {endpoint} can be made. Check AWS_ENDPOINT_URL: a server without a certificate is "
     "written http://, and one with a private certificate needs SSL_CERT_FILE."),
    (re.compile("kind: Timeout|TimedOut|timed out"),
     "{endpoint} did not answer in time. Check that it is running, or set AWS_ENDPOINT_URL."),
    (re.compile("kind: Connect|error sending request"),
     "no connection to {endpoint} can be made. Start it, or set AWS_ENDPOINT_URL."),
)  # fmt: skip


def reason_of(error: BaseException) -> str:
    """Why a request failed and what to do about it; where that is not known, the first line of the error.

    Leaves out the client library's debugging output.
    """
    text = str(error)
    endpoint = found[1] if (found := _ENDPOINT.search(text)) else "the server"
    if _METADATA_SERVICE in endpoint:
        return f"there are no keys for it. Set {_KEYS}."
    code = found[1] if (found := _CODE.search(text)) else ""
    status = found[1] if (found := _STATUS.search(text)) else ""
    if known := _BY_CODE.get(code) or _BY_STATUS.get(status):
        return f"{known} ({code or status})"
    if status.startswith("5"):
        return f"it is overloaded or has an internal error. Look at its log, and try again. ({code or status})"
    if "RetryError" in text:
        for pattern, advice in _BY_CONNECTION:
            if pattern.search(text):
                return advice.format(endpoint=endpoint)
    return (text.strip() or type(error).__name__).splitlines()[0]
