"""Which photos a folder per class or a CSV lists, and under which labels: a source in, entries out."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from shoplens.errors import DatasetInvalid

_PARTS: Final = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_LONGEST_LABEL: Final = 200
_NO_PHOTOS: Final = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One photo that a source lists. `name` is its path within the source, with slashes."""

    path: Path
    name: str
    label: str


def list_folder(root: Path) -> list[Entry]:
    """Every file below the folders of `root`, whose names are the labels; hidden files and folders are left out.

    Raises DatasetInvalid where there are no such folders, or where they are the parts of a dataset and not classes.
    """
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith((".", "__"))]
    except OSError as error:
        raise DatasetInvalid(f"{root} cannot be read: {error.strerror}.") from error
    if not folders:
        raise DatasetInvalid(f"{root} has no folders in it. Give each class a folder named as its label.")
    _refuse_parts(root, folders)
    return [
        Entry(path=path, name=path.relative_to(root).as_posix(), label=clean_label(folder.name))
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if is_photo(path.relative_to(root)) and path.is_file()
    ]


def list_csv(file: Path) -> list[Entry]:
    """Every row of a CSV with the columns `path` (relative to the file) and `label`; other columns do not count.

    Raises DatasetInvalid with the line for anything that is not so.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(_unique(_rows(lines, file)))
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{file.name} is not a text file in UTF-8.") from error
    except csv.Error as error:
        raise DatasetInvalid(f"{file.name} is not a CSV: {error}.") from error
    except OSError as error:
        raise DatasetInvalid(f"{file} cannot be read: {error.strerror}.") from error


def clean_label(text: str) -> str:
    """The label as it is kept: composed Unicode, no blanks around it. Raises DatasetInvalid for an impossible one."""
    label = unicodedata.normalize("NFC", text).strip()
    if not label or len(label) > _LONGEST_LABEL:
        raise DatasetInvalid(f"{text[:80]!r} is no label: a label has 1 to {_LONGEST_LABEL} characters.")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in label):
        raise DatasetInvalid(f"The label {label[:80]!r} has control characters or broken ones in it.")
    return label


def refuse_clashes(labels: Iterable[str]) -> None:
    """Raises DatasetInvalid where two labels differ only in case or in the form of their letters."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(unicodedata.normalize("NFKC", label).casefold(), label)
        if other != label:
            raise DatasetInvalid(f"The labels {other!r} and {label!r} are too much alike; give both the same name.")


def is_photo(relative: Path) -> bool:
    """Whether it can be one by its name: not hidden, and not what operating systems leave in folders."""
    return not any(part.startswith(".") for part in relative.parts) and relative.name.lower() not in _NO_PHOTOS


def _refuse_parts(root: Path, folders: list[Path]) -> None:
    names = [folder.name for folder in folders]
    if {name.lower() for name in names} <= _PARTS:
        first, *rest = sorted(names, key=lambda name: not name.lower().startswith("train"))
        others = "".join(
            f" --{'test' if name.lower().startswith('test') else 'validation'} {root / name}" for name in rest
        )
        raise DatasetInvalid(
            f"The folders of {root} ({', '.join(names)}) look like parts of a dataset and not like classes. "
            f"Name them one by one: shoplens train {root / first}{others}"
        )


def _rows(lines: Iterable[str], file: Path) -> Iterator[Entry]:
    walked = iter(lines)
    header = next(walked, "")
    columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=_delimiter(header)), [])]
    missing = [name for name in ("path", "label") if columns.count(name) != 1]
    if missing:
        raise DatasetInvalid(
            f"{file.name} must have one column `path` and one column `label` in its first line; it has: "
            f"{', '.join(columns)[:200] or 'nothing'}."
        )
    reader = csv.reader(walked, delimiter=_delimiter(header), strict=True)
    at_path, at_label = columns.index("path"), columns.index("label")
    for row in reader:
        if any(cell.strip() for cell in row):
            yield _entry(row, (at_path, at_label), file, reader.line_num + 1)


def _delimiter(header: str) -> str:
    """Spreadsheets write semicolons or tabs in some countries."""
    return max(",;\t", key=header.count)


def _entry(row: list[str], places: tuple[int, int], file: Path, line: int) -> Entry:
    if len(row) <= max(places):
        raise DatasetInvalid(f"{file.name}, line {line}: there are {len(row)} cells, too few for path and label.")
    name, label = row[places[0]].strip(), row[places[1]]
    if not label.strip():
        raise DatasetInvalid(f"{file.name}, line {line}: the label is empty.")
    return Entry(path=_inside(file.parent, name, f"{file.name}, line {line}"), name=name, label=clean_label(label))


def _inside(root: Path, name: str, where: str) -> Path:
    """The file `name` below `root`. Raises DatasetInvalid for a path that leads out of it."""
    parts = PurePosixPath(name).parts
    if not name or "\0" in name or ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise DatasetInvalid(f"{where}: {name[:200]!r} must be a path below the folder of the CSV.")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetInvalid(f"{where}: {name[:200]!r} is a link that leads out of the folder of the CSV.")
    return path


def _unique(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Each photo once per label, however often it is listed."""
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        if (entry.name, entry.label) not in seen:
            seen.add((entry.name, entry.label))
            yield entry
