"""A folder that is held open: its files are reached through it, whatever its path leads to meanwhile.

Whoever may write into a drop folder could otherwise swap a sub-folder for a link, and have files elsewhere read and
removed. Where the system cannot do this (Windows), paths are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_THROUGH_FOLDERS: Final = os.open in os.supports_dir_fd and os.scandir in os.supports_fd
_NO_LINKS: Final = getattr(os, "O_NOFOLLOW", 0)
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# Without waiting: a pipe that was put in place of a file would keep its reader for ever.
_FILE: Final = (
    os.O_RDONLY | _NO_LINKS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)


class Directory:
    """Closed when nothing refers to it any more. Every method raises OSError."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @classmethod
    def opened(cls, path: Path) -> Directory:
        """The folder at a path, which may be a link."""
        return cls(path, os.open(path, _FOLDER) if _THROUGH_FOLDERS else None)

    def folder(self, name: str) -> Directory:
        """A sub-folder, never through a link."""
        if not _THROUGH_FOLDERS:
            return Directory(self._path / name, None)
        return Directory(self._path / name, os.open(name, _FOLDER | _NO_LINKS, dir_fd=self._descriptor))

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """What lies in it, one after the other."""
        with os.scandir(self._path if self._descriptor is None else self._descriptor) as found:
            yield from found

    def open(self, name: str) -> int:
        """A descriptor of a file for reading, never through a link."""
        return os.open(self._at(name), _FILE, dir_fd=self._descriptor)

    def stat(self, name: str) -> os.stat_result:
        """What `name` is, links not followed."""
        return os.stat(self._at(name), dir_fd=self._descriptor, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(self._at(name), dir_fd=self._descriptor)

    def _at(self, name: str) -> str:
        return name if self._descriptor is not None else str(self._path / name)
