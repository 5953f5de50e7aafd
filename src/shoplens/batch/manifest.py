"""Import the photos that a CSV manifest lists: a source whose files are never removed.

Each line names a photo by `path`, a file below the folder of the manifest, by `key`, an object in the bucket of the
channel's source, or by `url`, an address below one of the setting `url_prefixes`. The columns `item` or `product`,
`order`, `reason`, `customer` and `review` are optional. A line that cannot be used is reported with its number and does
not stop the import.
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from shoplens.batch.entities import References
from shoplens.batch.sidecars import SidecarError, read_csv, readable, references_from
from shoplens.batch.sources import (
    Candidate,
    LocalFile,
    LocalFolder,
    LocalSource,
    ObjectFile,
    SkippedFile,
    SkipReason,
    SourceFile,
)
from shoplens.batch.web_photos import WebPhotos
from shoplens.errors import BlobNotFound, SourceUnavailable
from shoplens.storage import ObjectPrefix

MAX_MANIFEST_BYTES: Final = 50_000_000
_PLACES: Final = ("path", "key", "url")
_COLUMNS: Final = (*_PLACES, "item", "product", "order", "reason", "customer", "review")
_LOOKUPS_AT_ONCE: Final = 8
_PAGE: Final = 64


class _BadLine(Exception):
    """The message is a clause that says why the line cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    number: int
    path: str | None
    key: str | None
    url: str | None
    references: References


class ManifestSource:
    """A manifest: a `Source` and its only `Folder`. Photos have no sidecars; their line describes them.

    `objects` is the bucket for keys, None if the channel's source is not one; `urls` fetches photos from the web, None
    if no addresses are allowed. `protected` are folders whose files are never imported. `quiet_s` and `now` are as for
    `LocalSource`.
    """

    keeps_files = True

    def __init__(
        self,
        manifest: Path,
        *,
        objects: ObjectPrefix | None,
        urls: WebPhotos | None = None,
        protected: Collection[Path] = (),
        quiet_s: float,
        now: Callable[[], float],
    ) -> None:
        self.place = readable(str(manifest))
        self._manifest = manifest
        self._objects = objects
        self._urls = urls
        self._protected = protected
        self._changed_ms = 0
        self._folder = LocalSource(manifest.absolute().parent, quiet_s=quiet_s, now=now)

    def folders(self) -> Iterator[ManifestSource]:
        """As `Source.folders`."""
        yield self

    def sidecars(self) -> Iterator[SourceFile | SkippedFile]:
        """None: the lines describe the photos."""
        yield from ()

    def present(self, names: Collection[str]) -> set[str]:
        """None: there are no lists whose photos could be waited for."""
        return set()

    def candidates(self) -> Iterator[Candidate | SkippedFile]:
        """The photos in the order of their lines. Raises SourceUnavailable if the manifest itself cannot be used."""
        lines = self._lines()
        root = self._folder.root()
        with ThreadPoolExecutor(_LOOKUPS_AT_ONCE, thread_name_prefix="manifest") as threads:
            while page := list(islice(lines, _PAGE)):
                yield from threads.map(lambda line: self._candidate(root, line), page)

    def _lines(self) -> Iterator[_Line | SkippedFile]:
        try:
            with os.fdopen(os.open(self._manifest, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise SidecarError("it is no regular file")
                self._changed_ms = max(0, found.st_mtime_ns // 1_000_000)
                data = file.read(MAX_MANIFEST_BYTES + 1)
            if len(data) > MAX_MANIFEST_BYTES:
                raise SidecarError(f"it has more than {MAX_MANIFEST_BYTES / 1e6:g} MB; split it")
            rows = read_csv(data)
            self._check_columns(rows.fieldnames or ())
        except OSError as error:
            raise SourceUnavailable(f"The manifest {self.place} cannot be read: {error.strerror}.") from error
        except SidecarError as error:
            raise SourceUnavailable(f"The manifest {self.place} cannot be used: {error}.") from error
        seen: dict[tuple[str | None, ...], int] = {}
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._skipped(rows.reader.line_num, error)
                continue
            # A quoted field may have line breaks; the number is that of the first line.
            number = rows.reader.line_num - sum(text.count("\n") for text in row.values() if isinstance(text, str))
            try:
                line = _parse(number, row)
                if (first := seen.setdefault((line.path, line.key, line.url), number)) != number:
                    raise _BadLine(f"the same photo is in line {first}")
                yield line
            except _BadLine as error:
                yield self._skipped(number, error)

    def _check_columns(self, columns: Collection[str]) -> None:
        unknown = [readable(column) or "(empty)" for column in columns if column not in _COLUMNS]
        if unknown:
            raise SidecarError(f"unknown columns {', '.join(unknown)}; the columns are {', '.join(_COLUMNS)}")
        if len(set(columns)) < len(columns) or {"item", "product"} <= set(columns):
            raise SidecarError("a column occurs twice; product is another name of item")
        if not set(_PLACES) & set(columns):
            raise SidecarError("it has none of the columns path, key and url")
        if "url" in columns and self._urls is None:
            raise SidecarError("addresses are not allowed; name their beginnings in the channel's batch.url_prefixes")
        if "key" in columns and self._objects is None:
            raise SidecarError("keys are objects of the channel's source, which is no bucket; use the column path")

    def _candidate(self, root: LocalFolder, line: _Line | SkippedFile) -> Candidate | SkippedFile:
        if isinstance(line, SkippedFile):
            return line
        photo: SourceFile | SkippedFile
        try:
            if line.url:
                photo = self._web(line.number, line.url)
            else:
                photo = self._object(line.key) if line.key else self._file(root, line.path or "")
        except _BadLine as error:
            return self._skipped(line.number, error)
        return photo if isinstance(photo, SkippedFile) else Candidate(photo=photo, references=line.references)

    def _web(self, number: int, url: str) -> SourceFile:
        assert self._urls is not None
        if fault := self._urls.fault(url):
            raise _BadLine(fault)
        return self._urls.file(
            url, label=f"{readable(self._manifest.name)}, line {number}", changed_ms=self._changed_ms
        )

    def _object(self, key: str) -> ObjectFile:
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise _BadLine(f"{readable(key)} is no plain key below the channel's source")
        assert self._objects is not None
        try:
            return ObjectFile(self._objects, self._objects.look(key))
        except BlobNotFound as error:
            raise _BadLine(f"there is no object {readable(key)}") from error

    def _file(self, root: LocalFolder, path: str) -> LocalFile | SkippedFile:
        """Opens folder by folder and follows no links, so nothing outside the manifest's folder can be reached."""
        shown = readable(path)
        *folders, name = path.split("/")
        if any(part in ("", ".", "..") for part in (*folders, name)):
            raise _BadLine(f"{shown} is no plain path below the folder of the manifest")
        target = self._manifest.parent.resolve() / path
        if any(target.is_relative_to(protected) for protected in self._protected):
            raise _BadLine(f"{shown} belongs to the data of Shoplens itself")
        folder = root
        try:
            for each in folders:
                folder = folder.folder(each)
            found = folder.file(name)
        except FileNotFoundError:
            found = None
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise _BadLine(f"{shown} cannot be opened: {detail}") from error
        if isinstance(found, SkippedFile) and found.reason is SkipReason.UNREADABLE:
            raise _BadLine(f"{shown} cannot be opened: {found.detail}")
        if found is None:
            raise _BadLine(f"there is no regular file {shown}; links are not followed")
        return found

    def _skipped(self, number: int, error: Exception) -> SkippedFile:
        return SkippedFile(
            name=f"{readable(self._manifest.name)}, line {number}", reason=SkipReason.UNREADABLE, detail=str(error)
        )


def _parse(number: int, row: Mapping[str | Any, str | Any]) -> _Line:
    """Raises _BadLine."""
    if None in row:
        raise _BadLine("it has more fields than the header has columns")
    path, key, url = ((row.get(column) or "").strip() or None for column in _PLACES)
    if sum(place is not None for place in (path, key, url)) != 1:
        raise _BadLine("it must have exactly one of a path, a key and a url")
    return _Line(number=number, path=path, key=key, url=url, references=references_from(row))
