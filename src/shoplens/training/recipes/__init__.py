"""How a model is learned: samples in, something that can be exported out. The heavy parts are imported when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from shoplens.errors import DatasetInvalid, ExtraMissing
from shoplens.images.picture import ImageSpec
from shoplens.training.ticks import Tick

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

RECIPES: Final = ("transfer", "head", "scratch")
_WITHOUT_TORCH: Final = ("head",)


class Fitted(Protocol):
    """A model that has learned. `parameters` is how many numbers it consists of."""

    @property
    def image(self) -> ImageSpec:
        """How it wants its pictures."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers it consists of."""
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
    """`epochs` None takes the recipe's own number; in `work_dir` (None: nowhere) is what a resumption needs."""

    seed: int = 0
    epochs: int | None = None
    work_dir: Path | None = None


def fit_recipe(
    recipe: str,
    samples: Sequence[Sample],
    classes: int,
    *,
    options: RecipeOptions,
    on_tick: Callable[[Tick], None] = lambda _tick: None,
) -> Fitted:
    """Learn from `samples`. Raises DatasetInvalid for an unknown recipe, ExtraMissing where torch is needed and absent,
    TrainingDiverged.
    """
    if recipe not in RECIPES:
        raise DatasetInvalid(f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.")
    if recipe not in _WITHOUT_TORCH:
        _require_torch(recipe)
    if recipe == "head":
        from shoplens.training.recipes.head import fit_head

        return fit_head(samples, classes, options=options, on_tick=on_tick)
    if recipe == "transfer":
        from shoplens.training.recipes.transfer import fit_transfer

        return fit_transfer(samples, classes, options=options, on_tick=on_tick)
    from shoplens.training.recipes.scratch import fit_scratch

    return fit_scratch(samples, classes, options=options, on_tick=on_tick)


def _require_torch(recipe: str) -> None:
    try:
        import torch  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ExtraMissing(
            f"The recipe {recipe!r} needs torch, which is not installed: `pip install shoplens[train]`. "
            "The recipe `head` does without."
        ) from error
