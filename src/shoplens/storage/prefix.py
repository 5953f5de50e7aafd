"""Read what others put below a prefix of an object store, under whatever names they chose, and remove it.

A `Store` is ours and has plain keys; these objects are somebody else's and may be called anything.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotModifiedError, PreconditionError
from obstore.store import MemoryStore as ObstoreMemory
from obstore.store import ObjectStore, S3Store

from shoplens.errors import BlobNotFound, Misconfigured, SourceUnavailable
from shoplens.storage.faults import is_absent_bucket, is_unspeakable_name, reason_of, shown
from shoplens.storage.listing import ListedObject, S3Listing, open_listing
from shoplens.storage.ranges import read_ranges
from shoplens.storage.remote import ON_TRIAL, REMOTE, endpoint_of, open_objects

_DELETE_TIMEOUT_S: Final = 10.0
_PAGE: Final = 1_000
_NEVER_THERE: Final = "shoplens-doctor-removes-nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObject:
    """One object as it was listed or read. `version` changes with its content.

    `reachable` is false for a name that can be listed, but neither read nor removed.
    """

    name: str
    byte_count: int
    modified_at: datetime
    version: str
    e_tag: str | None
    reachable: bool = True


class ObjectPrefix:
    """The objects below one prefix. Thread-safe. Every verb raises SourceUnavailable when the place does not answer."""

    def __init__(
        self,
        objects: ObjectStore,
        place: str,
        *,
        listing: S3Listing | None = None,
        trial: ObjectStore | None = None,
    ) -> None:
        self.place = place
        self._objects = objects
        self._listing = listing
        self._trial = trial or objects

    def check(self) -> None:
        """Raises SourceUnavailable, within seconds, unless objects can be listed and removed. Removes nothing."""
        with self._translated(""):
            next(obstore.list(self._trial, chunk_size=1), None)
            try:
                obstore.delete(self._trial, _NEVER_THERE)
            except FileNotFoundError:
                return

    def list(self) -> Iterator[ForeignObject]:
        """Every object, a page in memory at a time."""
        last: str | None = None
        with self._translated(""):
            try:
                for page in obstore.list(self._objects, chunk_size=_PAGE):
                    for entry in page:
                        last = entry["path"]
                        yield _described(entry)
            except BaseError as error:
                if self._listing is None or not is_unspeakable_name(error):
                    raise
            else:
                return
            yield from map(_foreign, self._listing.after(last))

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
            yield from read_ranges(self._objects, name)

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

    def delete_unchanged(self, found: ForeignObject) -> bool:
        """Remove an object if it is still as `found`; whether it is gone.

        On S3 the removal itself has that condition. A server that does not know conditions on removals, and every
        other kind of place, leaves the time of one request between the look and the removal.
        """
        try:
            if self.look(found.name).version != found.version:
                return False
        except BlobNotFound:
            return True
        if found.e_tag is None or not isinstance(self._objects, S3Store):
            self.delete(found.name)
            return True
        with self._translated(found.name):
            return self._deleted_on_condition(self._objects, found.name, found.e_tag)

    def _deleted_on_condition(self, objects: S3Store, name: str, e_tag: str) -> bool:
        """The library removes without conditions only, but signs addresses, and what is added need not be signed."""
        address = obstore.sign(objects, "DELETE", name, timedelta(seconds=60))
        request = urllib.request.Request(address, method="DELETE", headers={"If-Match": e_tag})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_DELETE_TIMEOUT_S):  # noqa: S310
                return True
        except urllib.error.HTTPError as error:
            with error:
                if error.code in {404, 412}:
                    return error.code == 404
                if error.code in {409, 503}:
                    raise
        self.delete(name)  # it may not know the condition; whatever else is wrong is told better by the library
        return True

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not name or is_absent_bucket(error):
                raise SourceUnavailable(f"There is no {self.place}: {reason_of(error)}") from error
            raise BlobNotFound(f"There is nothing at {self.place} under {name!r}.") from error
        except (PreconditionError, NotModifiedError) as error:
            raise SourceUnavailable(f"{name} is being changed.") from error
        except (BaseError, OSError, ValueError) as error:
            raise SourceUnavailable(f"{self.place} did not do what was asked: {reason_of(error)}") from error


def open_prefix(url: str, *, setting: str | None = None, options: Mapping[str, Any] | None = None) -> ObjectPrefix:
    """The objects at `s3://bucket/prefix`, `gs://…`, `az://…`, or at `memory://`, which is new and empty each time.

    Nothing is asked of the place yet. `setting` is where the URL is from, for people who read what went wrong.
    Raises Misconfigured for another kind of URL.
    """
    scheme = urlsplit(url).scheme
    given = options or {}
    if scheme == "memory":
        return ObjectPrefix(ObstoreMemory(), url)
    if scheme in REMOTE:
        return ObjectPrefix(
            open_objects(url, given),
            f"{url} ({setting})" if setting else url,
            listing=open_listing(url, given, endpoint_of(given)),
            trial=open_objects(url, given, patience=ON_TRIAL),
        )
    raise Misconfigured(
        f"Photos cannot be brought in from {scheme}:// addresses ({shown(url)}); use a folder, s3://, gs:// or az://."
    )


def _described(entry: Mapping[str, Any]) -> ForeignObject:
    modified_at: datetime = entry["last_modified"]
    version = entry["version"] or entry["e_tag"] or modified_at.isoformat()
    return ForeignObject(
        name=entry["path"],
        byte_count=entry["size"],
        modified_at=modified_at,
        version=f"{entry['size']}-{version}",
        e_tag=entry["e_tag"],
    )


def _foreign(listed: ListedObject) -> ForeignObject:
    return ForeignObject(
        name=listed.name,
        byte_count=listed.byte_count,
        modified_at=listed.modified_at,
        version=f"{listed.byte_count}-{listed.e_tag or listed.modified_at.isoformat()}",
        e_tag=listed.e_tag,
        reachable=listed.is_nameable,
    )
