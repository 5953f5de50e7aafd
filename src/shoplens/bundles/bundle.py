"""Write, open and verify a bundle: a model as one directory.

bundle.json      name, version, task, the graph's inputs and outputs, activation, preprocessing
labels.json      id and name of each class, in the order of the output
card.json        the model card
evaluation.json  all measurements; optional, trained models have it
model.onnx       the graph with its weights
checksums.json   size and SHA-256 of every other file; its own SHA-256 is the bundle's digest
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
    """An opened bundle. `digest` is the SHA-256 of its checksums, so it identifies every byte."""

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
        """The file of the graph."""
        return self.root / "model.onnx"

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
    if verify:
        check_graph(root / "model.onnx", manifest, len(labels))
    return Bundle(root=root, manifest=manifest, labels=labels, card=card, digest=digest, evaluation=evaluation)


def write_bundle(
    into: Path,
    *,
    manifest: Manifest,
    labels: tuple[Label, ...],
    card: Card,
    model: bytes,
    evaluation: Evaluation | None = None,
) -> Bundle:
    """Write a bundle to the directory `into`, all at once, and open it.

    Several processes may write the same bundle at once. Raises BundleInvalid if another bundle is there, and as
    `open_bundle` if the parts contradict each other.
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
        raise BundleInvalid(f"Another bundle is at {into}. Remove it, or choose another name or version.")
    return bundle


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
    finally:
        shutil.rmtree(draft, ignore_errors=True)
