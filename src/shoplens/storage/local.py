"""Objects as files below a directory. A file is written beside and renamed, so no reader sees half of one.

Only regular files are objects. A symbolic link, a FIFO or a device under a key is as if there were nothing: it could
lead out of the store, or block its reader.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from shoplens.advice import file_advice
from shoplens.errors import BlobNotFound, StorageUnavailable, StorageUnusable
from shoplens.storage.store import CHECK_KEY, is_key, require_key
from shoplens.telemetry.tracing import span

_STAGING: Final = ".staging"
_LOCK: Final = "lock"
_ABANDONED_AFTER_S: Final = 3_600
_PIECE_BYTES: Final = 8 << 20
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)
_LASTING: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
_WITHOUT_LINKS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for opening a file: fail for a symbolic link, and do not wait for the other end of a FIFO."""


class LocalStore:
    """A `Store` in a local directory, which is created where it is missing: now, or without `create` by a write."""

    def __init__(self, root: Path, *, create: bool = True) -> None:
        """Raises StorageUnavailable."""
        self._root = root
        self._staging = root / _STAGING
        if not create and not self._staging.is_dir():
            return
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            # Drafts of processes that crashed. Young ones may belong to a process that writes now.
            oldest_wanted = time.time() - _ABANDONED_AFTER_S
            for entry in os.scandir(self._staging):
                if entry.name != _LOCK and entry.stat(follow_symlinks=False).st_mtime < oldest_wanted:
                    Path(entry.path).unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(f"The directory {root} for images cannot be used", error) from error

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """As `Store.put`."""
        path = self._path(key)
        with span("store.put", {"shoplens.bytes": len(data)}, kind="client"), self._translated(key, writes=True):
            found = self._stat(path)
            if found is None or found.st_size != len(data):
                self._write(path, (data,), durable=durable)
            elif durable:
                # Its writer may have been killed before it did.
                _sync(path)
                _sync(path.parent)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """As `Store.put_pieces`."""
        path = self._path(key)
        with self._translated(key, writes=True):
            self._write(path, pieces, durable=True)

    def version(self, key: str) -> str | None:
        """As `Store.version`."""
        path = self._path(key)
        with self._translated(key):
            found = self._stat(path)
            return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}" if found else None

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """As `Store.put_if`."""
        path = self._path(key)
        with self._translated(key, writes=True), self._lock():
            if self.version(key) != seen:
                return False
            self._write(path, (data,), durable=True)
            return True

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """As `Store.move`."""
        old, new = self._path(source), self._path(target)
        with self._translated(source):
            _make_folder(new.parent, durable=True)
            if self._stat(old) is not None:
                with suppress(FileNotFoundError):  # another process has moved it meanwhile
                    old.replace(new)
            if self._stat(new) is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(old))
            if durable:
                # Also where another process moved it: that one may not have reached this line yet.
                _sync(new.parent)
                if old.parent != new.parent and old.parent.is_dir():
                    _sync(old.parent)

    def sync(self, keys: Iterable[str]) -> None:
        """As `Store.sync`."""
        folders = {self._path(key).parent for key in keys}
        with self._translated(""):
            for folder in sorted(folders):
                if folder.is_dir():
                    _sync(folder)

    def get(self, key: str) -> bytes:
        """As `Store.get`."""
        path = self._path(key)
        with self._translated(key), self._open(path) as file:
            return file.read()

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `Store.pieces`."""
        path = self._path(key)
        with self._translated(key), self._open(path) as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def exists(self, key: str) -> bool:
        """As `Store.exists`."""
        path = self._path(key)
        with self._translated(key):
            return self._stat(path) is not None

    def delete(self, key: str) -> None:
        """As `Store.delete`."""
        path = self._path(key)
        with self._translated(key):
            try:
                path.unlink()
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise

    def list(self, prefix: str) -> Iterator[str]:
        """As `Store.list`."""
        folder = prefix.strip("/")
        top = self._path(folder) if folder else self._root
        if self._root.is_file():  # what is below a file is absent, but then the store is away, and not empty
            raise StorageUnavailable(f"The store {self._root} is a file and should be a folder. Move the file away.")
        with self._translated(folder):
            folders = [top]
            while folders:
                place = folders.pop()
                below = place.relative_to(self._root).as_posix()
                for entry in _entries(place):
                    key = entry.name if below == "." else f"{below}/{entry.name}"
                    if not is_key(key):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(place / entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        yield key

    def check(self) -> None:
        """As `Store.check`."""
        with self._translated(CHECK_KEY, writes=True):
            self._write(self._root / CHECK_KEY, (b"ok",), durable=False)

    def _path(self, key: str) -> Path:
        return self._root / require_key(key)

    def _write(self, path: Path, pieces: Iterable[bytes], *, durable: bool) -> None:
        """Make `path` hold `pieces`, completely or not at all.

        With `durable` the file, its name and new folders are forced to the disk. Raises OSError, and what `pieces`
        raises; then nothing is left.
        """
        _make_folder(self._staging, durable=durable)
        draft = self._staging / os.urandom(12).hex()
        try:
            with draft.open("xb") as file:
                for piece in pieces:
                    file.write(piece)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            _make_folder(path.parent, durable=durable)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        if durable:
            _sync(path.parent)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One thread of one process at a time. The system releases the lock when the process ends."""
        _make_folder(self._staging, durable=True)
        descriptor = os.open(self._staging / _LOCK, os.O_RDWR | os.O_CREAT | _WITHOUT_LINKS, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _stat(self, path: Path) -> os.stat_result | None:
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def _open(self, path: Path) -> IO[bytes]:
        """A regular file, for reading; everything else is as if it were absent. Raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | _WITHOUT_LINKS)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(errno.ENOENT, "it is no regular file", str(path))
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    @contextmanager
    def _translated(self, key: str, *, writes: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _ABSENT and not writes:
                raise BlobNotFound(f"The store {self._root} has nothing under {key!r}.") from error
            raise _unavailable(f"The store {self._root} did not do what was asked", error) from error


def _unavailable(sentence: str, error: OSError) -> StorageUnavailable:
    """Our error, by whether it can pass."""
    kind = StorageUnusable if error.errno in _LASTING else StorageUnavailable
    place = f"{error.filename}: " if error.filename else ""
    return kind(f"{sentence}: {place}{file_advice(error)}.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where it is missing, or was removed meanwhile. Raises OSError."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return []


def _make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder and its parents; with `durable` each new name is forced to the disk."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Force the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
