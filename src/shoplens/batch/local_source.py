"""A drop folder on this machine as a source: its files and those of its sub-folders, listed one after the other."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from shoplens.batch.arrivals import Arrival, Left, Offer, Why
from shoplens.batch.directory import Directory
from shoplens.batch.local_file import LocalFile, left_for
from shoplens.batch.names import is_ignored, is_sidecar, may_have_sidecar, readable
from shoplens.errors import SourceUnavailable

_DEEPEST: Final = 40


class LocalSource:
    """A folder. `quiet_s`: how long a file must have been left alone; `now` is in seconds since 1970."""

    def __init__(self, root: Path, *, quiet_s: float, now: Callable[[], float]) -> None:
        self.place = readable(str(root))
        self._root = root
        self._is_quiet = _quiet_for(quiet_s, now)

    def folders(self) -> Iterator[LocalFolder | Left]:
        """As `Source.folders`. Raises SourceUnavailable when there is no folder or it may not be read."""
        outstanding = [(self._open_root(), 0)]
        while outstanding:
            folder, depth = outstanding.pop()
            yield folder
            for below in folder.sub_folders():
                if isinstance(below, Left):
                    yield below
                elif depth < _DEEPEST:
                    outstanding.append((below, depth + 1))

    def _open_root(self) -> LocalFolder:
        try:
            if not self._root.is_dir() and self._root.exists():
                raise SourceUnavailable(f"{self.place} is a file; photos are brought in from a folder.")
            directory = Directory.opened(self._root)
            next(directory.entries(), None)
        except FileNotFoundError as error:
            raise SourceUnavailable(f"There is no folder {self.place}. Create it, or name another one.") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceUnavailable(f"The folder {self.place} cannot be read: {reason}.") from error
        return LocalFolder(directory, "", self._is_quiet)


class LocalFolder:
    """A `Folder`. `path` is that in the source, empty or ending with a slash."""

    def __init__(self, directory: Directory, path: str, is_quiet: Callable[[os.stat_result], bool]) -> None:
        self._directory = directory
        self._path = path
        self._is_quiet = is_quiet

    def sub_folders(self) -> Iterator[LocalFolder | Left]:
        """Those directly below."""
        for entry in self._entries():
            if isinstance(entry, Left):
                yield entry
            elif _is_folder(entry):
                yield self._below(entry.name)

    def offers(self) -> Iterator[Offer | Left]:
        """As `Folder.offers`."""
        for found in self._files(sidecars=False):
            yield found if isinstance(found, Left) else self._with_sidecar(found)

    def sidecars(self) -> Iterator[Arrival | Left]:
        """As `Folder.sidecars`."""
        return self._files(sidecars=True)

    def present(self, names: Collection[str]) -> set[str]:
        """As `Folder.present`."""
        return {name for name in names if self._has(name.rsplit("/", 1)[-1])}

    def _has(self, file: str) -> bool:
        try:
            self._directory.stat(file)
        except (OSError, ValueError):
            return False
        return True

    def _below(self, name: str) -> LocalFolder | Left:
        path = f"{self._path}{readable(name)}/"
        try:
            return LocalFolder(self._directory.folder(name), path, self._is_quiet)
        except OSError as error:
            return left_for(path, error)

    def _with_sidecar(self, photo: LocalFile) -> Offer | Left:
        if not may_have_sidecar(photo.file):
            return Offer(photo=photo, sidecar=None)
        sidecar = self._found(f"{photo.file}.json")
        if isinstance(sidecar, Left):
            return Left(name=photo.name, why=sidecar.why, reason="its sidecar is not ready")
        return Offer(photo=photo, sidecar=sidecar)

    def _files(self, *, sidecars: bool) -> Iterator[LocalFile | Left]:
        for entry in self._entries():
            if isinstance(entry, Left):
                yield entry
            elif is_sidecar(entry.name) is sidecars and (found := self._found(entry.name)):
                yield found

    def _found(self, file: str) -> LocalFile | Left | None:
        """A file, or why it is left; None for what is none (any more)."""
        name = readable(self._path + file)
        try:
            found = self._directory.stat(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            return left_for(name, error)
        if not stat.S_ISREG(found.st_mode):
            return None
        if not self._is_quiet(found):
            return Left(name=name, why=Why.NOT_READY, reason="it was changed a moment ago")
        return LocalFile(self._directory, file, name, found)

    def _entries(self) -> Iterator[os.DirEntry[str] | Left]:
        try:
            yield from (entry for entry in self._directory.entries() if not is_ignored(entry.name))
        except OSError as error:
            if not self._path:
                raise SourceUnavailable(f"The source can no longer be read: {error.strerror}.") from error
            yield left_for(self._path, error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _quiet_for(quiet_s: float, now: Callable[[], float]) -> Callable[[os.stat_result], bool]:
    """Whether a file was left alone for so long. A time in the future, as copied files may have, tells nothing."""

    def is_quiet(found: os.stat_result) -> bool:
        moment = now()
        changed = found.st_mtime if found.st_mtime <= moment else found.st_ctime
        return moment - changed >= quiet_s

    return is_quiet
