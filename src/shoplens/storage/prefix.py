"""Read what others put below a prefix of an object store, under whatever names they chose, and remove it.

A `Store` is ours and has plain keys; these objects are somebody else's and may be called anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore as ObstoreMemory
from obstore.store import ObjectStore

from shoplens.errors import BlobNotFound, Misconfigured, SourceUnavailable
from shoplens.storage.remote import REMOTE, open_objects, reason_of

_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObject:
    """One object as it was listed or read. `version` changes with its content."""

    name: str
    byte_count: int
    modified_at: datetime
    version: str


class ObjectPrefix:
    """The objects below one prefix. Thread-safe. Every verb raises SourceUnavailable when the place does not answer."""

    def __init__(self, objects: ObjectStore, place: str) -> None:
        self._objects = objects
        self.place = place

    def list(self) -> Iterator[ForeignObject]:
        """Every object, a page in memory at a time."""
        with self._translated(""):
            for page in obstore.list(self._objects, chunk_size=1_000):
                yield from (_described(entry) for entry in page)

    def look(self, name: str) -> ForeignObject:
        """An object as it is now. Raises BlobNotFound."""
        with self._translated(name):
            return _described(obstore.head(self._objects, name))

    def get(self, name: str) -> tuple[ForeignObject, bytes]:
        """An object with its content. Raises BlobNotFound."""
        with self._translated(name):
            found = obstore.get(self._objects, name)
            return _described(found.meta), bytes(found.bytes())

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of an object, a piece in memory at a time. Raises BlobNotFound."""
        with self._translated(name):
            for piece in obstore.get(self._objects, name).stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)

    def put(self, name: str, data: bytes) -> None:
        """Put an object there, as somebody else would."""
        with self._translated(name):
            obstore.put(self._objects, name, data, use_multipart=False)

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        try:
            with self._translated(name):
                obstore.delete(self._objects, name)
        except BlobNotFound:
            return

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not name:
                raise SourceUnavailable(f"There is no {self.place}: {reason_of(error)}") from error
            raise BlobNotFound(f"There is nothing at {self.place} under {name!r}.") from error
        except (BaseError, OSError, ValueError) as error:
            raise SourceUnavailable(f"{self.place} did not do what was asked: {reason_of(error)}") from error


def open_prefix(url: str, *, options: Mapping[str, Any] | None = None) -> ObjectPrefix:
    """The objects at `s3://bucket/prefix`, `gs://…`, `az://…`, or at `memory://`, which is new and empty each time.

    Nothing is asked of the place yet. Raises Misconfigured for another kind of URL.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return ObjectPrefix(ObstoreMemory(), url)
    if scheme in REMOTE:
        return ObjectPrefix(open_objects(url, options or {}), url)
    raise Misconfigured(f"Photos cannot be brought in from {scheme}:// addresses; use a folder, s3://, gs:// or az://.")


def _described(entry: Mapping[str, Any]) -> ForeignObject:
    modified_at: datetime = entry["last_modified"]
    version = entry["version"] or entry["e_tag"] or modified_at.isoformat()
    return ForeignObject(
        name=entry["path"], byte_count=entry["size"], modified_at=modified_at, version=f"{entry['size']}-{version}"
    )
