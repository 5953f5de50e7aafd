"""Say in a sentence what is wrong with an object store, and what to do: what the client library raised in, words out.

Nothing of the library's debugging output comes through, and no address is shown with a password in it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_ASKED: Final = re.compile(r"Error performing [A-Z]+ (https?://[^/\s?]+)")
_KEYS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_ROLES: Final = "169.254."
"""Where machines in a cloud ask for the keys of their role."""

_BY_CODE: Final = {
    "SignatureDoesNotMatch": "the secret key is wrong. Set AWS_SECRET_ACCESS_KEY to the secret of AWS_ACCESS_KEY_ID.",
    "InvalidAccessKeyId": f"the access key is not known there. Set {_KEYS}.",
    "AccessDenied": f"the access key may not do this. Give it the right to, or set {_KEYS} to others.",
    "ExpiredToken": f"the session's keys have expired. Set {_KEYS} and AWS_SESSION_TOKEN anew.",
    "InvalidToken": f"the session's token is wrong. Set {_KEYS} and AWS_SESSION_TOKEN anew.",
    "NoSuchBucket": "there is no such bucket. Create it, or name another one.",
    "AuthorizationHeaderMalformed": "the region is wrong. Set AWS_REGION to that of the bucket.",
    "IllegalLocationConstraintException": "the region is wrong. Set AWS_REGION to that of the bucket.",
    "PermanentRedirect": "the bucket is elsewhere. Set AWS_REGION to that of the bucket, and AWS_ENDPOINT_URL.",
    "RequestTimeTooSkewed": "the clocks differ by too much. Set the clock of this machine.",
    "EntityTooLarge": "it takes no object of this size.",
    "QuotaExceeded": "its quota is used up. Make room there.",
}
_BY_STATUS: Final = {
    "400": f"it understands the request otherwise. Look at AWS_REGION, {_KEYS}, and AWS_SESSION_TOKEN if there is one.",
    "301": _BY_CODE["PermanentRedirect"],
    "401": f"the access key was refused. Set {_KEYS}.",
    "403": f"the access key was refused, or may not do this. Set {_KEYS}, and look at the rights of the key.",
    "507": "there is no room left there. Make room.",
}
_BY_SIGN: Final = (
    (re.compile("connection refused", re.IGNORECASE), "nothing listens at {asked}. Start it, or set AWS_ENDPOINT_URL."),
    (re.compile("dns error|failed to lookup|no record found", re.IGNORECASE),
     "the host of {asked} is not known. Look at AWS_ENDPOINT_URL."),
    (re.compile("certificate|corrupt message|InvalidContentType|tls|HandshakeFailure"),
     "no encrypted connection to {asked} comes about. Look at AWS_ENDPOINT_URL: a server without a certificate is "
     "written http://, and one with a certificate of your own needs SSL_CERT_FILE."),
    (re.compile("kind: Timeout|TimedOut|timed out"),
     "{asked} did not answer in time. Look whether it is well, or set AWS_ENDPOINT_URL."),
    (re.compile("kind: Connect|error sending request"),
     "no connection to {asked} comes about. Start it, or set AWS_ENDPOINT_URL."),
)  # fmt: skip


def reason_of(error: BaseException) -> str:
    """A clause or two that say why, and what to do where that is known; else the first line of the library's words."""
    text = str(error)
    asked = found[1] if (found := _ASKED.search(text)) else "the server"
    if _ROLES in asked:
        return f"there are no keys for it. Set {_KEYS}."
    return _of_answer(text) or _of_connection(text, asked) or _first_line(error)


def is_absent_bucket(error: BaseException) -> bool:
    """Whether what is missing is not the object but the place as a whole."""
    return "NoSuchBucket" in str(error)


def is_unspeakable_name(error: BaseException) -> bool:
    """Whether a listing failed because of an object whose name the library cannot express."""
    return "invalid path" in str(error)


def shown(url: str) -> str:
    """The address without user and password, for people."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc="…@" + parts.netloc.rsplit("@", 1)[1]))


def _of_answer(text: str) -> str | None:
    """What the server itself said."""
    code = found[1] if (found := _CODE.search(text)) else ""
    status = found[1] if (found := _STATUS.search(text)) else ""
    said = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if said is not None:
        return f"{said} ({code or status})"
    if status.startswith("5"):
        return f"it is overloaded or has a fault of its own. Look at its log, and try again. ({code or status})"
    return None


def _of_connection(text: str, asked: str) -> str | None:
    if "RetryError" not in text:
        return None
    return next((said.format(asked=asked) for sign, said in _BY_SIGN if sign.search(text)), None)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
