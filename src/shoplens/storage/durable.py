"""Write and move local files so that content and name survive a loss of power: fsync of file, then of folder."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def write(path: Path, pieces: Iterable[bytes], *, staged: Path) -> None:
    """Make `path` hold `pieces`, wholly or not at all; `staged` is a name of the writer's own on the same disk.

    Raises OSError, and whatever `pieces` raises; then nothing is left.
    """
    make_folder(staged.parent)
    try:
        with staged.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        make_folder(path.parent)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move(source: Path, target: Path, *, durable: bool = True) -> None:
    """Rename a file. Nothing happens where it is at `target` already; raises FileNotFoundError where it is nowhere.

    Without `durable` whoever moves many files syncs their folders once, at the end.
    """
    make_folder(target.parent)
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise FileNotFoundError(f"{source} is no file")
        source.replace(target)
    except (FileNotFoundError, NotADirectoryError):
        if not target.is_file():
            raise
    if not durable:
        return
    # Also where somebody else moved it: he may not have come to this line yet.
    sync_folder(target.parent)
    if source.parent != target.parent and source.parent.is_dir():
        sync_folder(source.parent)


def settle(path: Path) -> None:
    """Let a file that is there survive: whoever wrote it may have been killed before the disk had it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; each is entered in the one above for good."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive. Windows has no such call and journals them by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One thread of one process at a time among all that name this file. The system lets go when a process dies."""
    make_folder(lock.parent)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
