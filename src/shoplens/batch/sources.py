"""Where photos are imported from: a folder or the prefix of a bucket.

A source offers files one after the other. It never offers a file that is hidden or half written, and never reads or
removes a file that changed after it was listed. `batch/manifest.py` has a third source, a CSV file with paths or keys.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shoplens.batch.entities import References
from shoplens.batch.sidecars import is_ignored, is_photo_name, is_sidecar, readable
from shoplens.errors import BlobNotFound, SourceUnavailable
from shoplens.storage import ForeignObject, ObjectPrefix

NO_REFERENCES: Final = References()
_CHUNK_BYTES: Final = 1 << 20
_MOST_AT_ONCE_BYTES: Final = 8 << 20
_MAX_DEPTH: Final = 40


class SkipReason(StrEnum):
    """Why a file is not imported now."""

    NOT_READY = "not_ready"
    """It was changed a moment ago, is open for writing, changed while it was read, or was deleted. Try again later."""
    UNREADABLE = "unreadable"
    """This user is not allowed to read it, or a line of a manifest cannot be used. An operator has to fix it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A file that stays in the source. `detail` is a clause for people."""

    name: str
    reason: SkipReason
    detail: str


class FileSkipped(Exception):
    """Raised while a file is read: it cannot be imported now."""

    def __init__(self, name: str, reason: SkipReason, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.skipped = SkippedFile(name=name, reason=reason, detail=detail)


class SourceFile(Protocol):
    """One file as it was when it was listed. `name` is its readable path in the source, with slashes.

    `stamp` changes whenever the file changes. `changed_ms` is the time of the last change since 1970.
    """

    name: str
    byte_count: int
    changed_ms: int
    stamp: str

    def chunks(self) -> Iterator[bytes]:
        """The whole content. Raises FileSkipped, at the latest at the end, if the file changed or cannot be read."""
        ...

    def remove(self) -> bool:
        """Remove the file unless it changed. False if the source does not allow it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that may be imported, with its sidecar. `references` come from the source itself."""

    photo: SourceFile
    sidecar: SourceFile | None = None
    references: References = NO_REFERENCES


class Folder(Protocol):
    """Files that lie together: a list in a folder describes the photos of that folder."""

    def candidates(self) -> Iterator[Candidate | SkippedFile]:
        """Every regular file that is neither hidden nor a sidecar or list."""
        ...

    def sidecars(self) -> Iterator[SourceFile | SkippedFile]:
        """The JSON and CSV files."""
        ...

    def present(self, names: Collection[str]) -> set[str]:
        """Those of these files that are there now."""
        ...


class Source(Protocol):
    """A place to import from. `keeps_files`: its files are never removed.

    All methods raise SourceUnavailable if the place as a whole cannot be read.
    """

    place: str
    keeps_files: bool

    def folders(self) -> Iterator[Folder | SkippedFile]:
        """Every folder at any depth; one that cannot be read is skipped."""
        ...


def is_local(url: str) -> bool:
    """Whether a path or URL names a file or folder of this machine."""
    return urlsplit(url).scheme in ("", "file")


def local_folder(url: str) -> Path:
    """The path that a path or a `file://` URL names. Raises SourceUnavailable for one on another machine."""
    if not url.startswith("file:"):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise SourceUnavailable(f"{url} names another machine; a folder of this one is written file:///path.")
    return Path(url2pathname(parts.path))


# A folder of this machine


class LocalSource:
    """A folder with its sub-folders. A file must be unchanged for `quiet_s`; `now` is in seconds since 1970."""

    keeps_files = False

    def __init__(self, root: Path, *, quiet_s: float, now: Callable[[], float]) -> None:
        self.place = readable(str(root))
        self._root = root
        self._quiet_s = quiet_s
        self._now = now

    def folders(self) -> Iterator[LocalFolder | SkippedFile]:
        """As `Source.folders`."""
        root = self.root()
        yield root
        pending = [(root, name, 1) for name in root.folder_names()]
        while pending:
            above, name, depth = pending.pop()
            try:
                folder = above.folder(name)
            except OSError as error:
                yield _skipped_for(f"{above.path}{readable(name)}/", error)
                continue
            yield folder
            if depth < _MAX_DEPTH:
                pending += [(folder, below, depth + 1) for below in folder.folder_names()]

    def root(self) -> LocalFolder:
        """The folder itself, which may be a link. Raises SourceUnavailable if it is missing or not readable."""
        try:
            folder = LocalFolder(os.open(self._root, _FOLDER), path="", quiet_s=self._quiet_s, now=self._now)
            next(folder.entries(), None)
        except FileNotFoundError as error:
            raise SourceUnavailable(f"There is no folder {self.place}. Create it, or name another one.") from error
        except NotADirectoryError as error:
            raise SourceUnavailable(f"{self.place} is a file; photos are imported from a folder.") from error
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise SourceUnavailable(f"The folder {self.place} cannot be read: {detail}.") from error
        return folder


_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe that replaced the file would block.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LocalFolder:
    """A `Folder` that is held open by `descriptor`. `path` is empty or ends with a slash.

    Files are opened relative to the descriptor and never through links. Otherwise a user who may write to the source
    could replace a sub-folder by a link and have other files of this machine imported and removed.
    """

    def __init__(self, descriptor: int, *, path: str, quiet_s: float, now: Callable[[], float]) -> None:
        self.descriptor: Final = descriptor
        self.path: Final = path
        self._quiet_s = quiet_s
        self._now = now

    def __del__(self) -> None:
        os.close(self.descriptor)

    def folder(self, name: str) -> LocalFolder:
        """A sub-folder. Raises OSError, also if it is a link."""
        descriptor = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        return LocalFolder(descriptor, path=f"{self.path}{readable(name)}/", quiet_s=self._quiet_s, now=self._now)

    def folder_names(self) -> list[str]:
        """The names of the sub-folders."""
        return [entry.name for entry in self._entries() if isinstance(entry, os.DirEntry) and _is_folder(entry)]

    def candidates(self) -> Iterator[Candidate | SkippedFile]:
        """As `Folder.candidates`."""
        for photo in self._files(sidecars=False):
            if isinstance(photo, SkippedFile):
                yield photo
                continue
            sidecar = self.file(f"{photo.file}.json") if is_photo_name(photo.file) else None
            if isinstance(sidecar, SkippedFile):
                yield SkippedFile(name=photo.name, reason=sidecar.reason, detail="its sidecar is not ready")
            else:
                yield Candidate(photo=photo, sidecar=sidecar)

    def sidecars(self) -> Iterator[SourceFile | SkippedFile]:
        """As `Folder.sidecars`."""
        return self._files(sidecars=True)

    def present(self, names: Collection[str]) -> set[str]:
        """As `Folder.present`."""

        def is_present(file: str) -> bool:
            try:
                os.stat(file, dir_fd=self.descriptor, follow_symlinks=False)
            except (OSError, ValueError):
                return False
            return True

        return {name for name in names if is_present(name.rsplit("/", 1)[-1])}

    def file(self, file: str) -> LocalFile | SkippedFile | None:
        """A file of this folder by its name; None if there is no regular file. Raises ValueError for a NUL byte."""
        name = readable(self.path + file)
        try:
            found = os.stat(file, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            return _skipped_for(name, error)
        if not stat.S_ISREG(found.st_mode):
            return None
        # A time in the future, which copied files may have, is ignored: the time of copying counts.
        now = self._now()
        changed = found.st_mtime if found.st_mtime <= now else found.st_ctime
        if now - changed < self._quiet_s:
            return SkippedFile(name=name, reason=SkipReason.NOT_READY, detail="it was changed a moment ago")
        return LocalFile(self, file, name, found)

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """Everything in the folder. Raises OSError."""
        with os.scandir(self.descriptor) as found:
            yield from found

    def _entries(self) -> Iterator[os.DirEntry[str] | SkippedFile]:
        try:
            yield from (entry for entry in self.entries() if not is_ignored(entry.name))
        except OSError as error:
            if not self.path:
                raise SourceUnavailable(f"The source can no longer be read: {error.strerror}.") from error
            yield _skipped_for(self.path, error)

    def _files(self, *, sidecars: bool) -> Iterator[LocalFile | SkippedFile]:
        for entry in self._entries():
            if isinstance(entry, SkippedFile):
                yield entry
            elif is_sidecar(entry.name) is not sidecars:
                continue
            elif found := self.file(entry.name):
                yield found
            elif kind := _special_kind(entry):
                detail = f"it is a {kind}; only regular files are imported"
                name = readable(self.path + entry.name)
                yield SkippedFile(name=name, reason=SkipReason.UNREADABLE, detail=detail)


class LocalFile:
    """A `SourceFile`. `file` is its name in `folder`."""

    __slots__ = ("_folder", "byte_count", "changed_ms", "file", "name", "stamp")

    def __init__(self, folder: LocalFolder, file: str, name: str, found: os.stat_result) -> None:
        self._folder = folder
        self.file = file
        self.name = name
        self.byte_count = found.st_size
        self.changed_ms = max(0, found.st_ctime_ns // 1_000_000)
        self.stamp = _stamp(found)

    def chunks(self) -> Iterator[bytes]:
        """As `SourceFile.chunks`."""
        try:
            with self._open() as file:
                self._require_unchanged(file)
                remaining = self.byte_count
                while remaining and (chunk := file.read(min(remaining, _CHUNK_BYTES))):
                    remaining -= len(chunk)
                    yield chunk
                self._require_unchanged(file)
        except OSError as error:
            skipped = _skipped_for(self.name, error)
            raise FileSkipped(skipped.name, skipped.reason, skipped.detail) from error

    def remove(self) -> bool:
        """As `SourceFile.remove`."""
        try:
            with self._open() as file:
                self._require_unchanged(file)
                os.unlink(self.file, dir_fd=self._folder.descriptor)
        except (FileSkipped, FileNotFoundError):
            return True
        except OSError:
            return False
        return True

    def _open(self) -> BinaryIO:
        return os.fdopen(os.open(self.file, _FILE, dir_fd=self._folder.descriptor), "rb", buffering=0)

    def _require_unchanged(self, file: BinaryIO) -> None:
        if _stamp(os.fstat(file.fileno())) != self.stamp:
            raise FileSkipped(self.name, SkipReason.NOT_READY, "it is being changed")
        if _is_open_for_writing(file.fileno()):
            raise FileSkipped(self.name, SkipReason.NOT_READY, "another program has it open for writing")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _special_kind(entry: os.DirEntry[str]) -> str | None:
    """What it is, if it is neither a regular file nor a folder nor gone."""
    with suppress(OSError):
        mode = entry.stat(follow_symlinks=False).st_mode
        return next((kind for is_kind, kind in _SPECIAL_KINDS if is_kind(mode)), None)
    return None


_SPECIAL_KINDS: Final = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def _skipped_for(name: str, error: OSError) -> SkippedFile:
    if isinstance(error, FileNotFoundError):
        return SkippedFile(name=name, reason=SkipReason.NOT_READY, detail="it was deleted")
    return SkippedFile(name=name, reason=SkipReason.UNREADABLE, detail=error.strerror or type(error).__name__)


def _stamp(found: os.stat_result) -> str:
    """Size, times, inode. Programs can set the modification time back, but not the time of the last status change."""
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"


def _is_open_for_writing(descriptor: int) -> bool:
    """Whether a program on this machine has the file open for writing.

    Linux refuses a read lease on such a file. It grants leases only to the owner of a file and to root; for other
    users, on network folders and on other systems the answer is False, and only the quiet time protects.
    """
    if sys.platform != "linux":
        return False
    try:
        # The signal for a lease that is broken would end this process by default; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    return False


# The prefix of a bucket


class ObjectSource:
    """The objects below a prefix, as one folder: a `Source` and its `Folder`. An object is never half written."""

    keeps_files = False

    def __init__(self, objects: ObjectPrefix) -> None:
        self.place = objects.place
        self._objects = objects

    def folders(self) -> Iterator[ObjectSource | SkippedFile]:
        """As `Source.folders`."""
        yield self

    def candidates(self) -> Iterator[Candidate | SkippedFile]:
        """As `Folder.candidates`. Only the names of sidecars are kept in memory."""
        sidecars = {found.name: found for found in self._list() if is_sidecar(found.name)}
        for found in self._list():
            if not is_sidecar(found.name):
                sidecar = sidecars.get(f"{found.name}.json") if is_photo_name(found.name) else None
                yield Candidate(
                    photo=ObjectFile(self._objects, found),
                    sidecar=ObjectFile(self._objects, sidecar) if sidecar else None,
                )

    def sidecars(self) -> Iterator[SourceFile | SkippedFile]:
        """As `Folder.sidecars`."""
        for found in self._list():
            if is_sidecar(found.name):
                yield ObjectFile(self._objects, found)

    def present(self, names: Collection[str]) -> set[str]:
        """As `Folder.present`."""
        wanted = set(names)
        return {name for found in self._list() if (name := readable(found.name)) in wanted}

    def _list(self) -> Iterator[ForeignObject]:
        for found in self._objects.list():
            # The consoles of object stores create an empty object for a folder.
            is_folder = found.byte_count == 0 and "." not in found.name.rsplit("/", 1)[-1]
            if not (is_folder or any(map(is_ignored, found.name.split("/")))):
                yield found


class ObjectFile:
    """A `SourceFile`."""

    __slots__ = ("_found", "_objects", "byte_count", "changed_ms", "name", "stamp")

    def __init__(self, objects: ObjectPrefix, found: ForeignObject) -> None:
        self.name = readable(found.name)
        self.byte_count = found.byte_count
        self.changed_ms = max(0, int(found.modified_at.timestamp() * 1000))
        self.stamp = found.version
        self._objects = objects
        self._found = found

    def chunks(self) -> Iterator[bytes]:
        """As `SourceFile.chunks`."""
        try:
            if self.byte_count <= _MOST_AT_ONCE_BYTES:
                now, data = self._objects.get(self._found.name)
                yield data
            else:
                yield from self._objects.pieces(self._found.name)
                now = self._objects.look(self._found.name)
        except BlobNotFound as error:
            raise FileSkipped(self.name, SkipReason.NOT_READY, "it was deleted") from error
        except SourceUnavailable as error:
            if not self._is_changed():
                raise
            raise FileSkipped(self.name, SkipReason.NOT_READY, "it is being changed") from error
        if now.version != self.stamp:
            raise FileSkipped(self.name, SkipReason.NOT_READY, "it is being changed")

    def remove(self) -> bool:
        """As `SourceFile.remove`."""
        try:
            self._objects.delete_unchanged(self._found)
        except SourceUnavailable:
            return False
        return True

    def _is_changed(self) -> bool:
        """A large object is read in ranges, and the next range fails after a change."""
        try:
            return self._objects.look(self._found.name).version != self.stamp
        except BlobNotFound:
            return True
