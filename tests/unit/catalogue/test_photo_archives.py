"""Photos in ZIP files: found by their names, and bounded, whatever the file says of itself."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from shoplens.catalogue.errors import ImportInvalid
from shoplens.catalogue.imports.photo_archives import ArchivedPhotos
from shoplens.catalogue.imports.photo_sources import NamedPhotos, PhotoNotFound
from shoplens.catalogue.imports.uploaded_tables import sorted_files
from tests.unit.catalogue.products import jpeg_of


def packed(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    """A ZIP file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file


def opened(*archives: IO[bytes], place: Path | None = None, max_bytes: int = 10_000) -> ArchivedPhotos:
    """The photos in them, and in a folder."""
    others = NamedPhotos(None if place is None else str(place), web=None, max_bytes=max_bytes)
    return ArchivedPhotos(archives, others=others, max_bytes=max_bytes)


def test_photos_are_found_by_path_or_file_name_and_else_in_the_folder(tmp_path: Path) -> None:
    """In either case of letters, with either slash; the same name in two folders needs the folder."""
    (tmp_path / "there.jpg").write_bytes(b"folder")
    photos = opened(
        packed(("shirts/Red.JPG", b"red"), ("a/front.jpg", b"a"), ("b/front.jpg", b"b"), ("empty/", b"")),
        packed(("image_7_product_9.jpg", b"challenge")),
        place=tmp_path,
    )
    for name, data in {
        "red.jpg": b"red", "shirts/red.jpg": b"red", "Shirts\\RED.jpg": b"red", "elsewhere/red.jpg": b"red",
        "b/front.jpg": b"b", "image_7_product_9.jpg": b"challenge", "there.jpg": b"folder",
    }.items():  # fmt: skip
        assert data == photos.read(name), name
    for name, words in {
        "front.jpg": "2 uploaded photos are called front.jpg", "none.jpg": "No uploaded photo is called none.jpg",
        "empty/": "No uploaded photo", "../../etc/passwd": "No uploaded photo", "https://x.org/a.jpg": "not allowed",
    }.items():  # fmt: skip
        with pytest.raises(PhotoNotFound, match=words):
            photos.read(name)


def test_what_no_row_names_is_listed_without_what_systems_add(tmp_path: Path) -> None:
    """A name is noted as it is looked up: in either case, with or without its folder, also where two have it."""
    photos = opened(
        packed(
            ("a/Front.jpg", b""), ("b/front.jpg", b""), ("shirts/Red.JPG", b""), ("Left over.jpg", b""),
            ("empty/", b""), ("__MACOSX/a/._Front.jpg", b""), (".DS_Store", b""), ("a/Thumbs.db", b""),
        ),
        packed(("z.jpg", b"")),
    )  # fmt: skip
    assert ["Left over.jpg", "a/Front.jpg", "b/front.jpg", "shirts/Red.JPG", "z.jpg"] == photos.unnamed()
    photos.note(["SHIRTS\\red.jpg", "front.jpg", "https://x.org/z.jpg", "none.jpg"])
    assert ["Left over.jpg", "z.jpg"] == photos.unnamed()


def test_an_entry_that_unpacks_to_more_than_a_photo_is_not_unpacked() -> None:
    """Also where it says that it is small; an archive inside an archive is only a file."""
    bomb = packed(("bomb.jpg", bytes(50_000_000)), ("nested.zip", packed(("a", bytes(5_000))).getvalue()))
    assert len(bomb.getvalue()) < 60_000
    with pytest.raises(PhotoNotFound, match=r"more than 0\.01 MB"):
        opened(bomb).read("bomb.jpg")
    data = bytearray(bomb.getvalue())
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 100)  # the size that the list of entries names
    with pytest.raises(PhotoNotFound, match=r"damaged|more than"):
        opened(io.BytesIO(bytes(data))).read("bomb.jpg")


def test_damaged_encrypted_and_strange_entries_are_faults_of_their_own() -> None:
    """The others can be read."""
    data = bytearray(packed(("bad.jpg", b"x" * 500), ("good.jpg", b"good"), compression=zipfile.ZIP_STORED).getvalue())
    data[60] ^= 0xFF
    photos = opened(io.BytesIO(bytes(data)))
    with pytest.raises(PhotoNotFound, match="damaged in the ZIP file"):
        photos.read("bad.jpg")
    assert b"good" == photos.read("good.jpg")
    for offset, value, words in ((8, 1, "encrypted"), (10, 99, "damaged")):
        data = bytearray(packed(("a.jpg", b"a")).getvalue())
        data[data.find(b"PK\x01\x02") + offset] = value
        with pytest.raises(PhotoNotFound, match=words):
            opened(io.BytesIO(bytes(data))).read("a.jpg")


@pytest.mark.parametrize("size", [60_000_000, 0xFFFFFFFE])
def test_a_list_of_entries_that_would_fill_the_memory_is_not_read(size: int) -> None:
    """By what the end of the file says of its length."""
    data = bytearray(packed(("a.jpg", b"a")).getvalue())
    struct.pack_into("<L", data, data.rfind(b"PK\x05\x06") + 12, size)
    with pytest.raises(ImportInvalid, match="in parts"):
        opened(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no archive", b"PK\x05\x06" + bytes(30)])
def test_what_is_no_zip_file_is_refused(data: bytes) -> None:
    """Also one that was cut off."""
    if data.startswith(b"PK\x05\x06"):
        assert not opened(io.BytesIO(data[:22]))._by_path
    with pytest.raises(ImportInvalid):
        opened(io.BytesIO(data[:20]))


@dataclass(frozen=True)
class File:
    """A file of a form."""

    filename: str | None
    file: IO[bytes]


def test_files_of_an_upload_are_told_by_their_content() -> None:
    """Whatever they are called: two tables by their columns, ZIP files, and photos, which become one."""
    x, y = b",designation,description,productid,imageid\n", b"BM,prdtypecode\n"
    files = [
        File("y.jpg", io.BytesIO(y)), File("x.csv", io.BytesIO(x)), File("p.csv", packed(("a.jpg", b"a"))),
        File("folder\\b.jpg", io.BytesIO(jpeg_of(8, 8))),
    ]  # fmt: skip
    with ExitStack() as stack:
        found = sorted_files(files, stack)
        assert found.codes is not None
        assert (x, y, 2) == (found.table.read(), found.codes.read(), len(found.archives))
        assert "x.csv + y.jpg + p.csv + 1 photo" == found.source
        photos = opened(*found.archives)
        assert (b"a", jpeg_of(8, 8)) == (photos.read("a.jpg"), photos.read("b.jpg"))
        for wrong, words in (
            (files[2:], "photos alone"), ([*files[:2], File("z", io.BytesIO(y))], "3 tables"),
            ([*files, files[3]], "Two photos are called 'b.jpg'"),
        ):  # fmt: skip
            with pytest.raises(ImportInvalid, match=words):
                sorted_files(wrong, stack)
