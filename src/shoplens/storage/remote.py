"""Open an object store by its URL (S3, Google Cloud, Azure) with our patience, and say what went wrong in a line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from shoplens.errors import Misconfigured

REMOTE: Final = ("s3", "gs", "az")
# Plain http is used only where an endpoint is written http://: that is its owner's choice.
_CLIENT_OPTIONS: Final = {"connect_timeout": "3s", "timeout": "20s", "allow_http": "true"}
_RETRIES: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


def open_objects(url: str, options: Mapping[str, Any]) -> ObjectStore:
    """Nothing is asked of the place yet. Raises Misconfigured for a URL or options that make no sense."""
    build: Any = from_url  # its stub has one overload per kind, and the kind is known only here
    try:
        objects: ObjectStore = build(url, config=dict(options), client_options=_CLIENT_OPTIONS, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise Misconfigured(f"The object store {url} cannot be set up: {reason_of(error)}") from error
    return objects


def reason_of(error: Exception) -> str:
    """The first line of what the backend said: the rest is its debugging output."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
