"""One file of a drop folder: read it whole, stream it, remove it, and notice whatever happens to it meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from shoplens.batch.arrivals import Left, Why
from shoplens.batch.directory import Directory
from shoplens.errors import SourceUnavailable

if sys.platform == "linux":
    import fcntl

_PIECE_BYTES: Final = 1 << 20


class LocalFile:
    """An `Arrival`. `file` is its name in `directory`, and `name` how it is called in the source."""

    __slots__ = ("_directory", "byte_count", "changed_ms", "file", "name", "stamp")

    def __init__(self, directory: Directory, file: str, name: str, found: os.stat_result) -> None:
        self.name = name
        self.byte_count = found.st_size
        self.changed_ms = max(0, found.st_ctime_ns // 1_000_000)
        self.stamp = _stamp(found)
        self._directory = directory
        self.file = file

    def read(self) -> bytes | Left:
        """As `Arrival.read`."""
        try:
            with self._unchanged() as file:
                return file.read(self.byte_count + 1)
        except _Changed as error:
            return Left(name=self.name, why=Why.NOT_READY, reason=str(error))
        except OSError as error:
            return left_for(self.name, error)

    def pieces(self) -> Iterator[bytes]:
        """As `Arrival.pieces`."""
        try:
            with self._unchanged() as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
        except (_Changed, OSError) as error:
            raise SourceUnavailable(f"{self.name} cannot be taken now: {error}.") from error

    def remove(self) -> bool:
        """As `Arrival.remove`. Until it is gone, nobody on this machine can begin to write to it."""
        try:
            with self._opened() as file, _without_writers(file.fileno()):
                self._require_same(file)
                self._directory.unlink(self.file)
        except (_Changed, FileNotFoundError):
            return True
        except OSError:
            return False
        return True

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with os.fdopen(self._directory.open(self.file), "rb", buffering=0) as file:
            yield file

    @contextmanager
    def _unchanged(self) -> Iterator[BinaryIO]:
        """Raises _Changed at the end of the block unless the file was the one that was listed all the time."""
        with self._opened() as file:
            self._require_same(file)
            with _without_writers(file.fileno()):
                pass
            yield file
            self._require_same(file)

    def _require_same(self, file: BinaryIO) -> None:
        if _stamp(os.fstat(file.fileno())) != self.stamp:
            raise _Changed("it is being changed")


class _Changed(Exception):
    """The file is no longer, or may not stay, what was listed."""


def left_for(name: str, error: OSError) -> Left:
    """What an error of the system means for a file."""
    if isinstance(error, FileNotFoundError):
        return Left(name=name, why=Why.NOT_READY, reason="it is gone")
    return Left(name=name, why=Why.UNREADABLE, reason=error.strerror or type(error).__name__)


def _stamp(found: os.stat_result) -> str:
    """Size, times and number: the time of the last change of any kind cannot be set back by programs."""
    kind = "" if stat.S_ISREG(found.st_mode) else f"-{stat.S_IFMT(found.st_mode):o}"
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}{kind}"


@contextmanager
def _without_writers(descriptor: int) -> Iterator[None]:
    """Raises _Changed when a program on this machine has the file open for writing; others wait until the block ends.

    Linux grants such a lease to the owner of a file and to administrators; for others and elsewhere it is left out.
    """
    if sys.platform != "linux":
        yield
        return
    leased = False
    try:
        # Whoever wants to write sends a signal, which by default would end this process; this one is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        leased = True
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise _Changed("another program has it open for writing") from error
    try:
        yield
    finally:
        if leased:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
