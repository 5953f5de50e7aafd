"""The recipe `head`: the built-in network stays frozen, a logistic regression replaces its last layer. No torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from threadpoolctl import threadpool_limits

from shoplens.bundles.builtin.efficientnet import SIDE, Network, lite0_network
from shoplens.bundles.builtin.onnx_graph import EMBEDDING, INPUT, float_model
from shoplens.bundles.probe import open_session
from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.serving.cores import usable_cores
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

Floats = NDArray[np.float32]
Item = TypeVar("Item")
Value = TypeVar("Value")

IMAGE: Final = ImageSpec(resize=SIDE, crop=SIDE, dtype="uint8", resampling="fast")
"""The largest square crop. Photos for a shop fill the picture: a narrower crop cuts off sleeves and hems, and squashing
turns dresses into skirts (measured: 87.4 against 86.2 and 86.2 percent with a frozen network)."""

PENALTIES: Final = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Candidates for the L2 penalty, relative to the mean loss per sample."""
_FOLDS: Final = 3
_MAX_ITERATIONS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """A linear layer: `weight` is (classes, features), `bias` (classes,); logits are features @ weight.T + bias."""

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(n, classes)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadModel:
    """The built-in network with `head` in place of its last layer."""

    base: Network
    head: Head
    image: ImageSpec = IMAGE

    @property
    def network(self) -> Network:
        """The whole network."""
        return replace(self.base, weight=self.head.weight, bias=self.head.bias)

    @property
    def parameters(self) -> int:
        """See TrainedModel."""
        return parameter_count(self.network)

    def logits(self, samples: Sequence[Sample]) -> Floats:
        """See TrainedModel."""
        return self.head.logits(embed(float_model(self.base), samples))

    def export(self, *, temperature: float) -> bytes:
        """See TrainedModel."""
        return export_network(self.network, temperature=temperature)


def fit_head(
    samples: Sequence[Sample], classes: int, *, options: RecipeOptions, on_progress: Callable[[TrainProgress], None]
) -> HeadModel:
    """Embed every picture and its mirror image with the frozen network, then fit a logistic regression."""
    base = lite0_network()
    model, labels = float_model(base), np.array([sample.label for sample in samples], np.int64)
    on_progress(TrainProgress(stage="embedding the pictures", done=0.0))
    features = embed(model, samples)
    on_progress(TrainProgress(stage="embedding their mirror images", done=0.3))
    mirrored = embed(model, samples, mirrored=True)
    on_progress(TrainProgress(stage="choosing the penalty", done=0.6))
    penalty = choose_penalty(features, labels, seed=options.seed)
    head = fit_regression(np.concatenate([features, mirrored]), np.tile(labels, 2), classes, penalty=penalty)
    on_progress(TrainProgress(stage="fitted", done=1.0))
    return HeadModel(base=base, head=head)


def choose_penalty(features: Floats, labels: NDArray[np.int64], *, seed: int) -> float:
    """The one of `PENALTIES` with the greatest likelihood in cross-validation. Classes of 1 or 2 samples are
    ignored.
    """
    known = np.bincount(labels)[labels] >= _FOLDS
    if len(np.unique(labels[known])) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    scaled, truth = _scaled(features[known])[0], labels[known]
    trained_on = len(truth) * (_FOLDS - 1) / _FOLDS
    search = GridSearchCV(
        LogisticRegression(max_iter=_MAX_ITERATIONS),
        {"C": [1 / (penalty * trained_on) for penalty in PENALTIES]},
        scoring="neg_log_loss",
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
        refit=False,
    )
    with _quiet_fit():
        search.fit(scaled, truth)
    return PENALTIES[int(np.argmax(search.cv_results_["mean_test_score"]))]


def fit_regression(features: Floats, labels: NDArray[np.int64], classes: int, *, penalty: float) -> Head:
    """The multinomial logistic regression of `labels` (n,) on `features` (n, f), with `penalty` on squared weights."""
    scaled, mean, spread = _scaled(features)
    regression = LogisticRegression(C=1 / (penalty * len(labels)), max_iter=_MAX_ITERATIONS)
    with _quiet_fit():
        regression.fit(scaled, labels)
    weight, bias = regression.coef_, regression.intercept_
    if classes == 2:  # scikit-learn fits the difference of the two logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = np.asarray(weight / spread, np.float32)
    return Head(weight=weight, bias=np.asarray(bias - weight @ mean, np.float32))


@contextmanager
def _quiet_fit() -> Iterator[None]:
    """Fit on one thread, which gives the same bits on any number of cores and is fastest for matrices of this size.

    A fit that has not fully converged is good enough: the remaining change is smaller than its effect on any score.
    """
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _scaled(features: Floats) -> tuple[Floats, Floats, np.float32]:
    """Centred features, with one scale for all: a feature that hardly varies is noise and must not be amplified."""
    mean = features.mean(axis=0)
    spread = np.float32(max(float((features - mean).std()), 1e-6))
    return np.asarray((features - mean) / spread, np.float32), mean, spread


def embed(model: bytes, samples: Sequence[Sample], *, mirrored: bool = False) -> Floats:
    """(n, features) embeddings of the pictures, preprocessed as in serving, or of their mirror images."""
    session = open_session(model, optimise=True)

    def row(sample: Sample) -> Floats:
        pixels = preprocess(sample.picture(IMAGE.resize), IMAGE)
        seen = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
        return np.asarray(session.run([EMBEDDING], {INPUT: seen[None]})[0][0], np.float32)

    return np.stack(list(in_parallel(row, samples)))


def in_parallel(work: Callable[[Item], Value], items: Sequence[Item]) -> Iterable[Value]:
    """`work` for each item, in order, on all cores; only a few results are in memory at a time."""
    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting = iter(items)
        running = [pool.submit(work, item) for item in islice(waiting, 4 * threads)]
        while running:
            yield running.pop(0).result()
            running.extend(pool.submit(work, item) for item in islice(waiting, 1))


def export_network(network: Network, *, temperature: float) -> bytes:
    """The graph of `network` with its logits divided by `temperature`."""
    return float_model(replace(network, weight=network.weight / temperature, bias=network.bias / temperature))


def parameter_count(network: Network) -> int:
    """The number of weights and offsets."""
    layers = sum(layer.weight.size + layer.bias.size for layer in network.layers)
    return layers + network.weight.size + network.bias.size
