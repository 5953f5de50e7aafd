"""Which of the files of an upload is what: the table of products, the one with categories, ZIP files, and photos."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Final, Protocol

from shoplens.catalogue.errors import ImportInvalid
from shoplens.catalogue.imports.photo_archives import SIGNATURES
from shoplens.catalogue.imports.rows import ProductTable
from shoplens.errors import SampleError
from shoplens.images.headers import sniff

MAX_BYTES: Final = 1_000_000_000
"""Of one upload: tables, ZIP files and photos together."""
MAX_FILES: Final = 300
_BEGINNING: Final = 4_096
_PIECE: Final = 1 << 20


class Uploaded(Protocol):
    """One file of a form."""

    @property
    def filename(self) -> str | None:
        """What the sender calls it."""
        ...

    @property
    def file(self) -> IO[bytes]:
        """Its content."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedTables:
    """The files of an import; `source` names them for people. `archives` are ZIP files with photos."""

    table: IO[bytes]
    codes: IO[bytes] | None
    archives: tuple[IO[bytes], ...]
    source: str


def sorted_files(files: Sequence[Uploaded], stack: ExitStack) -> UploadedTables:
    """The files by their content. Single photos become one ZIP file, which `stack` closes. Blocks.

    Of two tables the one with more columns has the products, the other one their categories (`Y` of the Rakuten
    challenge). Raises ImportInvalid without a table, and for more than two.
    """
    tables: list[Uploaded] = []
    archives: list[Uploaded] = []
    photos: list[Uploaded] = []
    for each in files:
        kind = _kind_of(each.file)
        (archives if kind == "zip" else photos if kind == "photo" else tables).append(each)
    if not tables:
        raise ImportInvalid("Send a CSV file with products; photos alone say nothing of them.")
    if len(tables) > 2:
        raise ImportInvalid(f"These are {len(tables)} tables. Send one with products, and one with categories at most.")
    if len(tables) == 2 and _width(tables[0]) < _width(tables[1]):
        tables.reverse()
    names = [each.filename or "upload" for each in (*tables, *archives)]
    if photos:
        names.append("1 photo" if len(photos) == 1 else f"{len(photos)} photos")
    packed = (_packed(photos, stack),) if photos else ()
    return UploadedTables(
        table=tables[0].file,
        codes=tables[1].file if len(tables) > 1 else None,
        archives=(*(each.file for each in archives), *packed),
        source=" + ".join(names),
    )


def _kind_of(file: IO[bytes]) -> str:
    file.seek(0)
    beginning = file.read(_BEGINNING)
    file.seek(0)
    if beginning.startswith(SIGNATURES):
        return "zip"
    if b"\0" not in beginning:  # a table whose first column is called "BM…" begins as a bitmap does
        return "table"
    try:
        sniff(beginning)
    except SampleError:
        return "table"
    return "photo"


def _width(table: Uploaded) -> int:
    width = len(ProductTable(table.file).columns)
    table.file.seek(0)
    return width


def _packed(photos: Sequence[Uploaded], stack: ExitStack) -> IO[bytes]:
    """The photos in one ZIP file, as they are."""
    packed: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    names: set[str] = set()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for each in photos:
            name = (each.filename or "photo").replace("\\", "/").rpartition("/")[2][:200] or "photo"
            if name in names:
                raise ImportInvalid(f"Two photos are called {name!r}. Rename one, or send a ZIP file with folders.")
            names.add(name)
            with archive.open(name, "w") as entry:
                while piece := each.file.read(_PIECE):
                    entry.write(piece)
    packed.seek(0)
    return packed
