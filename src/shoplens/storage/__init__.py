"""Storage: objects by URL, in a local directory, in memory, or in S3, Google Cloud and Azure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from obstore.store import MemoryStore

from shoplens.errors import Misconfigured
from shoplens.storage.local import LocalStore
from shoplens.storage.objects import (
    DEFAULT_TIMEOUTS,
    PROBE_TIMEOUTS,
    REMOTE,
    BucketStore,
    ForeignObject,
    ObjectPrefix,
    open_objects,
)
from shoplens.storage.store import Store, image_key, require_key, require_unchanged
from shoplens.telemetry.secrets import shown_address

__all__ = [
    "ForeignObject",
    "ObjectPrefix",
    "Store",
    "image_key",
    "open_prefix",
    "open_store",
    "require_key",
    "require_unchanged",
    "shared_url",
]


def open_store(
    url: str, *, setting: str | None = None, options: Mapping[str, Any] | None = None, fail_fast: bool = False
) -> Store:
    """The store at `url`: a path, `file:///dir`, `memory://`, `s3://bucket/prefix`, `gs://…` or `az://…`.

    Creates a missing local directory; sends no request yet. `options` are obstore's for the kind (endpoint, region,
    keys); without them the usual environment variables count. `setting` names the setting that the URL comes from, for
    messages. With `fail_fast` a server that does not answer costs seconds. Raises Misconfigured for another kind of
    URL, StorageUnavailable.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return BucketStore(MemoryStore(), url)
    if scheme in REMOTE:
        return BucketStore(
            open_objects(url, options or {}, timeouts=PROBE_TIMEOUTS if fail_fast else DEFAULT_TIMEOUTS),
            f"{url} ({setting})" if setting else url,
            probe=open_objects(url, options or {}, timeouts=PROBE_TIMEOUTS),
        )
    if scheme not in ("", "file"):
        raise Misconfigured(
            f"Images cannot be stored at {scheme}:// ({shown_address(url)}); use a directory, s3://, gs:// or az://."
        )
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise Misconfigured(f"{url} names another machine; a local directory is written file:///path.")
        return LocalStore(Path(url2pathname(parts.path)))
    return LocalStore(Path(url))


def shared_url(url: str) -> str:
    """The store's URL for other machines. Raises Misconfigured for a store that only this process sees."""
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        raise Misconfigured("Photos in memory:// are seen by one process only; set storage_url to a folder or s3://.")
    return url if len(scheme) > 1 else Path(url).absolute().as_uri()


def open_prefix(url: str, *, setting: str | None = None, options: Mapping[str, Any] | None = None) -> ObjectPrefix:
    """The objects at `s3://bucket/prefix`, `gs://…`, `az://…`, or at `memory://`, which is new and empty each time.

    Sends no request yet. `setting` names the setting that the URL comes from, for messages. Raises Misconfigured for
    another kind of URL.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return ObjectPrefix(MemoryStore(), url)
    if scheme in REMOTE:
        return ObjectPrefix(
            open_objects(url, options or {}),
            f"{url} ({setting})" if setting else url,
            probe=open_objects(url, options or {}, timeouts=PROBE_TIMEOUTS),
        )
    raise Misconfigured(
        f"Photos cannot be imported from {scheme}:// ({shown_address(url)}); use a directory, s3://, gs:// or az://."
    )
