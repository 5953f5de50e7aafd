"""The public datasets that the shipped models are trained on: authors, licences, and checksums to verify a copy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoplens.errors import NotFound
from shoplens.training.samples import lines_digest
from shoplens.training.sources import is_photo


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPart:
    """A folder or a file of a dataset. `sha256` is that of the file, or for a folder that of the lines
    "<sha256>  <path>", sorted by path, as `sha256sum` prints them.
    """

    name: str
    files: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicDataset:
    """A set of labelled pictures. `note` says how it differs from other releases."""

    name: str
    title: str
    author: str
    licence: str
    address: str
    layout: str
    note: str
    parts: tuple[DatasetPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCheck:
    """The result of verifying a local copy of one part; `fault` is None if it is identical."""

    part: str
    fault: str | None


PUBLIC_DATASETS: Final = (
    PublicDataset(
        name="clothing",
        title="clothing-dataset-small: photos of clothes that people took at home and in shops, 10 classes",
        author="Alexey Grigorev and the people who gave their photos",
        licence="CC0-1.0",
        address="https://github.com/alexeygrigorev/clothing-dataset-small",
        layout="train/<class>/*.jpg and validation/<class>/*.jpg",
        note="The original also has a part `test`, which was used neither to train nor to choose the shipped model.",
        parts=(
            DatasetPart(
                name="train",
                files=3_068,
                size_bytes=87_521_641,
                sha256="55203190bf807c000e0924162f8f9c072fdf1383ab43079daf132355b97a9512",
            ),
            DatasetPart(
                name="validation",
                files=341,
                size_bytes=10_051_660,
                sha256="5d06c712810a0be52116eea5848127b7ebe4326cbebcba3dac79e2cdea4a2078",
            ),
        ),
    ),
    PublicDataset(
        name="fashion-mnist",
        title="Fashion-MNIST: articles of clothing in grey, 28 x 28 pixels, 10 classes",
        author="Han Xiao, Kashif Rasul and Roland Vollgraf, Zalando Research",
        licence="MIT",
        address="https://github.com/zalandoresearch/fashion-mnist",
        layout="fashion-mnist.npz with the arrays Xtr, ytr, Xte and yte",
        note=(
            "This file is a balanced split of the first release, 59,990 pictures for training and 10,000 for testing, "
            "sorted by class, without ten training pictures that equal a test picture. It is not identical to "
            "the split that is published today, so figures on the two are close but not equal. An .npz made from the "
            "official files can be used for training as well; only its checksum differs."
        ),
        parts=(
            DatasetPart(
                name="fashion-mnist.npz",
                files=1,
                size_bytes=30_477_671,
                sha256="90fd54649b4917182925072937923edb966105d1b39edd4fb8a52b0f93af53fe",
            ),
        ),
    ),
)


def public_dataset(name: str) -> PublicDataset:
    """Raises NotFound with the known names."""
    for dataset in PUBLIC_DATASETS:
        if dataset.name == name:
            return dataset
    known = ", ".join(dataset.name for dataset in PUBLIC_DATASETS)
    raise NotFound(f"There is no dataset {name!r}. Known datasets: {known}.")


def verify_copy(dataset: PublicDataset, place: Path) -> Iterator[PartCheck]:
    """One result per part of the copy at `place`: the folder that holds the parts, or the only file itself."""
    for part in dataset.parts:
        path = place if place.is_file() and len(dataset.parts) == 1 else place / part.name
        yield PartCheck(part=part.name, fault=_fault(part, path))


def _fault(part: DatasetPart, path: Path) -> str | None:
    if not path.exists():
        return f"{path} does not exist"
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    files = [file for file in files if is_photo(file.relative_to(path))]
    if len(files) != part.files:
        return f"it has {len(files):,} files, not {part.files:,}"
    size = sum(file.stat().st_size for file in files)
    if size != part.size_bytes:
        return f"it has {size:,} bytes, not {part.size_bytes:,}"
    lines = []
    for file in files:
        with file.open("rb") as stream:
            lines.append((file.relative_to(path).as_posix(), hashlib.file_digest(stream, "sha256").hexdigest()))
    found = lines[0][1] if path.is_file() else lines_digest(lines)
    return None if found == part.sha256 else f"its content differs: the checksum is {found}"
