"""`bundle.json`, `labels.json`, `card.json` and `evaluation.json` as frozen values, and files of label names.

Parsing is strict: unknown fields, wrong types and impossible numbers are errors that name the field. In evaluations,
shares and scores are between 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTooNew
from shoplens.images.picture import ImageSpec
from shoplens.texts.spec import TextSpec

FORMAT_VERSION: Final = 1
TEXT_FORMAT_VERSION: Final = 2
"""The format of bundles with a text input, so that an older Shoplens asks for a newer one. Others keep format 1."""
IMAGENET: Final = "imagenet"
EVALUATION: Final = "evaluation.json"
NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"

Value = TypeVar("Value")
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Activation = Literal["softmax", "sigmoid", "none"]
Task = Literal["image-classification", "text-classification", "product-classification"]
SampleKind = Literal["photo", "text", "both"]
"""What a sample has. It is also the name of the output for such samples, in a graph with a text input."""
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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

    With `text` the graph computes the labels from features, and the names of its inputs and outputs are fixed: see
    `probe.py`. `output` is then that of a sample which has everything: "both", or "text" for a model of texts only.
    With `text` and `image`, `input` and `embedding` are names of a second graph, the encoder of photos.
    """

    format_version: int
    name: Name
    version: Name
    task: Task
    input: Text
    output: Text
    embedding: Text | None
    activation: Activation
    image: ImageSpec | None
    max_batch: Annotated[int, Field(ge=1, le=1024)]
    text: TextSpec | None = None

    @property
    def kinds(self) -> tuple[SampleKind, ...]:
        """The kinds of samples that the model takes."""
        if self.text is None:
            return ("photo",)
        return ("text",) if self.image is None else ("photo", "text", "both")

    @property
    def image_spec(self) -> ImageSpec:
        """The preprocessing of photos. Raises BundleInvalid for a model that takes none."""
        if self.image is None:
            raise BundleInvalid(f"The model {self.name}@{self.version} takes no photos.")
        return self.image


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """The number of samples of one class in each part."""

    label: Text
    train: Count
    validation: Count
    test: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The data for training and measuring. The hashes identify the content of the sources. `fraction` is None if the
    validation part was given. `dropped` counts the samples that were not used, by reason.
    """

    name: Text
    sha256: Sha256
    validation_sha256: Sha256 | None
    test_sha256: Sha256 | None
    split: Text
    seed: int
    fraction: Share | None
    counts: tuple[ClassCount, ...]
    unreadable: Count
    dropped: dict[str, Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """How the model was trained. `epochs` is None for the recipe's default; `versions` are those of the libraries."""

    recipe: Text
    seed: int
    epochs: Count | None
    parameters: Count
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature and the part that it was fitted on. `kind` is that of the samples, where a model takes several.

    `ece_cross_fitted` is the calibration error on that part, with each half scaled by the temperature of the other.
    """

    method: Text
    temperature: Positive
    fitted_on: Text
    samples: Count
    ece_cross_fitted: Share
    kind: SampleKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """One class in one part: `samples` have it as their label."""

    label: Text
    samples: Count
    precision: Share
    recall: Share
    f1: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The share of photos with a score of at least `at`, and their accuracy; None if there are none."""

    at: Share
    share: Share
    accuracy: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """The measurements on one part, of the exported model with the serving code.

    `accuracy_low` and `accuracy_high` bound the accuracy with 95 % confidence (Wilson 1927). `nll` is the mean negative
    log likelihood in nats; `ece` the expected calibration error in 15 bins; both also before calibration. `confusion`
    has a row per true label and a column per predicted label; it is empty if there are many classes.
    """

    name: Literal["test", "validation"]
    samples: Count
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share
    macro_f1: Share
    nll: Amount
    nll_uncalibrated: Amount
    ece: Share
    ece_uncalibrated: Share
    classes: tuple[ClassResult, ...]
    confusion: tuple[tuple[Count, ...], ...]
    thresholds: tuple[Threshold, ...]
    kind: SampleKind | None = None
    """What was shown of the samples, for a model that takes several kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The comparison of training and serving over `samples`: the greatest difference between a logit of the framework
    and of the exported graph, and that the input tensors are equal byte by byte.
    """

    samples: Count
    logit_difference: Amount
    tensors_equal: Literal[True]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """The throughput from encoded photos to labels on the training machine."""

    images_per_s: Positive
    threads: Annotated[int, Field(ge=1)]
    photos: Count
    machine: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All measurements. The first of `parts` is quoted in the card: test if there is one, else validation.

    A model that takes several kinds of samples has a part for each kind. `calibration` is then that of the kind of the
    first part, and `other_calibrations` has the others.
    """

    schema_version: Literal[1]
    data: DataFacts
    training: TrainingFacts
    calibration: Calibration
    parts: Annotated[tuple[PartResult, ...], Field(min_length=1)]
    parity: Parity
    model_bytes: Count
    speed: Speed
    other_calibrations: tuple[Calibration, ...] = ()

    @property
    def headline(self) -> PartResult:
        """The part that the card quotes."""
        return self.parts[0]


_MANIFEST: Final = TypeAdapter(Manifest)
_CARD: Final = TypeAdapter(Card)
_EVALUATION: Final = TypeAdapter(Evaluation)
_LABELS: Final = TypeAdapter(Annotated[tuple[Label, ...], Field(min_length=1, max_length=100_000)])


def read_manifest(data: bytes) -> Manifest:
    """`bundle.json` as a value. Raises BundleTooNew for a newer format, BundleInvalid for anything else wrong."""
    refuse_newer(data)
    manifest = parsed(_MANIFEST, data, "bundle.json")
    _check_task(manifest)
    if manifest.image is not None:
        check_spec(manifest.image)
    if manifest.text is not None:
        _check_text_spec(manifest.text)
    return manifest


def read_labels(data: bytes) -> tuple[Label, ...]:
    """`labels.json`: the position in the list is the index of the output. Raises BundleInvalid."""
    labels = parsed(_LABELS, data, "labels.json")
    check_labels(labels)
    return labels


def read_card(data: bytes) -> Card:
    """`card.json` as a value. Raises BundleInvalid."""
    return parsed(_CARD, data, "card.json")


def read_evaluation(data: bytes, labels: tuple[Label, ...]) -> Evaluation:
    """`evaluation.json` as a value. Raises BundleInvalid, also if it is about other labels."""
    evaluation = parsed(_EVALUATION, data, EVALUATION)
    names = tuple(label.name for label in labels)
    for part in evaluation.parts:
        if tuple(each.label for each in part.classes) != names:
            raise BundleInvalid(f"{EVALUATION}: the part {part.name!r} is about other labels than labels.json.")
        sizes = {len(part.confusion), *map(len, part.confusion)}
        if part.confusion and sizes != {len(names)}:
            raise BundleInvalid(
                f"{EVALUATION}: the confusion matrix of {part.name!r} does not fit {len(names)} labels."
            )
    return evaluation


def to_json(value: Manifest | Card | Evaluation | tuple[Label, ...]) -> bytes:
    """The content of the file, indented. The same value gives the same bytes."""
    adapter: TypeAdapter[Any] = TypeAdapter(tuple[Label, ...] if isinstance(value, tuple) else type(value))
    # Bundles without a text input have the same bytes as before there was one.
    absent: Any = {"text"} if isinstance(value, Manifest) and value.text is None else None
    if isinstance(value, Evaluation) and value.headline.kind is None:
        absent = {"other_calibrations": True, "calibration": {"kind"}, "parts": {"__all__": {"kind"}}}
    return adapter.dump_json(value, indent=1, exclude=absent) + b"\n"


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


def _check_task(manifest: Manifest) -> None:
    """Raises BundleInvalid if the task, the format, the inputs and the names of the graphs do not fit together."""
    photo, text = manifest.image is not None, manifest.text is not None
    wanted: Task = "product-classification" if photo else "text-classification"
    faults = {
        "it needs an image input or a text input": not (photo or text),
        f"with these inputs the task is {wanted!r}, not {manifest.task!r}": text and manifest.task != wanted,
        f"without a text input the task is 'image-classification', not {manifest.task!r}": not text
        and manifest.task != "image-classification",
        f"with a text input the format_version is {TEXT_FORMAT_VERSION}": text
        and manifest.format_version != TEXT_FORMAT_VERSION,
        f"without a text input the format_version is {FORMAT_VERSION}": not text
        and manifest.format_version != FORMAT_VERSION,
        "with a text and an image input, output is 'both' and embedding names the encoder's output": text
        and photo
        and (manifest.output != "both" or manifest.embedding is None),
        "with a text input only, input is 'tokens', output is 'text' and embedding is null": text
        and not photo
        and (manifest.input, manifest.output, manifest.embedding) != ("tokens", "text", None),
    }
    for sentence, wrong in faults.items():
        if wrong:
            raise BundleInvalid(f"bundle.json: {sentence}.")


def _check_text_spec(spec: TextSpec) -> None:
    """Raises BundleInvalid for text features that are impossible or would take too long."""
    faults = {
        "buckets must lie between 2 and 16,777,216": not 2 <= spec.buckets <= 1 << 24,
        "words must be a range within 1 and 5": not 1 <= spec.words[0] <= spec.words[1] <= 5,
        "characters must be a range within 1 and 8": not 1 <= spec.characters[0] <= spec.characters[1] <= 8,
        "max_characters must lie between 1 and 100,000": not 1 <= spec.max_characters <= 100_000,
        "max_features must lie between 1 and 20,000": not 1 <= spec.max_features <= 20_000,
    }
    for sentence, wrong in faults.items():
        if wrong:
            raise BundleInvalid(f"bundle.json: text: {sentence}.")


def refuse_newer(data: bytes) -> None:
    """Raises BundleTooNew for a newer format. Call before parsing: a newer format may have other fields."""
    try:
        version = from_json(data)["format_version"]
    except (ValueError, TypeError, KeyError):
        return
    if isinstance(version, int) and version > TEXT_FORMAT_VERSION:
        raise BundleTooNew(
            f"The bundle has format {version}; formats up to {TEXT_FORMAT_VERSION} are supported. "
            "Install a newer Shoplens."
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
    file with one name per line, or of a JSON file with a list of names or of `{"id": …, "name": …}`, or with a table
    `id2label`. Without an id, the name is the id; names that repeat get their index. Raises BundleIncomplete if there
    is no such file, BundleInvalid for its content.
    """
    if source == IMAGENET:
        return imagenet_labels()
    path = Path(source)
    if not path.is_file():
        raise BundleIncomplete(f"There is no file of labels at {path}.")
    data = path.read_bytes()
    if path.suffix.lower() == ".json":
        try:
            names = from_json(data)
        except ValueError as error:
            raise BundleInvalid(f"{path.name} is not JSON: {error}.") from error
        if isinstance(names, dict) and isinstance(names.get("id2label"), dict):
            return _labels_by_index(names["id2label"], path.name)
        if not (isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)):
            return read_labels(data)
    else:
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise BundleInvalid(f"{path.name} is not a text file in UTF-8.") from error
        names = [name for line in lines if (name := line.strip())]
        if not names:
            raise BundleInvalid("The file of labels is empty.")
    return named_labels(names)


def _labels_by_index(by_index: dict[str, Any], file: str) -> tuple[Label, ...]:
    """The labels of `id2label` in a configuration of Hugging Face. Raises BundleInvalid with the name of `file`."""
    try:
        names = {int(index): str(name).strip() for index, name in by_index.items()}
    except ValueError as error:
        raise BundleInvalid(f"{file}: id2label must map numbers to names.") from error
    if not names or sorted(names) != list(range(len(by_index))) or not all(names.values()):
        raise BundleInvalid(f"{file}: id2label must name each number from 0 to {len(by_index) - 1} once.")
    return named_labels([names[index] for index in range(len(names))])


def named_labels(names: Sequence[str]) -> tuple[Label, ...]:
    """A label per name. A name that several classes have gets the index of the class: "crane (134)", "crane (517)".

    Raises BundleInvalid if they are still not distinct.
    """
    counts = Counter(names)
    distinct = [f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(names)]
    labels = tuple(Label(id=name, name=name) for name in distinct)
    check_labels(labels)
    return labels


def imagenet_labels() -> tuple[Label, ...]:
    """The 1,000 ImageNet classes: synset id and a short, unique English name."""
    return read_labels((files("shoplens.bundles.builtin") / "data" / "imagenet-labels.json").read_bytes())
