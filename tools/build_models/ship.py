"""Train the two models that Shoplens ships, and write their files.

    python -m tools.build_models.ship clothing FOLDER         the folder with `train` and `validation`
    python -m tools.build_models.ship fashion-mnist FILE      the NumPy archive

It trains as `shoplens train` does with the options in docs/how-to/train-the-shipped-models.md. Of `clothing` it stores
only the difference from the ImageNet weights, which come from their own package. An interrupted training is resumed.
Run `tools.build_models.probes` afterwards.
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

from shoplens.bundles.builtin.efficientnet import apply_delta, lite0_network
from shoplens.serving.cores import usable_cores
from shoplens.training.card import CardTexts
from shoplens.training.progress import ProgressLog
from shoplens.training.recipes import TrainedModel, fit_recipe
from shoplens.training.recipes.transfer import TransferModel
from shoplens.training.train import Sources, TrainConfig, train
from tools.build_models import DATA
from tools.build_models.delta import delta_of, packed
from tools.project import ROOT

WORK: Final = ROOT / "build" / "training"
VERSION: Final = "1.0.1"
DATE: Final = "2026-11-21"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One model: how it is trained and what its card says."""

    recipe: str
    texts: CardTexts
    fraction: float = 0.15
    sources: Callable[[Path], Sources]


SHIPPED: Final = {
    "clothing": Shipped(
        recipe="transfer",
        texts=CardTexts(
            title="Clothing, ten classes",
            licence="Apache-2.0; the photos are CC0-1.0",
            data_name="clothing-dataset-small (photos by many people, collected by Alexey Grigorev)",
            date=DATE,
        ),
        sources=lambda path: Sources(source=path / "train", validation=path / "validation"),
    ),
    "fashion-mnist": Shipped(
        recipe="scratch",
        texts=CardTexts(
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
    """Train and write the files. What is written is what was measured: the network is rounded before."""
    model, deltas = SHIPPED[name], list[dict[str, NDArray[Any]]]()

    def fit(*arguments: Any, **options: Any) -> TrainedModel:
        trained = fit_recipe(*arguments, **options)
        if not isinstance(trained, TransferModel):
            return trained
        origin = lite0_network()
        deltas.append(delta_of(origin, trained.network))
        return TransferModel(network=apply_delta(origin, deltas[-1]))

    config = TrainConfig(
        name=name, version=VERSION, recipe=model.recipe, texts=model.texts, fraction=model.fraction,
        into=WORK / "models", work_dir=WORK / name, threads=usable_cores(),
    )  # fmt: skip
    with ProgressLog(Console(stderr=True)) as callback:
        result = train(model.sources(path), config, callback=callback, fit=fit)
    root = result.bundle.root
    for file, part in (("bundle", "manifest"), ("labels", "labels"), ("card", "card"), ("evaluation", "evaluation")):
        (DATA / f"{name}-{part}.json").write_bytes((root / f"{file}.json").read_bytes())
    if deltas:
        # the last layer as it was exported, which includes the temperature
        constants = {each.name: each for each in onnx.load(root / "model.onnx").graph.initializer}
        head = {key: numpy_helper.to_array(constants[key]) for key in ("classifier.weight", "classifier.bias")}
        (DATA / f"{name}.npz").write_bytes(packed({**deltas[-1], **head}))
    else:
        (DATA / f"{name}.onnx").write_bytes((root / "model.onnx").read_bytes())


def main() -> None:
    """Train the model that the command line names."""
    ship(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
