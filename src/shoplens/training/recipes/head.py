"""The recipe `head`, the fast mode: the built-in network stays as it is, only a new last layer learns. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.builtin.efficientnet import Network
from shoplens.bundles.builtin.onnx_graph import EMBEDDING, float_model
from shoplens.images.picture import ImageSpec
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.pretrained import IMAGE, base_network, exported, number_count, outputs
from shoplens.training.recipes.regression import Regression, choose_penalty, fit_regression
from shoplens.training.ticks import Tick

if TYPE_CHECKING:
    from shoplens.training.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedHead:
    """The built-in network with `head` in place of its last layer."""

    base: Network
    head: Regression

    @property
    def image(self) -> ImageSpec:
        """See Fitted."""
        return IMAGE

    @property
    def network(self) -> Network:
        """The whole network."""
        return replace(self.base, weight=self.head.weight, bias=self.head.bias)

    @property
    def parameters(self) -> int:
        """See Fitted."""
        return number_count(self.network)

    def logits(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """See Fitted."""
        return self.head.logits(outputs(float_model(self.base), EMBEDDING, samples))

    def export(self, *, temperature: float) -> bytes:
        """See Fitted."""
        return exported(self.network, temperature=temperature)


def fit_head(
    samples: Sequence[Sample], classes: int, *, options: RecipeOptions, on_tick: Callable[[Tick], None]
) -> FittedHead:
    """Describe every picture and its mirror image by the frozen network, then fit a logistic regression."""
    base = base_network()
    model, labels = float_model(base), [sample.label for sample in samples]
    on_tick(_tick("describing the pictures", 0.0))
    features = outputs(model, EMBEDDING, samples)
    on_tick(_tick("describing their mirror images", 0.3))
    mirrored = outputs(model, EMBEDDING, samples, mirrored=True)
    on_tick(_tick("choosing the penalty", 0.6))
    penalty = choose_penalty(features, labels, classes, seed=options.seed)
    head = fit_regression(np.concatenate([features, mirrored]), labels + labels, classes, penalty=penalty)
    on_tick(_tick("fitted", 1.0))
    return FittedHead(base=base, head=head)


def _tick(stage: str, done: float) -> Tick:
    return Tick(stage=stage, epoch=1, epochs=1, done=done, loss=0.0, seconds_left=0.0)
