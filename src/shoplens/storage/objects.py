"""Objects in S3, Google Cloud, Azure or memory, through obstore: our own under plain keys, others' under any name.

Every request has a timeout. URLs, keys and environment variables are checked here, before the client library sees them.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotModifiedError, PreconditionError
from obstore.store import ObjectStore, S3Store, from_url

from shoplens.errors import BlobNotFound, Misconfigured, SourceUnavailable, StorageUnavailable
from shoplens.storage.store import CHECK_KEY, is_key, reason_of, require_key
from shoplens.telemetry.secrets import shown_address
from shoplens.telemetry.tracing import span

if TYPE_CHECKING:
    from obstore import GetOptions

REMOTE: Final = ("s3", "gs", "az")
PART_BYTES: Final = 8 << 20
"""10,000 parts, the limit of S3, are 80 GB."""
_PARTS_AT_ONCE: Final = 4
_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_KEY_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_DELETE_TIMEOUT_S: Final = 10.0
_PAGE: Final = 1_000
_NO_OBJECT: Final = "shoplens-doctor-removes-nothing"


class Timeouts(TypedDict):
    """Timeouts and retries, as arguments of obstore."""

    client_options: dict[str, str]
    retry_config: dict[str, object]


def _timeouts(*, connect_s: int, read_s: int, request_s: int, retries: int) -> Timeouts:
    """No retry begins after `read_s`, so a server that never answers costs about that long.

    Plain http is used only where an endpoint is written http://.
    """
    return Timeouts(
        client_options={
            "connect_timeout": f"{connect_s}s",
            "read_timeout": f"{read_s}s",
            "timeout": f"{request_s}s",
            "allow_http": "true",
        },
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=read_s)},
    )


DEFAULT_TIMEOUTS: Final = _timeouts(connect_s=3, read_s=10, request_s=30, retries=3)
PROBE_TIMEOUTS: Final = _timeouts(connect_s=2, read_s=4, request_s=5, retries=1)
"""For a check whether the store is there, whose result somebody waits for."""


class BucketStore:
    """A `Store` in anything that obstore speaks to and that writes atomically. `probe` is a client for `check`."""

    def __init__(self, objects: ObjectStore, place: str, *, probe: ObjectStore | None = None) -> None:
        self._objects = objects
        self._place = place
        self._probe = probe or objects

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """As `Store.put`. Object stores answer when an object is durable."""
        del durable
        require_key(key)
        with span("store.put", {"shoplens.bytes": len(data)}, kind="client"), self._translated(key, writes=True):
            if self._size(key) != len(data):
                obstore.put(self._objects, key, data, use_multipart=False)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """As `Store.put_pieces`."""
        require_key(key)
        with self._translated(key, writes=True):
            _write_parts(self._objects, key, pieces)

    def version(self, key: str) -> str | None:
        """As `Store.version`."""
        require_key(key)
        with self._translated(key):
            try:
                head = obstore.head(self._objects, key)
            except FileNotFoundError:
                return None
            return f"{head['e_tag'] or ''} {head['version'] or ''}"

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """As `Store.put_if`."""
        require_key(key)
        mode: Any = "create"
        if seen is not None:
            e_tag, _, version = seen.partition(" ")
            mode = {name: value for name, value in (("e_tag", e_tag), ("version", version)) if value}
        with self._translated(key, writes=True):
            try:
                obstore.put(self._objects, key, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """As `Store.move`: a copy and a removal."""
        del durable
        require_key(source)
        require_key(target)
        with self._translated(source):
            if source == target:
                obstore.head(self._objects, source)
                return
            try:
                obstore.copy(self._objects, source, target)
            except FileNotFoundError:
                if self._size(target) is None:
                    raise
            else:
                self.delete(source)

    def sync(self, keys: Iterable[str]) -> None:
        """As `Store.sync`: nothing to do."""
        for key in keys:
            require_key(key)

    def get(self, key: str) -> bytes:
        """As `Store.get`."""
        require_key(key)
        with self._translated(key):
            return bytes(obstore.get(self._objects, key).bytes())

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `Store.pieces`."""
        require_key(key)
        with self._translated(key):
            yield from _read_ranges(self._objects, key)

    def exists(self, key: str) -> bool:
        """As `Store.exists`."""
        require_key(key)
        with self._translated(key):
            return self._size(key) is not None

    def delete(self, key: str) -> None:
        """As `Store.delete`."""
        require_key(key)
        with self._translated(key):
            try:
                obstore.delete(self._objects, key)
            except FileNotFoundError:
                return

    def list(self, prefix: str) -> Iterator[str]:
        """As `Store.list`. Raises StorageUnavailable where an object's name cannot be expressed (see `_bad_name`)."""
        folder = prefix.strip("/")
        if folder:
            require_key(folder)
        with self._translated(folder):
            for page in obstore.list(self._objects, folder or None, chunk_size=_PAGE):
                yield from (entry["path"] for entry in page if is_key(entry["path"]))

    def sizes(self) -> Iterator[int]:
        """The bytes of every object, a page in memory at a time. Raises StorageUnavailable."""
        with self._translated(""):
            for page in obstore.list(self._objects, chunk_size=_PAGE):
                yield from (entry["size"] for entry in page)

    def check(self) -> None:
        """As `Store.check`. Reads the object back: a key may be allowed to write only."""
        with self._translated(CHECK_KEY, writes=True):
            obstore.put(self._probe, CHECK_KEY, b"ok", use_multipart=False)
            obstore.get(self._probe, CHECK_KEY).bytes()

    def _size(self, key: str) -> int | None:
        try:
            return int(obstore.head(self._objects, key)["size"])
        except FileNotFoundError:
            return None

    @contextmanager
    def _translated(self, key: str, *, writes: bool = False) -> Iterator[None]:
        """`writes`: what is missing cannot be the object."""
        try:
            yield
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and not writes and not _is_absent_bucket(error):
                raise BlobNotFound(f"The store {self._place} has nothing under {key!r}.") from error
            raise StorageUnavailable(
                f"The store {self._place} did not do what was asked: {_bad_name(error) or reason_of(error)}"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObject:
    """One object as it was listed or read. `version` changes with its content."""

    name: str
    byte_count: int
    modified_at: datetime
    version: str
    e_tag: str | None


class ObjectPrefix:
    """Objects below one prefix that others put there, under any names; they are read and removed. Thread-safe.

    Every method raises SourceUnavailable when the store does not answer or refuses.
    """

    def __init__(self, objects: ObjectStore, place: str, *, probe: ObjectStore | None = None) -> None:
        self.place = place
        self._objects = objects
        self._probe = probe or objects

    def check(self) -> None:
        """Raises SourceUnavailable, within seconds, unless objects can be listed and removed. Removes nothing."""
        with self._translated(""):
            next(obstore.list(self._probe, chunk_size=1), None)
            try:
                obstore.delete(self._probe, _NO_OBJECT)
            except FileNotFoundError:
                return

    def list(self) -> Iterator[ForeignObject]:
        """Every object, a page in memory at a time. Raises SourceUnavailable where a name cannot be expressed."""
        with self._translated(""):
            for page in obstore.list(self._objects, chunk_size=_PAGE):
                yield from map(_described, page)

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
            yield from _read_ranges(self._objects, name)

    def put(self, name: str, data: bytes) -> None:
        """Create an object, as others do."""
        with self._translated(name):
            obstore.put(self._objects, name, data, use_multipart=False)

    def delete(self, name: str) -> None:
        """Remove an object; does nothing where there is none."""
        try:
            with self._translated(name):
                obstore.delete(self._objects, name)
        except BlobNotFound:
            return

    def delete_unchanged(self, found: ForeignObject) -> bool:
        """Remove an object if it is still as `found`; whether it was removed.

        On S3 the DELETE itself is conditional. Servers that ignore conditions on DELETE, and other kinds of store,
        leave the time of one request between the check and the removal.
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
        """obstore has no conditional DELETE, but it signs URLs, and a header may be added to a signed URL."""
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
        self.delete(name)  # the server may not know the condition; other faults have better messages from obstore
        return True

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not name or _is_absent_bucket(error):
                raise SourceUnavailable(f"There is no {self.place}: {reason_of(error)}") from error
            raise BlobNotFound(f"There is nothing at {self.place} under {name!r}.") from error
        except (PreconditionError, NotModifiedError) as error:
            raise SourceUnavailable(f"{name} is being changed.") from error
        except (BaseError, OSError, ValueError) as error:
            raise SourceUnavailable(
                f"{self.place} did not do what was asked: {_bad_name(error) or reason_of(error)}"
            ) from error


def open_objects(url: str, options: Mapping[str, Any], *, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> ObjectStore:
    """A client for `url`; sends no request yet. Raises Misconfigured for an invalid URL or invalid options."""
    build: Any = from_url  # its stub has one overload per kind, and the kind is known only here
    _require_valid(url, options)
    try:
        objects: ObjectStore = build(url, config=dict(options), **timeouts)
    except (BaseError, ValueError) as error:
        raise Misconfigured(f"The object store {shown_address(url)} cannot be set up: {reason_of(error)}") from error
    return objects


def _require_valid(url: str, options: Mapping[str, Any]) -> None:
    """obstore aborts the process for some of these faults, and ignores others."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise Misconfigured(
            f"The address {shown_address(url)} has a password in it. Set keys in the environment instead: "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3."
        )
    if parts.scheme != "s3":
        return
    if not _BUCKET.fullmatch(parts.netloc):
        raise Misconfigured(
            f"The object store {shown_address(url)} cannot be set up: {parts.netloc!r} is not a valid bucket name."
        )
    set_here = (options.get(name) for name in ("endpoint", "aws_endpoint", "endpoint_url"))
    endpoint = next(filter(None, chain(set_here, map(os.environ.get, _ENDPOINT_VARIABLES))), None)
    if endpoint is not None and not _is_server(endpoint):
        raise Misconfigured(
            f"AWS_ENDPOINT_URL is {shown_address(endpoint)!r}, which is not the URL of a server; "
            "it looks like http://127.0.0.1:8333 or https://s3.example.com."
        )
    # One key without the other is a mistake; a machine with a role needs neither.
    missing = [name for name in _KEY_VARIABLES if not os.environ.get(name)]
    if not options and len(missing) == 1:
        needed = " and ".join(_KEY_VARIABLES)
        raise Misconfigured(f"{missing[0]} is not set, but the other key is: S3 needs both {needed}.")


def _is_server(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    try:
        good_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return good_port and parts.scheme in ("http", "https") and "@" not in parts.netloc and bool(parts.hostname)


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


def _read_ranges(objects: ObjectStore, name: str) -> Iterator[bytes]:
    """The content of an object, a part in memory at a time, all of one version.

    Raises FileNotFoundError, and PreconditionError when the object changes meanwhile.
    """
    head = obstore.head(objects, name)
    for start in range(0, head["size"], PART_BYTES):
        wanted: GetOptions = {"range": (start, min(start + PART_BYTES, head["size"]))}
        if head["e_tag"]:
            wanted["if_match"] = head["e_tag"]
        yield bytes(obstore.get(objects, name, options=wanted).bytes())


def _write_parts(objects: ObjectStore, name: str, pieces: Iterable[bytes]) -> None:
    """Write `pieces` as one object, which appears completely or not at all. At most 5 parts are in memory.

    One part is one request. A failed upload of several parts removes them; a process that is killed leaves them,
    invisible, to the bucket's lifecycle rule for unfinished uploads.
    """
    remaining = iter(pieces)
    start: list[bytes] = []
    while sum(map(len, start)) < PART_BYTES:
        piece = next(remaining, None)
        if piece is None:
            obstore.put(objects, name, b"".join(start), use_multipart=False)
            return
        start.append(piece)
    obstore.put(objects, name, chain(start, remaining), chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)


def _is_absent_bucket(error: BaseException) -> bool:
    """Whether the bucket is missing, not an object."""
    return "NoSuchBucket" in str(error)


def _bad_name(error: BaseException) -> str | None:
    """A sentence for a listing that failed because of a name that obstore cannot express; None for other errors."""
    if "invalid path" not in str(error):
        return None
    return (
        "an object there has a name with an empty segment (`a//b`), `.`, `..` or a control character, which cannot be "
        f"read. Rename or remove that object. ({reason_of(error)})"
    )
