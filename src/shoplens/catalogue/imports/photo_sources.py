"""Where the photos lie that an import names: a folder, the prefix of a bucket, or addresses that are allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

from shoplens.batch.sidecars import readable
from shoplens.batch.sources import FileSkipped, LocalFolder, LocalSource, SkippedFile, is_local, local_folder
from shoplens.batch.web_photos import WebPhotos
from shoplens.errors import BlobNotFound
from shoplens.predictions.errors import PhotoNotFetched
from shoplens.storage import ObjectPrefix, open_prefix

ADDRESSES: Final = ("https://", "http://")
"""How the name of a photo begins that is fetched from the web."""
_SUBFOLDERS: Final = ("", "images/", "image_train/")
"""Also where the photos of the Rakuten challenge lie, beside its tables."""


class PhotoNotFound(Exception):
    """The message is a sentence that says why a photo cannot be read."""


class PhotoReader(Protocol):
    """Where an import reads the photos that its rows name. Thread-safe."""

    def read(self, name: str) -> bytes:
        """The photo. Raises PhotoNotFound, and SourceUnavailable where none can be read."""
        ...

    def note(self, names: Iterable[str]) -> None:
        """A row names these photos, whether they are read or not."""
        ...

    def unnamed(self) -> list[str]:
        """The photos that were sent with the table and that no row names, in alphabetical order."""
        ...


class NamedPhotos:
    """Photos by a path below a folder, a key below a prefix, or an address. Thread-safe.

    `place` is the folder or prefix, None for none; `web` fetches addresses, None if none are allowed.
    """

    def __init__(self, place: str | None, *, web: WebPhotos | None, max_bytes: int) -> None:
        self._objects: ObjectPrefix | None = None
        self._folder: LocalSource | None = None
        self._root: LocalFolder | None = None
        if place is not None and is_local(place):
            self._folder = LocalSource(local_folder(place), quiet_s=0, now=_no_time)
        elif place is not None:
            self._objects = open_prefix(place)
        self._web = web
        self.max_bytes: Final = max_bytes
        """The largest photo."""

    def read(self, name: str) -> bytes:
        """The photo. Raises PhotoNotFound, and SourceUnavailable where the folder or bucket itself cannot be read."""
        if name.lower().startswith(ADDRESSES):
            return self._fetched(name)
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise PhotoNotFound(f"{readable(name)[:200]} is no plain path below the folder of the photos.")
        if self._objects is not None:
            return self._object(self._objects, name)
        if self._folder is None:
            raise PhotoNotFound(f"{readable(name)[:200]}: no folder or bucket of photos is set.")
        return self._file(self._folder, name)

    def note(self, names: Iterable[str]) -> None:
        """Nothing was sent."""

    def unnamed(self) -> list[str]:
        """A folder or bucket has photos of many tables."""
        return []

    def _fetched(self, url: str) -> bytes:
        if self._web is None:
            raise PhotoNotFound("Addresses are not allowed; name their beginnings in catalogue.url_prefixes.")
        try:
            return self._web.read(url)
        except PhotoNotFetched as error:
            raise PhotoNotFound(str(error)) from error

    def _object(self, objects: ObjectPrefix, name: str) -> bytes:
        try:
            found = objects.look(name)
            if found.byte_count > self.max_bytes:
                raise PhotoNotFound(f"{readable(name)[:200]} has more than {self.max_bytes / 1e6:g} MB.")
            return objects.get(name)[1]
        except BlobNotFound as error:
            raise PhotoNotFound(f"There is no object {readable(name)[:200]}.") from error

    def _file(self, source: LocalSource, name: str) -> bytes:
        root = self._root = self._root or source.root()
        for below in _SUBFOLDERS if "/" not in name else ("",):
            *folders, last = (below + name).split("/")
            folder = root
            try:
                for each in folders:
                    folder = folder.folder(each)
                found = folder.file(last)
            except (OSError, ValueError):
                continue
            if isinstance(found, SkippedFile):
                raise PhotoNotFound(f"{readable(name)[:200]}: {found.detail}.")
            if found is None:
                continue
            if found.byte_count > self.max_bytes:
                raise PhotoNotFound(f"{readable(name)[:200]} has more than {self.max_bytes / 1e6:g} MB.")
            try:
                return b"".join(found.chunks())
            except FileSkipped as error:
                raise PhotoNotFound(f"{readable(name)[:200]}: {error.skipped.detail}.") from error
        raise PhotoNotFound(f"There is no file {readable(name)[:200]}; links are not followed.")


def _no_time() -> float:
    """A file's age does not matter: what changes while it is read is refused in any case."""
    return float("inf")


OpenPhotos = Callable[[str | None], NamedPhotos]
"""Opens the photos of a place; None for that of the channel."""


def place_beside(table: Path) -> str:
    """The folder of a table, in which its photos lie unless another place is named."""
    return str(table.absolute().parent)
