"""How each built-in model is made from its pinned source: name in, the parts of a bundle out. Deterministic.

Only the functions that build import onnx: it is heavy, and serving never needs it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from shoplens.bundles.builtin.sources import LITE0, OPENNSFW, read_source
from shoplens.bundles.evaluation import Evaluation, read_evaluation
from shoplens.bundles.manifest import FORMAT_VERSION, Card, Label, Manifest, read_card, read_labels, read_manifest
from shoplens.images.picture import ImageSpec

if TYPE_CHECKING:
    from shoplens.bundles.builtin.network import Network

Recorded = list[list[tuple[int, float]]]

_MAX_BATCH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A built-in model: what it says of itself, and the function that makes its graph (in seconds)."""

    manifest: Manifest
    labels_file: str
    build: Callable[[], bytes]
    tolerance: float
    """By how much a score of a probe may differ from the recorded one on another processor."""
    evaluated: bool = False
    """Whether there is an `evaluation.json`: only for models that were trained here."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes in the order of the output."""
        return read_labels(read_data(self.labels_file))

    @property
    def recorded(self) -> Recorded:
        """For each probe picture, index and score of its best labels, as computed when the recipe was made."""
        probes: dict[str, Recorded] = json.loads(read_data("probes.json"))
        return probes[self.manifest.name]

    @property
    def card(self) -> Card:
        """The model card."""
        return read_card(read_data(f"{self.manifest.name}-card.json"))

    @property
    def evaluation(self) -> Evaluation | None:
        """What was measured of it at length, where that is known."""
        return (
            read_evaluation(read_data(f"{self.manifest.name}-evaluation.json"), self.labels) if self.evaluated else None
        )


def read_data(name: str) -> bytes:
    """A data file of this package."""
    return (files("shoplens.bundles.builtin") / "data" / name).read_bytes()


def _lite0() -> bytes:
    from shoplens.bundles.builtin.graphs import float_model

    return float_model(lite0_network())


def _lite0_int8() -> bytes:
    from shoplens.bundles.builtin.graphs import int8_model

    ranges: Mapping[str, Any] = json.loads(read_data("efficientnet-lite0-ranges.json"))
    return int8_model(lite0_network(), {name: (low, high) for name, (low, high) in ranges.items()})


def lite0_network() -> Network:
    """The network of the built-in ImageNet model, with the weights of its package. Deterministic."""
    from shoplens.bundles.builtin.network import lite0
    from shoplens.bundles.builtin.unpickle import read_state

    return lite0(read_state(io.BytesIO(read_source(LITE0))))


def _opennsfw() -> bytes:
    return read_source(OPENNSFW)


def _clothing() -> bytes:
    from shoplens.bundles.builtin.difference import learn, unpack_arrays
    from shoplens.bundles.builtin.graphs import float_model

    return float_model(learn(lite0_network(), unpack_arrays(read_data("clothing.npz"))))


def _fashion_mnist() -> bytes:
    return read_data("fashion-mnist.onnx")


def _trained(name: str, build: Callable[[], bytes]) -> Recipe:
    """A model that was trained with the recipes of Shoplens; tools/ship_model.py wrote its files."""
    return Recipe(
        manifest=read_manifest(read_data(f"{name}-manifest.json")),
        labels_file=f"{name}-labels.json",
        build=build,
        tolerance=0.001,
        evaluated=True,
    )


def _manifest(name: str, version: str, image: ImageSpec, **names: str | None) -> Manifest:
    graph = {"input": "pixels", "output": "scores", "embedding": "embedding"} | names
    return Manifest(
        format_version=FORMAT_VERSION, name=name, version=version, task="image-classification",
        input=graph["input"] or "", output=graph["output"] or "", embedding=graph["embedding"],
        activation="none", image=image, max_batch=_MAX_BATCH,
    )  # fmt: skip


_PIXELS: Final = ImageSpec(resize=256, crop=224, dtype="uint8")
_CAFFE: Final = ImageSpec(
    resize=256, crop=224, fit="squash", interpolation="bilinear", colour="bgr", mean=(104.0, 117.0, 123.0),
    jpeg_quality=75,
)  # fmt: skip

RECIPES: Final[Mapping[str, Recipe]] = {
    "efficientnet-lite0-int8": Recipe(
        manifest=_manifest("efficientnet-lite0-int8", "1.0.0", replace(_PIXELS, resampling="fast")),
        labels_file="imagenet-labels.json",
        build=_lite0_int8,
        tolerance=0.02,
    ),
    "efficientnet-lite0": Recipe(
        manifest=_manifest("efficientnet-lite0", "1.0.0", _PIXELS),
        labels_file="imagenet-labels.json",
        build=_lite0,
        tolerance=0.001,
    ),
    "opennsfw": Recipe(
        manifest=_manifest("opennsfw", "1.0.0", _CAFFE, input="input:0", output="outputs", embedding=None),
        labels_file="opennsfw-labels.json",
        build=_opennsfw,
        tolerance=0.001,
    ),
    "clothing": _trained("clothing", _clothing),
    "fashion-mnist": _trained("fashion-mnist", _fashion_mnist),
}
