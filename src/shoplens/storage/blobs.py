"""Keep blobs under keys, wherever a URL says: a local directory, memory, S3, Google Cloud or Azure (through obstore).

Most blobs are immutable: whoever writes chooses a key that follows from the bytes, so writing the same key twice is
the same as writing it once. What is written anew under its key is written on condition (`put_if`). Decisions 0007 and
0013 say why, and what a crash may leave. `durable` writes what shall survive power.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore as ObstoreLocal
from obstore.store import MemoryStore as ObstoreMemory
from obstore.store import ObjectStore

from shoplens.errors import BlobNotFound, Misconfigured, RequestInvalid, StorageUnavailable
from shoplens.storage import durable as on_disk
from shoplens.storage.faults import is_absent_bucket, is_unspeakable_name, reason_of, shown
from shoplens.storage.listing import S3Listing, open_listing
from shoplens.storage.ranges import PART_BYTES, read_ranges, write_parts
from shoplens.storage.remote import AT_WORK, ON_TRIAL, REMOTE, Patience, endpoint_of, open_objects

_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LONGEST_KEY: Final = 512
_CHECK_KEY: Final = "health/check"
_STAGING: Final = ".staging"
_LOCK: Final = "lock"
_ABANDONED_AFTER_S: Final = 3_600


class Store(Protocol):
    """Blobs by key. Thread-safe. Every verb raises StorageUnavailable when the place does not answer or refuses, and
    RequestInvalid for a key that is not made of plain path segments.
    """

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """Keep `data` under `key`: wholly or not at all. Writes nothing where the key has a blob of that size.

        With `durable`, content and name survive a loss of power once this returns, on local disks too.
        """
        ...

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """Keep what `pieces` yield under `key`, wholly or not at all, a piece in memory at a time; always durable.

        Raises whatever `pieces` raises, and then nothing is under `key` that was not there before.
        """
        ...

    def version(self, key: str) -> str | None:
        """Something that changes with the blob under `key`; None where there is none."""
        ...

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """Keep `data` under `key` if the blob there is still the version `seen` (None: if there is none).

        Of several that do this at once exactly one does it. False where another blob is there by then; it stays.
        """
        ...

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """Move a blob; on local disks at once. It survives a loss of power, but without `durable` only after `sync`.

        Nothing happens where `source` is gone and `target` is there. Raises BlobNotFound where neither is.
        """
        ...

    def sync(self, keys: Iterable[str]) -> None:
        """Let moves from and to these keys survive a loss of power: for many together much cheaper than for each."""
        ...

    def get(self, key: str) -> bytes:
        """The blob. Raises BlobNotFound."""
        ...

    def pieces(self, key: str) -> Iterator[bytes]:
        """The blob, a piece in memory at a time, all of one version. Raises BlobNotFound."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a blob under `key`."""
        ...

    def delete(self, key: str) -> None:
        """Remove the blob; nothing happens where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys below the folder `prefix` (whole segments; "" means all), in no particular order.

        What others put there under names that are no keys is left out.
        """
        ...

    def check(self) -> None:
        """Raises StorageUnavailable, within seconds, unless a blob can be written now. Writes two under `health/`."""
        ...


def open_store(
    url: str, *, setting: str | None = None, options: Mapping[str, Any] | None = None, hurry: bool = False
) -> Store:
    """The store at `url`: a path, `file:///dir`, `memory://`, `s3://bucket/prefix`, `gs://…` or `az://…`.

    A missing local directory is created. `options` are obstore's for the kind (endpoint, region, keys); without them
    the usual environment variables count. `setting` is where the URL is from, for people who read what went wrong;
    with `hurry` a place that does not answer is given up within seconds. Raises Misconfigured for another kind,
    StorageUnavailable.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return ObjectBlobs(ObstoreMemory(), url)
    if scheme in REMOTE:
        place = f"{url} ({setting})" if setting else url
        return _remote(url, options or {}, place=place, patience=ON_TRIAL if hurry else AT_WORK)
    if scheme == "file" or len(scheme) <= 1:  # one letter is a Windows drive
        return LocalBlobs(_local_path(url))
    raise Misconfigured(
        f"Images cannot be kept at {scheme}:// addresses ({shown(url)}); use a directory, s3://, gs:// or az://."
    )


def image_key(sha256: str, suffix: str) -> str:
    """Where a photo lies: `images/ab/cd/abcd….jpg`. `suffix` has no dot."""
    return f"images/{sha256[:2]}/{sha256[2:4]}/{sha256}.{suffix}"


def is_key(text: str) -> bool:
    """Whether `text` is made of plain segments (no `..`, no leading dot or slash)."""
    return len(text) <= _LONGEST_KEY and _KEY.fullmatch(text) is not None


def require_key(key: str) -> str:
    """`key` itself. Raises RequestInvalid unless it is made of plain segments (no `..`, no leading dot or slash)."""
    if not is_key(key):
        raise RequestInvalid(f"{key[:80]!r} is no key: plain names of letters, digits, '.', '_', '-', joined by '/'.")
    return key


class ObjectBlobs:
    """Blobs in anything that obstore speaks to and that writes atomically by itself."""

    def __init__(
        self,
        objects: ObjectStore,
        place: str,
        *,
        listing: S3Listing | None = None,
        trial: ObjectStore | None = None,
    ) -> None:
        self._objects = objects
        self._place = place
        self._listing = listing
        self._trial = trial

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """As `Store.put`."""
        require_key(key)
        with self._translated(key, writes=True):
            if self._size(key) != len(data):
                self._write(key, data, durable=durable)
            elif durable:
                self._settle(key)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """As `Store.put_pieces`."""
        require_key(key)
        with self._translated(key, writes=True):
            self._write_pieces(key, pieces)

    def version(self, key: str) -> str | None:
        """As `Store.version`."""
        require_key(key)
        with self._translated(key):
            return self._version(key)

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """As `Store.put_if`."""
        require_key(key)
        with self._translated(key, writes=True):
            return self._put_if(key, data, seen)

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """As `Store.move`."""
        require_key(source)
        require_key(target)
        with self._translated(source):
            self._move(source, target, durable=durable)

    def sync(self, keys: Iterable[str]) -> None:
        """As `Store.sync`."""
        with self._translated(""):
            self._sync({require_key(key).rpartition("/")[0] for key in keys})

    def get(self, key: str) -> bytes:
        """As `Store.get`."""
        require_key(key)
        with self._translated(key):
            return bytes(obstore.get(self._objects, key).bytes())

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `Store.pieces`."""
        require_key(key)
        with self._translated(key):
            yield from self._ranges(key)

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
        """As `Store.list`."""
        folder = prefix.strip("/")
        if folder:
            require_key(folder)
        with self._translated(folder):
            yield from filter(is_key, self._listed(folder))

    def check(self) -> None:
        """As `Store.check`."""
        with self._translated(_CHECK_KEY, writes=True):
            if self._trial is None:
                self._write(_CHECK_KEY, b"ok")
            else:
                obstore.put(self._trial, _CHECK_KEY, b"ok", use_multipart=False)
                obstore.get(self._trial, _CHECK_KEY).bytes()

    def _listed(self, folder: str) -> Iterator[str]:
        """Whatever lies there, under whatever names."""
        last: str | None = None
        try:
            for chunk in obstore.list(self._objects, folder or None):
                for entry in chunk:
                    last = entry["path"]
                    yield entry["path"]
        except BaseError as error:
            if self._listing is None or not is_unspeakable_name(error):
                raise
        else:
            return
        below = f"{folder}/" if folder else ""
        yield from (each.name for each in self._listing.after(last or below) if each.name.startswith(below))

    def _write(self, key: str, data: bytes, *, durable: bool = False) -> None:
        del durable  # object stores answer when it is
        obstore.put(self._objects, key, data, use_multipart=False)

    def _write_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        write_parts(self._objects, key, pieces)

    def _ranges(self, key: str) -> Iterator[bytes]:
        yield from read_ranges(self._objects, key)

    def _version(self, key: str) -> str | None:
        try:
            head = obstore.head(self._objects, key)
        except FileNotFoundError:
            return None
        return f"{head['e_tag'] or ''} {head['version'] or ''}"

    def _put_if(self, key: str, data: bytes, seen: str | None) -> bool:
        mode: Any = "create"
        if seen is not None:
            e_tag, _, version = seen.partition(" ")
            mode = {name: value for name, value in (("e_tag", e_tag), ("version", version)) if value}
        try:
            obstore.put(self._objects, key, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def _settle(self, key: str) -> None:
        """Let a blob that is there survive: an object store has seen to it."""

    def _sync(self, folders: set[str]) -> None:
        """Let the names in these folders survive: an object store has seen to it."""

    def _move(self, source: str, target: str, *, durable: bool) -> None:
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

    def _size(self, key: str) -> int | None:
        try:
            return int(obstore.head(self._objects, key)["size"])
        except FileNotFoundError:
            return None

    @contextmanager
    def _translated(self, key: str, *, writes: bool = False) -> Iterator[None]:
        """`writes`: something that is not there cannot be the blob."""
        try:
            yield
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and not writes and not is_absent_bucket(error):
                raise BlobNotFound(f"The store {self._place} has nothing under {key!r}.") from error
            raise StorageUnavailable(
                f"The store {self._place} did not do what was asked: {reason_of(error)}"
            ) from error


class LocalBlobs(ObjectBlobs):
    """Blobs as files below a directory. A file is written beside and renamed, so none is ever seen half written."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / _STAGING
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self._staging)
            super().__init__(ObstoreLocal(prefix=root), str(root))
        except (BaseError, OSError) as error:
            raise StorageUnavailable(f"The directory {root} for images cannot be used: {reason_of(error)}") from error

    def _write(self, key: str, data: bytes, *, durable: bool = False) -> None:
        if durable:
            self._write_pieces(key, (data,))
            return
        staged = f"{_STAGING}/{os.urandom(12).hex()}"
        obstore.put(self._objects, staged, data, use_multipart=False)
        obstore.rename(self._objects, staged, key)

    def _size(self, key: str) -> int | None:
        try:
            found = (self._root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _write_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        on_disk.write(self._root / key, pieces, staged=self._staging / os.urandom(12).hex())

    def _ranges(self, key: str) -> Iterator[bytes]:
        if self._size(key) is None:
            raise FileNotFoundError(key)
        with (self._root / key).open("rb") as file:
            while piece := file.read(PART_BYTES):
                yield piece

    def _listed(self, folder: str) -> Iterator[str]:
        return (path for path in super()._listed(folder) if not path.startswith(_STAGING))

    def _version(self, key: str) -> str | None:
        try:
            found = (self._root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}" if stat.S_ISREG(found.st_mode) else None

    def _put_if(self, key: str, data: bytes, seen: str | None) -> bool:
        with on_disk.alone(self._staging / _LOCK):
            if self._version(key) != seen:
                return False
            self._write_pieces(key, (data,))
            return True

    def _settle(self, key: str) -> None:
        on_disk.settle(self._root / key)

    def _move(self, source: str, target: str, *, durable: bool) -> None:
        on_disk.move(self._root / source, self._root / target, durable=durable)

    def _sync(self, folders: set[str]) -> None:
        for folder in sorted(folders):
            if (self._root / folder).is_dir():
                on_disk.sync_folder(self._root / folder)


def _remote(url: str, options: Mapping[str, Any], *, place: str, patience: Patience) -> ObjectBlobs:
    return ObjectBlobs(
        open_objects(url, options, patience=patience),
        place,
        listing=open_listing(url, options, endpoint_of(options)),
        trial=open_objects(url, options, patience=ON_TRIAL),
    )


def _local_path(url: str) -> Path:
    if not url.startswith("file:"):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise Misconfigured(f"{url} names another machine; a local directory is written file:///path.")
    return Path(url2pathname(parts.path))


def _remove_abandoned(staging: Path) -> None:
    """What a crashed process left. Young files may belong to a living one."""
    oldest_wanted = time.time() - _ABANDONED_AFTER_S
    for entry in os.scandir(staging):
        if entry.name != _LOCK and entry.is_file() and entry.stat().st_mtime < oldest_wanted:
            Path(entry.path).unlink(missing_ok=True)
