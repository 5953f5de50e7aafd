"""Open an object store by its URL (S3, Google Cloud, Azure) with our patience: every request has an end.

What the addresses, keys and variables must look like is checked here, before the client library sees them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypedDict
from urllib.parse import SplitResult, urlsplit

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from shoplens.errors import Misconfigured
from shoplens.storage.faults import reason_of, shown

REMOTE: Final = ("s3", "gs", "az")
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class Patience(TypedDict):
    """How long a client waits, as obstore wants to be told."""

    client_options: dict[str, str]
    retry_config: dict[str, object]


def _patience(*, connect_s: int, silence_s: int, request_s: int, retries: int) -> Patience:
    """After `silence_s` no try is begun any more, so a place that never answers costs about that long.

    Plain http is used only where an endpoint is written http://: that is its owner's choice.
    """
    return Patience(
        client_options={
            "connect_timeout": f"{connect_s}s",
            "read_timeout": f"{silence_s}s",
            "timeout": f"{request_s}s",
            "allow_http": "true",
        },
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=silence_s)},
    )


AT_WORK: Final = _patience(connect_s=3, silence_s=10, request_s=30, retries=3)
ON_TRIAL: Final = _patience(connect_s=2, silence_s=4, request_s=5, retries=1)
"""For a look whether the place is there: somebody waits for the answer."""


def open_objects(url: str, options: Mapping[str, Any], *, patience: Patience = AT_WORK) -> ObjectStore:
    """Nothing is asked of the place yet. Raises Misconfigured for a URL or options that make no sense."""
    build: Any = from_url  # its stub has one overload per kind, and the kind is known only here
    _require_sense(url, options)
    try:
        objects: ObjectStore = build(url, config=dict(options), **patience)
    except (BaseError, ValueError) as error:
        raise Misconfigured(f"The object store {shown(url)} cannot be set up: {reason_of(error)}") from error
    return objects


def endpoint_of(options: Mapping[str, Any]) -> str | None:
    """Where S3 is to be found, when somebody said so."""
    named = (options.get(name) for name in ("endpoint", "aws_endpoint", "endpoint_url"))
    return next(filter(None, named), None) or next(filter(None, map(os.environ.get, _ENDPOINTS)), None)


def _require_sense(url: str, options: Mapping[str, Any]) -> None:
    """The library would die of some of these, and be silent about others."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise Misconfigured(
            f"The address {shown(url)} has a password in it. Keys belong into the environment: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY for S3."
        )
    if parts.scheme != "s3":
        return
    if not _BUCKET.fullmatch(parts.netloc):
        raise Misconfigured(f"The object store {shown(url)} cannot be set up: {parts.netloc!r} is no name of a bucket.")
    _require_endpoint(endpoint_of(options))
    if not options:
        _require_both_keys()


def _require_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    parts = urlsplit(endpoint)
    plain = parts.scheme in ("http", "https") and "@" not in parts.netloc
    if not plain or not parts.hostname or not _has_good_port(parts):
        raise Misconfigured(
            f"AWS_ENDPOINT_URL is {shown(endpoint)!r}, which is no address of a server; "
            "it looks like http://127.0.0.1:8333 or https://s3.example.com."
        )


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _require_both_keys() -> None:
    """One without the other is an oversight; neither may be right on a machine that has a role."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    missing = [name for name in names if not os.environ.get(name)]
    if len(missing) == 1:
        raise Misconfigured(f"{missing[0]} is not set, but its counterpart is: S3 wants both {' and '.join(names)}.")
