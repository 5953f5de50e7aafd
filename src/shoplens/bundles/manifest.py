"""`bundle.json`, `labels.json` and `card.json` as frozen values, and files of label names.

Parsing is strict: unknown fields, wrong types and impossible numbers are errors that name the field.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTooNew
from shoplens.images.picture import ImageSpec

FORMAT_VERSION: Final = 1
IMAGENET: Final = "imagenet"
NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"

Value = TypeVar("Value")
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Name and version of a bundle."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One class: `id` for programs (stable, never shown), `name` for people. Both are unique within a bundle."""

    id: Text
    name: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`bundle.json`: the model's name, the names of its graph, and the steps before and after the graph.

    `input`, `output` and `embedding` are names of the graph; `embedding` may be None. `output` has one number per
    label, which `activation` maps to a score. `max_batch` is 1 if the graph accepts one sample only.
    """

    format_version: int
    name: Name
    version: Name
    task: Literal["image-classification"]
    input: Text
    output: Text
    embedding: Text | None
    activation: Activation
    image: ImageSpec
    max_batch: Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured figure with the data that it was measured on and its source."""

    name: Text
    value: float
    data: Text
    source: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """`card.json`: the model card. `limits` are the limitations, `date` is YYYY-MM-DD."""

    title: Text
    description: Text
    task: Text
    data: Text
    licence: Text
    source: Text
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    limits: tuple[Text, ...]
    metrics: tuple[Metric, ...]


_MANIFEST: Final = TypeAdapter(Manifest)
_CARD: Final = TypeAdapter(Card)
_LABELS: Final = TypeAdapter(Annotated[tuple[Label, ...], Field(min_length=1, max_length=100_000)])


def read_manifest(data: bytes) -> Manifest:
    """`bundle.json` as a value. Raises BundleTooNew for a newer format, BundleInvalid for anything else wrong."""
    refuse_newer(data)
    manifest = parsed(_MANIFEST, data, "bundle.json")
    check_spec(manifest.image)
    return manifest


def read_labels(data: bytes) -> tuple[Label, ...]:
    """`labels.json`: the position in the list is the index of the output. Raises BundleInvalid."""
    labels = parsed(_LABELS, data, "labels.json")
    check_labels(labels)
    return labels


def read_card(data: bytes) -> Card:
    """`card.json` as a value. Raises BundleInvalid."""
    return parsed(_CARD, data, "card.json")


def to_json(value: Manifest | Card | tuple[Label, ...]) -> bytes:
    """The content of the file, indented. The same value gives the same bytes."""
    adapter: TypeAdapter[Any] = TypeAdapter(tuple[Label, ...] if isinstance(value, tuple) else type(value))
    return adapter.dump_json(value, indent=1) + b"\n"


def check_labels(labels: tuple[Label, ...]) -> None:
    """Raises BundleInvalid if two labels have the same id or name: an answer would be ambiguous."""
    for what, values in (("id", [label.id for label in labels]), ("name", [label.name for label in labels])):
        value, count = Counter(values).most_common(1)[0]
        if count > 1:
            raise BundleInvalid(f"labels.json: the {what} {value!r} appears {count} times; each must be unique.")


def check_spec(spec: ImageSpec) -> None:
    """Raises BundleInvalid for preprocessing that is impossible."""
    faults = {
        "crop must lie between 1 and 4096 pixels": not 1 <= spec.crop <= 4096,
        "resize must lie between crop and 4096 pixels": not spec.crop <= spec.resize <= 4096,
        "scale must not be zero": 0.0 in spec.scale,
        "jpeg_quality must lie between 1 and 100": spec.jpeg_quality is not None and not 1 <= spec.jpeg_quality <= 100,
        "mean and scale have no effect with dtype uint8": spec.dtype == "uint8"
        and (any(spec.mean) or set(spec.scale) != {1.0}),
    }
    for sentence, wrong in faults.items():
        if wrong:
            raise BundleInvalid(f"bundle.json: image: {sentence}.")


def refuse_newer(data: bytes) -> None:
    """Raises BundleTooNew for a newer format. Call before parsing: a newer format may have other fields."""
    try:
        version = from_json(data)["format_version"]
    except (ValueError, TypeError, KeyError):
        return
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleTooNew(
            f"The bundle has format {version}; formats up to {FORMAT_VERSION} are supported. Install a newer Shoplens."
        )


def parsed(adapter: TypeAdapter[Value], data: bytes, file: str) -> Value:
    """The value in `data`, strictly. Raises BundleInvalid with the name of `file` and of the field."""
    try:
        return adapter.validate_json(data, strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleInvalid(f"{file}: {where}: {first['msg']}.") from error


def labels_from(source: str) -> tuple[Label, ...]:
    """The labels in `source`, in the order of the model's output.

    `source` is the word "imagenet" (the 1,000 classes of ILSVRC 2012 by sorted synset id), or the path of a text
    file with one name per line, or of a JSON file with a list of names or of `{"id": …, "name": …}`. Without an
    id, the name is the id. Raises BundleIncomplete if there is no such file, BundleInvalid for its content.
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
