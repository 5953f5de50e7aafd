"""Read small pictures from a NumPy archive (.npz): a file in, checked arrays out."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.errors import DatasetInvalid

MAX_BYTES: Final = 4_000_000_000
MAX_SIDE: Final = 512
MAX_CLASSES: Final = 10_000
_NAMES: Final = {
    "train": (("x_train", "y_train"), ("Xtr", "ytr")),
    "test": (("x_test", "y_test"), ("Xte", "yte")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """`pictures` is (n, height, width) or (n, height, width, 3) uint8; `labels` is (n,) int64, from 0."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What a file holds: one part for training, perhaps one for testing, perhaps the names of the classes."""

    train: Arrays
    test: Arrays | None
    names: tuple[str, ...] | None


def read_archive(file: Path) -> Archive:
    """Raises DatasetInvalid with what is wrong; nothing in the file is ever executed."""
    try:
        _refuse_huge(file)
        with np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files if name == "labels" or name in _known()}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise DatasetInvalid(f"{file.name} cannot be read as a NumPy archive: {error}") from error
    train, test = (_part(arrays, part, file.name) for part in ("train", "test"))
    if train is None:
        raise DatasetInvalid(f"{file.name} must hold the arrays x_train and y_train (or Xtr and ytr).")
    return Archive(train=train, test=test, names=_names(arrays.get("labels"), file.name))


def _known() -> set[str]:
    return {name for pairs in _NAMES.values() for pair in pairs for name in pair}


def _refuse_huge(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
    if total > MAX_BYTES:
        raise DatasetInvalid(
            f"{file.name} unpacks to {total / 1e9:.1f} GB, more than the {MAX_BYTES / 1e9:g} GB allowed."
        )


def _part(arrays: Mapping[str, NDArray[Any]], part: str, file: str) -> Arrays | None:
    for x, y in _NAMES[part]:
        if x in arrays and y in arrays:
            return _checked(arrays[x], arrays[y], f"{file}: {x} and {y}")
    return None


def _checked(pictures: NDArray[Any], labels: NDArray[Any], where: str) -> Arrays:
    """The arrays as they are used. Raises DatasetInvalid for another type or shape."""
    colour = pictures.ndim == 4 and pictures.shape[3] == 3
    if pictures.dtype != np.uint8 or not (pictures.ndim == 3 or colour):
        raise DatasetInvalid(
            f"{where}: pictures must be uint8 of the shape (n, height, width) or (n, height, width, 3), not "
            f"{pictures.dtype} of the shape {pictures.shape}."
        )
    if not all(1 <= side <= MAX_SIDE for side in pictures.shape[1:3]):
        raise DatasetInvalid(f"{where}: pictures must have sides of 1 to {MAX_SIDE} pixels, not {pictures.shape[1:3]}.")
    flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.shape != (len(pictures),) or not np.issubdtype(flat.dtype, np.integer):
        raise DatasetInvalid(f"{where}: there must be one whole number per picture, not {labels.dtype} {labels.shape}.")
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < MAX_CLASSES:
        raise DatasetInvalid(f"{where}: class numbers must lie between 0 and {MAX_CLASSES - 1}.")
    return Arrays(pictures=np.ascontiguousarray(pictures), labels=flat.astype(np.int64))


def _names(array: NDArray[Any] | None, file: str) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.ndim != 1 or array.dtype.kind != "U":
        raise DatasetInvalid(f"{file}: the array `labels` must be a list of names, not {array.dtype} {array.shape}.")
    return tuple(str(name) for name in array)
