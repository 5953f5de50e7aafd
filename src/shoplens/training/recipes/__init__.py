"""Recipes: how a model is trained from samples. Their heavy libraries are imported when a recipe is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from shoplens.advice import how_to_install
from shoplens.errors import ExtraMissing
from shoplens.images.picture import ImageSpec
from shoplens.training.errors import DatasetInvalid
from shoplens.training.progress import TrainProgress

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

RECIPES: Final = ("transfer", "head", "scratch", "fusion")


class TrainedModel(Protocol):
    """What a recipe returns."""

    @property
    def image(self) -> ImageSpec:
        """The preprocessing of its pictures."""
        ...

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        ...

    def logits(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """(n, classes) values before the softmax, computed as in training, at temperature 1."""
        ...

    def export(self, *, temperature: float) -> bytes:
        """An ONNX graph: `pixels` (uint8, n x side x side x 3) to `scores` (softmax of logits / temperature) and
        `embedding`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """`epochs` None takes the recipe's own number; `work_dir` is for checkpoints, None keeps none."""

    seed: int = 0
    epochs: int | None = None
    work_dir: Path | None = None


def required_packages(recipe: str) -> tuple[str, ...]:
    """The packages of the extras that `recipe` needs."""
    return ("scikit-learn",) if recipe == "head" else ("scikit-learn", "torch")


def require_extras(recipe: str) -> None:
    """Raises ExtraMissing if a package that `recipe` needs is not installed."""
    for package in required_packages(recipe):
        if find_spec("sklearn" if package == "scikit-learn" else package) is None:
            extras = "train" if recipe == "head" else "train,torch"
            hint = " The recipe `head` does not need torch." if package == "torch" else ""
            raise ExtraMissing(f"The recipe {recipe!r} needs {package}.{hint} {how_to_install(extras)}")


def fit_recipe(
    recipe: str,
    samples: Sequence[Sample],
    classes: int,
    *,
    options: RecipeOptions,
    on_progress: Callable[[TrainProgress], None] = lambda _progress: None,
) -> TrainedModel:
    """Train on `samples`. Raises DatasetInvalid for an unknown recipe, ExtraMissing, TrainingDiverged."""
    if recipe not in RECIPES:
        raise DatasetInvalid(f"There is no recipe {recipe!r}. Choose one of {', '.join(RECIPES)}.")
    require_extras(recipe)
    if recipe == "head":
        from shoplens.training.recipes.head import fit_head

        return fit_head(samples, classes, options=options, on_progress=on_progress)
    if recipe == "fusion":
        raise DatasetInvalid("The recipe `fusion` trains on products, not on photos alone; see `train_products`.")
    if recipe == "transfer":
        from shoplens.training.recipes.transfer import fit_transfer

        return fit_transfer(samples, classes, options=options, on_progress=on_progress)
    from shoplens.training.recipes.scratch import fit_scratch

    return fit_scratch(samples, classes, options=options, on_progress=on_progress)
