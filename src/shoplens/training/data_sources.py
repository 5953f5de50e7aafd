"""The public data that our trained models are made from: who made it, under which terms, how a copy is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoplens.errors import NotFound
from shoplens.training.listing import is_photo
from shoplens.training.samples import lines_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPart:
    """A folder or a file of the data. Of a file `sha256` is its own; of a folder that of the lines "<sha256>  <path>",
    sorted by path, which is what `sha256sum` prints.
    """

    name: str
    files: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One set of labelled pictures. `note` says what people would otherwise assume wrongly."""

    name: str
    title: str
    author: str
    licence: str
    address: str
    layout: str
    note: str
    parts: tuple[DataPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a local copy of one part is like; `fault` is None where it is the same byte for byte."""

    part: str
    fault: str | None


SOURCES: Final = (
    DataSource(
        name="clothing",
        title="clothing-dataset-small: photos of clothes that people took at home and in shops, 10 classes",
        author="Alexey Grigorev and the people who gave their photos",
        licence="CC0-1.0",
        address="https://github.com/alexeygrigorev/clothing-dataset-small",
        layout="train/<class>/*.jpg and validation/<class>/*.jpg",
        note="The original also has a part `test`. It is not listed, because nothing here was trained or chosen by it.",
        parts=(
            DataPart(
                name="train",
                files=3_068,
                size_bytes=87_521_641,
                sha256="55203190bf807c000e0924162f8f9c072fdf1383ab43079daf132355b97a9512",
            ),
            DataPart(
                name="validation",
                files=341,
                size_bytes=10_051_660,
                sha256="5d06c712810a0be52116eea5848127b7ebe4326cbebcba3dac79e2cdea4a2078",
            ),
        ),
    ),
    DataSource(
        name="fashion-mnist",
        title="Fashion-MNIST: articles of clothing in grey, 28 x 28 pixels, 10 classes",
        author="Han Xiao, Kashif Rasul and Roland Vollgraf, Zalando Research",
        licence="MIT",
        address="https://github.com/zalandoresearch/fashion-mnist",
        layout="fashion-mnist.npz with the arrays Xtr, ytr, Xte and yte",
        note=(
            "This file is a balanced split of the first release, 59,990 pictures for training and 10,000 for testing, "
            "sorted by class; ten training pictures that equal a test picture were left out. It is not byte for byte "
            "the split that is offered today, so figures on both are close and not the same. Any .npz made of the "
            "official files trains just as well; only its checksum differs."
        ),
        parts=(
            DataPart(
                name="fashion-mnist.npz",
                files=1,
                size_bytes=30_477_671,
                sha256="90fd54649b4917182925072937923edb966105d1b39edd4fb8a52b0f93af53fe",
            ),
        ),
    ),
)


def source_named(name: str) -> DataSource:
    """Raises NotFound with the known names."""
    for source in SOURCES:
        if source.name == name:
            return source
    raise NotFound(f"There is no data source {name!r}; there are: {', '.join(each.name for each in SOURCES)}.")


def verify_copy(source: DataSource, place: Path, *, on_file: Callable[[], None] = lambda: None) -> Iterator[Verdict]:
    """One verdict per part of the copy at `place`: the folder that holds the parts, or the only file itself."""
    for part in source.parts:
        path = place if place.is_file() and len(source.parts) == 1 else place / part.name
        yield Verdict(part=part.name, fault=_fault(part, path, on_file))


def _fault(part: DataPart, path: Path, on_file: Callable[[], None]) -> str | None:
    if not path.exists():
        return f"{path} is not there"
    files = [path] if path.is_file() else _files(path)
    if len(files) != part.files:
        return f"there are {len(files):,} files, not {part.files:,}"
    size = sum(file.stat().st_size for file in files)
    if size != part.size_bytes:
        return f"there are {size:,} bytes, not {part.size_bytes:,}"
    lines = [(file.relative_to(path).as_posix(), _sha256(file, on_file)) for file in files]
    found = lines[0][1] if path.is_file() else lines_digest(lines)
    return None if found == part.sha256 else f"the content differs: its checksum is {found}"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and is_photo(path.relative_to(folder))]


def _sha256(file: Path, on_file: Callable[[], None]) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    on_file()
    return digest
