"""Read the names of a model's classes from the files in which people keep them: a file in, labels out."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pydantic_core import from_json

from shoplens.bundles.manifest import Label, check_labels, read_labels
from shoplens.errors import BundleIncomplete, BundleInvalid

IMAGENET = "imagenet"


def labels_from(source: str) -> tuple[Label, ...]:
    """The labels that `source` means, in the order of the model's output.

    `source` is the word "imagenet" (the 1,000 classes of ILSVRC 2012 by sorted synset id), or the path of a text
    file with one name per line, or of a JSON file with a list of names or of `{"id": …, "name": …}`. A name is its
    own id where none is given. Raises BundleIncomplete when there is no such file, BundleInvalid for its contents.
    """
    if source == IMAGENET:
        return imagenet_labels()
    path = Path(source)
    if not path.is_file():
        raise BundleIncomplete(f"There is no file of labels at {path}.")
    labels = _from_json(path) if path.suffix.lower() == ".json" else _named(_lines(path))
    check_labels(labels)
    return labels


def imagenet_labels() -> tuple[Label, ...]:
    """The 1,000 ImageNet classes: synset id and a short, unique English name."""
    return read_labels((files("shoplens.bundles.builtin") / "data" / "imagenet-labels.json").read_bytes())


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise BundleInvalid(f"{path.name} is not a text file in UTF-8.") from error
    return [line for line in lines if line]


def _from_json(path: Path) -> tuple[Label, ...]:
    data = path.read_bytes()
    try:
        entries = from_json(data)
    except ValueError as error:
        raise BundleInvalid(f"{path.name} is not JSON: {error}.") from error
    if isinstance(entries, list) and entries and all(isinstance(entry, str) and entry for entry in entries):
        return _named(entries)
    return read_labels(data)


def _named(names: list[str]) -> tuple[Label, ...]:
    if not names:
        raise BundleInvalid("The file of labels is empty.")
    return tuple(Label(id=name, name=name) for name in names)
