"""A model as one verifiable directory: write one, open one, refuse one that must not be served.

bundle.json     name, version, task, the graph's inputs and outputs, activation, preprocessing
labels.json     id and name of each class, in the order of the output
card.json       the model card
evaluation.json what was measured, at length; optional, trained models have it
model.onnx      the graph with its weights
checksums.json  size and SHA-256 of every other file; its own SHA-256 is the bundle's digest
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shoplens.bundles.checksums import check_files, read_plain, write_checksums
from shoplens.bundles.evaluation import EVALUATION, Evaluation, evaluation_json, read_evaluation
from shoplens.bundles.manifest import (
    Card,
    Label,
    Manifest,
    ModelRef,
    read_card,
    read_labels,
    read_manifest,
    refuse_newer,
    to_json,
)
from shoplens.bundles.probe import check_graph
from shoplens.errors import BundleIncomplete, BundleInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle. `digest` is the SHA-256 of its checksums and so names every byte of it."""

    root: Path
    manifest: Manifest
    labels: tuple[Label, ...]
    card: Card
    digest: str
    evaluation: Evaluation | None = None

    @property
    def ref(self) -> ModelRef:
        """Name and version."""
        return ModelRef(name=self.manifest.name, version=self.manifest.version)

    @property
    def model_path(self) -> Path:
        """The graph's file."""
        return self.root / "model.onnx"

    @property
    def size_bytes(self) -> int:
        """The length of all files together."""
        return sum(path.stat().st_size for path in self.root.iterdir())


def open_bundle(path: Path | str, *, verify: bool = True) -> Bundle:
    """The bundle in the directory `path`.

    With `verify`, every byte is compared with the checksums and the graph with the labels; without it only names and
    sizes are. Raises BundleIncomplete, BundleTampered, BundleTooNew or BundleInvalid, each with the reason.
    """
    root = Path(path)
    if not root.is_dir():
        raise BundleIncomplete(f"There is no bundle directory at {root}.")
    refuse_newer(read_plain(root, "bundle.json"))
    digest = check_files(root, contents=verify)
    manifest = read_manifest(read_plain(root, "bundle.json"))
    labels = read_labels(read_plain(root, "labels.json"))
    card = read_card(read_plain(root, "card.json"))
    evaluation = _evaluation(root, labels)
    if verify:
        check_graph(root / "model.onnx", manifest, len(labels))
    return Bundle(root=root, manifest=manifest, labels=labels, card=card, digest=digest, evaluation=evaluation)


def verify_bundle(path: Path | str) -> Bundle:
    """The bundle in `path` with every check that needs no other machine: `open_bundle` with all of them."""
    return open_bundle(path, verify=True)


def write_bundle(
    into: Path,
    *,
    manifest: Manifest,
    labels: tuple[Label, ...],
    card: Card,
    model: bytes,
    evaluation: Evaluation | None = None,
) -> Bundle:
    """Make the directory `into` appear, complete, and open it. Raises BundleInvalid where something is there already.

    Two processes may do this at once: the first one wins and both get the same bundle if they wrote the same bytes.
    """
    with atomic_dir(into) as draft:
        (draft / "bundle.json").write_bytes(to_json(manifest))
        (draft / "labels.json").write_bytes(to_json(labels))
        (draft / "card.json").write_bytes(to_json(card))
        (draft / "model.onnx").write_bytes(model)
        if evaluation is not None:
            (draft / EVALUATION).write_bytes(evaluation_json(evaluation))
        digest = write_checksums(draft)
        open_bundle(draft)
    bundle = open_bundle(into, verify=False)
    if bundle.digest != digest:
        raise BundleInvalid(f"Another bundle is already at {into}; remove it or choose another name or version.")
    return bundle


def _evaluation(root: Path, labels: tuple[Label, ...]) -> Evaluation | None:
    if not (root / EVALUATION).exists():
        return None
    return read_evaluation(read_plain(root, EVALUATION), labels)


@contextmanager
def atomic_dir(into: Path) -> Iterator[Path]:
    """A temporary directory beside `into` that takes its name when the block ends well, all at once.

    Where `into` exists by then, the draft is dropped and what is there stays.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    try:
        yield draft
        draft.chmod(0o755)
        _move(draft, into)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, into: Path) -> None:
    try:
        draft.rename(into)
    except OSError:
        if not into.is_dir():
            raise
