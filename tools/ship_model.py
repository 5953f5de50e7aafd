"""Train the two models of our own that Shoplens ships, and write what is kept of them: photos in, data files out.

    python -m tools.ship_model clothing FOLDER         the folder with `train` and `validation`
    python -m tools.ship_model fashion-mnist FILE      the NumPy archive

It does what `shoplens train` does with the same options (docs/how-to/train-the-shipped-models.md has them), and keeps
of `clothing` only what was learned beyond the ImageNet weights, which come from their own package. What is there of an
interrupted training is gone on with. `tools/record_probes.py` is to be run afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console

from shoplens.bundles.builtin.difference import pack_arrays
from shoplens.serving.cores import usable_cores
from shoplens.training.card import Wording
from shoplens.training.commands_progress import LineWatch
from shoplens.training.plan import Plan, Sources
from shoplens.training.recipes import Fitted, fit_recipe
from shoplens.training.recipes.transfer import FittedTransfer
from shoplens.training.train import Trained, train
from tools.project import ROOT

DATA: Final = ROOT / "src" / "shoplens" / "bundles" / "builtin" / "data"
WORK: Final = ROOT / "build" / "training"
VERSION: Final = "1.0.0"
DATE: Final = "2026-11-21"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One model: how it is learned and what its card says."""

    recipe: str
    wording: Wording
    fraction: float = 0.15
    sources: Callable[[Path], Sources]


SHIPPED: Final = {
    "clothing": Shipped(
        recipe="transfer",
        wording=Wording(
            title="Clothing, ten classes",
            licence="Apache-2.0; the photos are CC0-1.0",
            data_name="clothing-dataset-small (photos by many people, collected by Alexey Grigorev)",
            date=DATE,
        ),
        sources=lambda path: Sources(source=path / "train", validation=path / "validation"),
    ),
    "fashion-mnist": Shipped(
        recipe="scratch",
        wording=Wording(
            title="Fashion-MNIST, ten classes",
            licence="Apache-2.0; the pictures are MIT",
            data_name="Fashion-MNIST, a balanced 60,000/10,000 split of its first release",
            date=DATE,
        ),
        fraction=0.03,
        sources=lambda path: Sources(source=path, labels=ROOT / "tools" / "fashion-mnist-labels.txt"),
    ),
}


def ship(name: str, path: Path) -> None:
    """Train and write the files."""
    model, kept = SHIPPED[name], list[Fitted]()

    def fit(*arguments: Any, **options: Any) -> Fitted:
        kept.append(fit_recipe(*arguments, **options))
        return kept[-1]

    plan = Plan(
        name=name, version=VERSION, recipe=model.recipe, wording=model.wording, fraction=model.fraction,
        into=WORK / "models", work_dir=WORK / name, threads=usable_cores(),
    )  # fmt: skip
    with LineWatch(Console(stderr=True)) as watch:
        trained = train(model.sources(path), plan, watch=watch, fit=fit)
    _write(name, trained, kept[-1])


def _write(name: str, trained: Trained, fitted: Fitted) -> None:
    root = trained.bundle.root
    for file, part in (("bundle", "manifest"), ("labels", "labels"), ("card", "card"), ("evaluation", "evaluation")):
        (DATA / f"{name}-{part}.json").write_bytes((root / f"{file}.json").read_bytes())
    if isinstance(fitted, FittedTransfer):
        (DATA / f"{name}.npz").write_bytes(pack_arrays({**fitted.arrays, **_cooled_head(root / "model.onnx")}))
    else:
        (DATA / f"{name}.onnx").write_bytes((root / "model.onnx").read_bytes())


def _cooled_head(model: Path) -> dict[str, NDArray[Any]]:
    """The last layer as it was exported, with the temperature in it, so that the same graph comes out again."""
    constants = {each.name: each for each in onnx.load(model).graph.initializer}
    return {name: numpy_helper.to_array(constants[name]) for name in ("classifier.weight", "classifier.bias")}


def main() -> None:
    """Train the model that the command line names."""
    ship(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
