"""Photos of an import in ZIP files: found by their names, read one at a time within bounds, never unpacked."""

from __future__ import annotations

import lzma
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import IO, Final

from shoplens.batch.sidecars import readable
from shoplens.catalogue.errors import ImportInvalid
from shoplens.catalogue.imports.photo_sources import ADDRESSES, NamedPhotos, PhotoNotFound

SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""How a ZIP file begins: with its first entry, or with its end where it has none."""
MOST_ENTRIES: Final = 200_000
_MOST_DIRECTORY_BYTES: Final = 24_000_000
"""Of the list of entries, which is read as a whole; so a small file cannot fill the memory with it."""
_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_LONGEST_COMMENT: Final = 65_535
_LONG_LOCATOR: Final = b"PK\x06\x07"
_LONG_LOCATOR_BYTES: Final = 20
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


class ArchivedPhotos:
    """Photos in `archives`, then those that `others` has: rows name them by a path in the archive or by the name of the
    file alone. Thread-safe. The files stay open and belong to the caller.

    Raises ImportInvalid for a file that is no ZIP file, or has too many entries.
    """

    def __init__(self, archives: Sequence[IO[bytes]], *, others: NamedPhotos, max_bytes: int) -> None:
        self._others = others
        self._max_bytes = max_bytes
        self._by_path: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self._by_name: dict[str, list[str]] = {}
        self._unnamed: dict[str, str] = {}
        for file in archives:
            archive = _opened(file)
            for entry in archive.infolist():
                path = _folded(entry.filename)
                if entry.is_dir() or path in self._by_path:
                    continue
                self._by_path[path] = archive, entry
                self._by_name.setdefault(path.rpartition("/")[2], []).append(path)
                if not _is_of_the_system(path):
                    self._unnamed[path] = entry.filename
            if len(self._by_path) > MOST_ENTRIES:
                raise ImportInvalid(f"The ZIP files have more than {MOST_ENTRIES:,} photos. Import them in parts.")

    def read(self, name: str) -> bytes:
        """The photo. Raises PhotoNotFound, and SourceUnavailable as `NamedPhotos.read`."""
        if name.lower().startswith(ADDRESSES):
            return self._others.read(name)
        found = self._found(name)
        if found is None:
            try:
                return self._others.read(name)
            except PhotoNotFound as error:
                raise PhotoNotFound(f"No uploaded photo is called {readable(name)[:200]}.") from error
        archive, entry = found
        shown = readable(name)[:200]
        too_large = f"{shown} has more than {self._max_bytes / 1e6:g} MB."
        if entry.file_size > self._max_bytes:
            raise PhotoNotFound(too_large)
        if entry.flag_bits & 1:
            raise PhotoNotFound(f"{shown} is encrypted in the ZIP file.")
        try:
            with archive.open(entry) as packed:
                data = packed.read(self._max_bytes + 1)  # whatever the entry says of its size
        except (*_BROKEN, NotImplementedError) as error:
            raise PhotoNotFound(f"{shown} is damaged in the ZIP file: {str(error)[:100]}.") from error
        if len(data) > self._max_bytes:
            raise PhotoNotFound(too_large)
        return data

    def note(self, names: Iterable[str]) -> None:
        """A row names these photos. Call it from one thread."""
        for name in names:
            if name.lower().startswith(ADDRESSES):
                continue
            path = _folded(name)
            same = [path] if path in self._by_path else self._by_name.get(path.rpartition("/")[2], [])
            for each in same:
                self._unnamed.pop(each, None)

    def unnamed(self) -> list[str]:
        """The paths in the archives that no row names, without what systems add to archives."""
        return sorted(self._unnamed.values())

    def _found(self, name: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo] | None:
        path = _folded(name)
        if path in self._by_path:
            return self._by_path[path]
        same = self._by_name.get(path.rpartition("/")[2], [])
        if len(same) > 1:
            raise PhotoNotFound(f"{len(same)} uploaded photos are called {readable(name)[:200]}. Name their folders.")
        return self._by_path[same[0]] if same else None


def _is_of_the_system(path: str) -> bool:
    """What macOS and Windows put beside the photos."""
    folder, _, name = path.rpartition("/")
    return name.startswith(".") or name == "thumbs.db" or folder.partition("/")[0] == "__macosx"


def _folded(name: str) -> str:
    """Names that people take for the same are the same: shops list IMG_1.JPG and send img_1.jpg."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").strip("/ ")).casefold()


def _opened(file: IO[bytes]) -> zipfile.ZipFile:
    if (size := _directory_bytes(file)) is None:
        raise ImportInvalid("The file with the photos is no ZIP file, or it is not complete. Pack it again.")
    if size > _MOST_DIRECTORY_BYTES:
        raise ImportInvalid(f"A ZIP file has more than {MOST_ENTRIES:,} entries. Import the photos in parts.")
    try:
        return zipfile.ZipFile(file)
    except (*_BROKEN, NotImplementedError) as error:
        raise ImportInvalid(f"The ZIP file with the photos cannot be read: {str(error)[:100]}.") from error


def _directory_bytes(file: IO[bytes]) -> int | None:
    """How long the list of entries is, as the end of the file says; None without such an end (APPNOTE.TXT 4.3)."""
    total = file.seek(0, 2)
    tail_at = file.seek(max(0, total - _END_BYTES - _LONGEST_COMMENT - _LONG_LOCATOR_BYTES))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + _END_BYTES > len(tail):
        return None
    (size,) = struct.unpack_from("<L", tail, at + 12)
    locator = at - _LONG_LOCATOR_BYTES
    if locator >= 0 and tail.startswith(_LONG_LOCATOR, locator):
        (where,) = struct.unpack_from("<Q", tail, locator + 8)
        if not where + 56 <= tail_at + locator:
            return None
        file.seek(where)
        (size,) = struct.unpack_from("<Q", file.read(56), 40)
    return int(size)
