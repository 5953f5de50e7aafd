"""Local files that appear complete or not at all, durable where asked; and a lock across processes."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write(path: Path, pieces: Iterable[bytes], *, draft: Path, durable: bool) -> None:
    """Make `path` hold `pieces`, completely or not at all. `draft` is an unused name on the same disk.

    With `durable` the file, its name and new folders are forced to the disk. Raises OSError, and what `pieces` raises;
    then nothing is left.
    """
    make_folder(draft.parent, durable=durable)
    try:
        with draft.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        make_folder(path.parent, durable=durable)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def move(source: Path, target: Path, *, durable: bool = True) -> None:
    """Rename a file. Does nothing where it is at `target` already; raises FileNotFoundError where it is at neither.

    Without `durable` the caller syncs the folders later, once for many files.
    """
    make_folder(target.parent, durable=True)
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise FileNotFoundError(f"{source} is no file")
        source.replace(target)
    except (FileNotFoundError, NotADirectoryError):
        if not target.is_file():
            raise
    if not durable:
        return
    # Also where another process moved it: that one may not have reached this line yet.
    sync_folder(target.parent)
    if source.parent != target.parent and source.parent.is_dir():
        sync_folder(source.parent)


def sync_file(path: Path) -> None:
    """Force an existing file and its name to the disk: its writer may have been killed before it did."""
    _fsync(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    _fsync(folder)


def make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder and its parents; with `durable` each new name is forced to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        sync_folder(folder.parent)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """An exclusive lock for one thread of one process. The system releases it when the process ends."""
    make_folder(path.parent, durable=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
