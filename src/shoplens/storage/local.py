"""Objects as files below a directory. A file is written beside and renamed, so no reader sees half of one."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shoplens.errors import BlobNotFound, StorageUnavailable
from shoplens.storage import durable as disk
from shoplens.storage.store import CHECK_KEY, is_key, reason_of, require_key

_STAGING: Final = ".staging"
_LOCK: Final = "lock"
_ABANDONED_AFTER_S: Final = 3_600
_PIECE_BYTES: Final = 8 << 20
_ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore:
    """A `Store` in a local directory, which is created where it is missing."""

    def __init__(self, root: Path) -> None:
        """Raises StorageUnavailable."""
        self._root = root
        self._staging = root / _STAGING
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
        except OSError as error:
            raise StorageUnavailable(f"The directory {root} for images cannot be used: {reason_of(error)}") from error

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """As `Store.put`."""
        path = self._path(key)
        with self._translated(key, writes=True):
            found = self._stat(path)
            if found is None or found.st_size != len(data):
                disk.write(path, (data,), draft=self._draft(), durable=durable)
            elif durable:
                disk.sync_file(path)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """As `Store.put_pieces`."""
        path = self._path(key)
        with self._translated(key, writes=True):
            disk.write(path, pieces, draft=self._draft(), durable=True)

    def version(self, key: str) -> str | None:
        """As `Store.version`."""
        path = self._path(key)
        with self._translated(key):
            found = self._stat(path)
            return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}" if found else None

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """As `Store.put_if`."""
        path = self._path(key)
        with self._translated(key, writes=True), disk.file_lock(self._staging / _LOCK):
            if self.version(key) != seen:
                return False
            disk.write(path, (data,), draft=self._draft(), durable=True)
            return True

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """As `Store.move`."""
        old, new = self._path(source), self._path(target)
        with self._translated(source):
            disk.move(old, new, durable=durable)

    def sync(self, keys: Iterable[str]) -> None:
        """As `Store.sync`."""
        folders = {self._path(key).parent for key in keys}
        with self._translated(""):
            for folder in sorted(folders):
                if folder.is_dir():
                    disk.sync_folder(folder)

    def get(self, key: str) -> bytes:
        """As `Store.get`."""
        path = self._path(key)
        with self._translated(key):
            return path.read_bytes()

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `Store.pieces`."""
        path = self._path(key)
        with self._translated(key), path.open("rb") as file:
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
            except _ABSENT:
                return

    def list(self, prefix: str) -> Iterator[str]:
        """As `Store.list`."""
        folder = prefix.strip("/")
        top = self._path(folder) if folder else self._root
        with self._translated(folder):
            for place, folders, names in os.walk(top, onerror=_unless_absent):
                folders[:] = [name for name in folders if is_key(name)]
                below = Path(place).relative_to(self._root).as_posix()
                for name in names:
                    key = name if below == "." else f"{below}/{name}"
                    if is_key(key):
                        yield key

    def check(self) -> None:
        """As `Store.check`."""
        with self._translated(CHECK_KEY, writes=True):
            disk.write(self._root / CHECK_KEY, (b"ok",), draft=self._draft(), durable=False)

    def _path(self, key: str) -> Path:
        return self._root / require_key(key)

    def _draft(self) -> Path:
        return self._staging / os.urandom(12).hex()

    def _stat(self, path: Path) -> os.stat_result | None:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def _remove_abandoned(self) -> None:
        """Drafts of processes that crashed. Young ones may belong to a process that writes now."""
        oldest_wanted = time.time() - _ABANDONED_AFTER_S
        for entry in os.scandir(self._staging):
            if entry.name != _LOCK and entry.is_file() and entry.stat().st_mtime < oldest_wanted:
                Path(entry.path).unlink(missing_ok=True)

    @contextmanager
    def _translated(self, key: str, *, writes: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, _ABSENT) and not writes:
                raise BlobNotFound(f"The store {self._root} has nothing under {key!r}.") from error
            raise StorageUnavailable(f"The store {self._root} did not do what was asked: {reason_of(error)}") from error


def _unless_absent(error: OSError) -> None:
    """A folder that is missing, or that was removed meanwhile, has no keys."""
    if not isinstance(error, _ABSENT):
        raise error
