"""Write, open and verify a bundle: a model as one directory.

bundle.json      name, version, task, the graph's inputs and outputs, activation, preprocessing
labels.json      id and name of each class, in the order of the output
card.json        the model card
evaluation.json  all measurements; optional, trained models have it
model.onnx       the graph with its weights; with a text input the classifier over features of photos and text
encoder.onnx     the graph from pixels to those features of a photo; only with an image input and a text input
checksums.json   size and SHA-256 of every other file; its own SHA-256 is the bundle's digest
signature.json   a signature of checksums.json; optional, and not listed in it
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from shoplens.bundles.manifest import (
    EVALUATION,
    Card,
    Evaluation,
    Label,
    Manifest,
    ModelRef,
    read_card,
    read_evaluation,
    read_labels,
    read_manifest,
    refuse_newer,
    to_json,
)
from shoplens.bundles.probe import check_graph
from shoplens.bundles.signing import SIGNATURE, signer_of
from shoplens.errors import BundleError, BundleIncomplete, BundleInvalid, BundleTampered, BundleTooNew

CHECKSUMS: Final = "checksums.json"
ENCODER: Final = "encoder.onnx"
REQUIRED: Final = ("bundle.json", "card.json", "labels.json", "model.onnx")
MAX_FILES: Final = 16
MAX_BYTES: Final = 4_000_000_000
_MAX_TEXT_BYTES: Final = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """Size in bytes and SHA-256 in lower-case hex of one file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


_CHECKSUMS: Final = TypeAdapter(dict[str, Checksum])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle. `digest` is the SHA-256 of its checksums, so it identifies every byte. `signed_by` is the
    public key of its signature, which fits; None without one.
    """

    root: Path
    manifest: Manifest
    labels: tuple[Label, ...]
    card: Card
    digest: str
    evaluation: Evaluation | None = None
    signed_by: str | None = None

    @property
    def ref(self) -> ModelRef:
        """Name and version."""
        return ModelRef(name=self.manifest.name, version=self.manifest.version)

    @property
    def model_path(self) -> Path:
        """The file of the graph that computes the labels."""
        return self.root / "model.onnx"

    @property
    def encoder_path(self) -> Path | None:
        """The file of the graph that computes the features of a photo; None where `model_path` takes pixels, or no
        photos.
        """
        return self.root / ENCODER if has_encoder(self.manifest) else None

    @property
    def size_bytes(self) -> int:
        """The total size of all files."""
        return sum(path.stat().st_size for path in self.root.iterdir())


def open_bundle(path: Path | str, *, verify: bool = True) -> Bundle:
    """The bundle in the directory `path`.

    With `verify`, the content of every file is compared with the checksums, and the graph with the manifest and the
    labels; without it, only names and sizes are. Raises BundleIncomplete, BundleTampered, BundleTooNew and
    BundleInvalid.
    """
    root = Path(path)
    if not root.is_dir():
        raise BundleIncomplete(f"There is no bundle directory at {root}.")
    refuse_newer(read_plain(root, "bundle.json"))
    digest = check_files(root, contents=verify)
    manifest = read_manifest(read_plain(root, "bundle.json"))
    labels = read_labels(read_plain(root, "labels.json"))
    card = read_card(read_plain(root, "card.json"))
    evaluation = None
    if (root / EVALUATION).exists():
        evaluation = read_evaluation(read_plain(root, EVALUATION), labels)
    encoder = root / ENCODER if has_encoder(manifest) else None
    if encoder is not None and not encoder.exists():
        raise BundleIncomplete(
            f"{ENCODER} is missing from the bundle {root.name!r}, whose model takes photos and texts."
        )
    if encoder is None and (root / ENCODER).exists():
        raise BundleInvalid(f"{ENCODER} belongs to models that take photos and texts, and to no others.")
    if verify:
        check_graph(root / "model.onnx", manifest, len(labels), encoder)
    signed_by = None
    if (root / SIGNATURE).exists():
        signed_by = signer_of(read_plain(root, SIGNATURE), read_plain(root, CHECKSUMS))
    return Bundle(
        root=root,
        manifest=manifest,
        labels=labels,
        card=card,
        digest=digest,
        evaluation=evaluation,
        signed_by=signed_by,
    )


def has_encoder(manifest: Manifest) -> bool:
    """Whether a bundle with this manifest has a second graph, for its photos."""
    return manifest.image is not None and manifest.text is not None


def open_installed(root: Path, *, remedy: str) -> Bundle:
    """`open_bundle` for `<models_dir>/<name>/<version>`. Its errors name the model, the folder and what to do."""
    try:
        return open_bundle(root)
    except BundleError as error:
        cure = "" if isinstance(error, BundleTooNew) else f" {remedy}"
        sentence = f"The model {root.parent.name}@{root.name} in {root} cannot be used: {error}{cure}"
        raise type(error)(sentence) from error


def write_bundle(
    into: Path,
    *,
    manifest: Manifest,
    labels: tuple[Label, ...],
    card: Card,
    model: bytes,
    encoder: bytes | None = None,
    evaluation: Evaluation | None = None,
) -> Bundle:
    """Write a bundle to the directory `into`, all at once, and open it. `model` and `encoder` are ONNX graphs.

    Several processes may write the same bundle at once. Raises BundleInvalid if another bundle is there, and as
    `open_bundle` if the parts contradict each other.
    """
    with atomic_dir(into) as draft:
        (draft / "bundle.json").write_bytes(to_json(manifest))
        (draft / "labels.json").write_bytes(to_json(labels))
        (draft / "card.json").write_bytes(to_json(card))
        (draft / "model.onnx").write_bytes(model)
        if encoder is not None:
            (draft / ENCODER).write_bytes(encoder)
        if evaluation is not None:
            (draft / EVALUATION).write_bytes(to_json(evaluation))
        digest = write_checksums(draft)
        open_bundle(draft)
    bundle = open_bundle(into, verify=False)
    if bundle.digest != digest:
        raise BundleInvalid(f"Another bundle is at {into}. Remove it, or choose another name or version.")
    return bundle


def write_checksums(root: Path) -> str:
    """Write `checksums.json` for all other files in `root`. Returns the bundle's digest."""
    sums = {path.name: checksum_of(path) for path in sorted(root.iterdir()) if path.name not in (CHECKSUMS, SIGNATURE)}
    data = _CHECKSUMS.dump_json(sums, indent=1) + b"\n"
    (root / CHECKSUMS).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def check_files(root: Path, *, contents: bool) -> str:
    """Compare the files in `root` with `checksums.json`, with `contents` their SHA-256 too. Returns the digest.

    Raises BundleIncomplete for a missing file, BundleTampered for a changed, unlisted or linked one, BundleInvalid
    for unreadable checksums.
    """
    data = read_plain(root, CHECKSUMS)
    sums = read_checksums(data)
    for name in sorted({*REQUIRED, *sums}):
        if not (root / name).is_symlink() and not (root / name).exists():
            raise BundleIncomplete(f"{name} is missing from the bundle {root.name!r}.")
    for name in sorted({*REQUIRED, *(path.name for path in root.iterdir())} - {CHECKSUMS, SIGNATURE, *sums}):
        raise BundleTampered(f"{name} is not listed in {CHECKSUMS}. Remove it, or make the bundle again.")
    for name, expected in sums.items():
        path = root / name
        if path.is_symlink() or not path.is_file():
            raise BundleTampered(f"{name} is not a plain file.")
        if path.stat().st_size != expected.size:
            raise BundleTampered(f"{name} has {path.stat().st_size} bytes, not {expected.size} as recorded.")
        if contents and checksum_of(path) != expected:
            raise BundleTampered(f"{name} was changed after the bundle was made: its checksum differs.")
    return hashlib.sha256(data).hexdigest()


def read_plain(root: Path, name: str) -> bytes:
    """The bytes of a file directly in `root`. Raises BundleIncomplete if absent, BundleTampered for a link,
    BundleInvalid if it is too large.
    """
    path = root / name
    if path.is_symlink():
        raise BundleTampered(f"{name} is a link. A bundle consists of plain files.")
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise BundleInvalid(f"{name} is larger than {_MAX_TEXT_BYTES:,} bytes.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleIncomplete(f"{name} is missing from the bundle {root.name!r}.") from error
    except OSError as error:
        raise BundleInvalid(f"{name} cannot be read: {error.strerror}.") from error


def checksum_of(path: Path) -> Checksum:
    """Size and SHA-256 of the file at `path`."""
    with path.open("rb") as file:
        return Checksum(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def read_checksums(data: bytes) -> dict[str, Checksum]:
    """The files by name. Raises BundleInvalid."""
    try:
        sums = _CHECKSUMS.validate_json(data, strict=True, extra="forbid")
    except ValidationError as error:
        raise BundleInvalid(f"{CHECKSUMS}: {error.errors(include_url=False)[0]['msg']}.") from error
    for name in sums:
        if name in {"", ".", "..", CHECKSUMS, SIGNATURE} or "/" in name or "\\" in name or "\0" in name:
            raise BundleInvalid(f"{CHECKSUMS} lists {name!r}, which is not the name of a file of the bundle.")
    return sums


@contextmanager
def atomic_dir(into: Path) -> Iterator[Path]:
    """A temporary directory beside `into` that is renamed to `into` when the block ends without an error.

    If `into` exists by then, it stays as it is and the temporary directory is removed.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    try:
        yield draft
        draft.chmod(0o755)
        try:
            draft.rename(into)
        except OSError:
            if not into.is_dir():
                raise
    except OSError as error:
        error.filename = error.filename or str(into)  # a full disk is reported without a name
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
