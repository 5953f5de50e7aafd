"""The formats of labelled pictures: a folder per class, a CSV, or a NumPy archive (.npz) of small pictures."""

from __future__ import annotations

import csv
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.training.errors import DatasetInvalid

MAX_ARCHIVE_BYTES: Final = 4_000_000_000
MAX_SIDE: Final = 512
MAX_CLASSES: Final = 10_000
_MAX_LABEL: Final = 200
_SPLIT_NAMES: Final = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_SYSTEM_FILES: Final = frozenset({"thumbs.db", "desktop.ini"})
_ARRAYS: Final = {"train": (("x_train", "y_train"), ("Xtr", "ytr")), "test": (("x_test", "y_test"), ("Xte", "yte"))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A photo that a folder or a CSV lists. `name` is its path within the source, with slashes."""

    path: Path
    name: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """`pictures` is (n, height, width) or (n, height, width, 3) uint8; `labels` is (n,) int64, from 0."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The content of a NumPy archive; `test` and `names` (of the classes) are optional."""

    train: Arrays
    test: Arrays | None
    names: tuple[str, ...] | None


def list_folder(root: Path) -> list[Entry]:
    """Every file below the folders of `root`, whose names are the labels. Hidden files and folders are ignored.

    Raises DatasetInvalid if there are no folders, or if they are parts of a dataset (train, test) and not classes.
    """
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith((".", "__"))]
    except OSError as error:
        raise DatasetInvalid(f"{root} cannot be read: {error.strerror}.") from error
    if not folders:
        raise DatasetInvalid(f"{root} has no folders in it. Create one folder per class, named after its label.")
    names = [folder.name for folder in folders]
    if {name.lower() for name in names} <= _SPLIT_NAMES:
        first, *rest = sorted(names, key=lambda name: not name.lower().startswith("train"))
        options = [f" --{'test' if name.lower().startswith('test') else 'validation'} {root / name}" for name in rest]
        raise DatasetInvalid(
            f"The folders of {root} ({', '.join(names)}) are parts of a dataset, not classes. "
            f"Pass them one by one: shoplens train {root / first}{''.join(options)}"
        )
    return [
        Entry(path=path, name=path.relative_to(root).as_posix(), label=clean_label(folder.name))
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if is_photo(path.relative_to(root)) and path.is_file()
    ]


def is_photo(relative: Path) -> bool:
    """Whether a file can be a photo by its name: not hidden, not created by the operating system."""
    return not any(part.startswith(".") for part in relative.parts) and relative.name.lower() not in _SYSTEM_FILES


def list_csv(file: Path) -> list[Entry]:
    """Every row of a CSV with the columns `path` (relative to the file) and `label`; other columns are ignored.

    Repeated rows count once. Raises DatasetInvalid with the line number of what is wrong.
    """
    entries: dict[tuple[str, str], Entry] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = next(lines, "")
            delimiter = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons or tabs
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            if any(columns.count(name) != 1 for name in ("path", "label")):
                raise DatasetInvalid(
                    f"The first line of {file.name} must name one column `path` and one column `label`. "
                    f"Its columns are: {', '.join(columns)[:200] or 'none'}."
                )
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            for row in rows:
                if any(cell.strip() for cell in row):
                    where = f"{file.name}, line {rows.line_num + 1}"
                    entry = _csv_entry(file.parent, row, columns.index("path"), columns.index("label"), where)
                    entries.setdefault((entry.name, entry.label), entry)
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{file.name} is not a text file in UTF-8.") from error
    except csv.Error as error:
        raise DatasetInvalid(f"{file.name} is not a CSV: {error}.") from error
    except OSError as error:
        raise DatasetInvalid(f"{file} cannot be read: {error.strerror}.") from error
    return list(entries.values())


def _csv_entry(root: Path, row: list[str], at_path: int, at_label: int, where: str) -> Entry:
    """Raises DatasetInvalid for missing cells, and for a path that leads out of `root`."""
    if len(row) <= max(at_path, at_label):
        raise DatasetInvalid(f"{where}: {len(row)} cells are too few for path and label.")
    name, label = row[at_path].strip(), row[at_label]
    if not label.strip():
        raise DatasetInvalid(f"{where}: the label is empty.")
    path = path_within(root, name, where)
    return Entry(path=path, name=name, label=clean_label(label))


def path_within(root: Path, name: str, where: str) -> Path:
    """The file `name` below `root`. Raises DatasetInvalid, with the place `where`, for one that leads out of it."""
    posix = PurePosixPath(name)
    if not name or "\0" in name or ".." in posix.parts or posix.is_absolute() or PureWindowsPath(name).drive:
        raise DatasetInvalid(f"{where}: {name[:200]!r} must be a path below the folder of the CSV.")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetInvalid(f"{where}: {name[:200]!r} is a link that leads out of the folder of the CSV.")
    return path


def clean_label(text: str) -> str:
    """The label in composed Unicode, without surrounding blanks. Raises DatasetInvalid for an invalid one."""
    label = unicodedata.normalize("NFC", text).strip()
    if not label or len(label) > _MAX_LABEL:
        raise DatasetInvalid(f"{text[:80]!r} is not a valid label: a label has 1 to {_MAX_LABEL} characters.")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in label):
        raise DatasetInvalid(f"The label {label[:80]!r} contains control characters or broken characters.")
    return label


def refuse_similar_labels(labels: Iterable[str]) -> None:
    """Raises DatasetInvalid if two labels differ only in case or in the Unicode form of their letters."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(unicodedata.normalize("NFKC", label).casefold(), label)
        if other != label:
            raise DatasetInvalid(f"The labels {other!r} and {label!r} are too similar. Give both the same name.")


def read_archive(file: Path) -> Archive:
    """Raises DatasetInvalid with what is wrong. Pickled content is never loaded."""
    known = {name for pairs in _ARRAYS.values() for pair in pairs for name in pair} | {"labels"}
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_ARCHIVE_BYTES:
            raise DatasetInvalid(
                f"{file.name} unpacks to {size / 1e9:.1f} GB. The limit is {MAX_ARCHIVE_BYTES / 1e9:g} GB."
            )
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name in known}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise DatasetInvalid(f"{file.name} cannot be read as a NumPy archive: {error}") from error
    train, test = (_archive_part(arrays, part, file.name) for part in ("train", "test"))
    if train is None:
        raise DatasetInvalid(f"{file.name} must contain the arrays x_train and y_train (or Xtr and ytr).")
    names = arrays.get("labels")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DatasetInvalid(
            f"{file.name}: the array `labels` must be a list of names, not {names.dtype} {names.shape}."
        )
    return Archive(train=train, test=test, names=None if names is None else tuple(map(str, names)))


def _archive_part(arrays: Mapping[str, NDArray[Any]], part: str, file: str) -> Arrays | None:
    """The pictures and labels of one part, None if there are none. Raises DatasetInvalid for a wrong type or shape."""
    x, y = next((pair for pair in _ARRAYS[part] if pair[0] in arrays and pair[1] in arrays), (None, None))
    if x is None or y is None:
        return None
    pictures, labels, where = arrays[x], arrays[y], f"{file}: {x} and {y}"
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
        raise DatasetInvalid(f"{where}: labels must be one integer per picture, not {labels.dtype} {labels.shape}.")
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < MAX_CLASSES:
        raise DatasetInvalid(f"{where}: class numbers must lie between 0 and {MAX_CLASSES - 1}.")
    return Arrays(pictures=np.ascontiguousarray(pictures), labels=flat.astype(np.int64))
