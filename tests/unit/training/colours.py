"""Small real photos in three colours, and a real model that distinguishes them: a regression on the mean colour."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions
from shoplens.training.samples import ArrayPicture, Sample
from tests.conftest import colourful, jpeg_of

COLOURS = {"blue": (30, 30, 230), "green": (30, 230, 30), "red": (230, 30, 30)}
SPEC = ImageSpec(resize=16, crop=16, dtype="uint8")
EPOCHS = 4


def tinted(seed: int, colour: tuple[int, int, int], strength: float = 0.4) -> NDArray[np.uint8]:
    """A random smooth picture (40 x 48 pixels) tinted with `colour`."""
    mixed = (1 - strength) * colourful(seed, width=48, height=40) + strength * np.array(colour)
    return mixed.astype(np.uint8)


def write_photos(root: Path, *, each: int, first: int = 0, strength: float = 0.4) -> Path:
    """A folder per colour below `root` with `each` different JPEG photos; another `first` gives other photos."""
    for place, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + each):
            photo = jpeg_of(tinted(1000 * place + number, colour, strength), quality=95)
            (root / name / f"{number:03}.jpg").write_bytes(photo)
    return root


def made_sample(name: str, label: int, *, content: str = "", phash: str = "") -> Sample:
    """A sample without a picture; `content` stands for its bytes."""
    pixels = np.zeros((4, 4), np.uint8)
    return Sample(
        name=name, label=label, sha256=content or f"content of {name}", phash=phash, width=4, height=4,
        origin=ArrayPicture(pixels=pixels),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColourModel:
    """logits = mean colour (0 to 1) @ weight + bias."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    image: ImageSpec = SPEC

    @property
    def parameters(self) -> int:
        return self.weight.size + self.bias.size

    def logits(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        return np.asarray(mean_colours(samples) @ self.weight + self.bias, np.float32)

    def export(self, *, temperature: float) -> bytes:
        return colour_graph(self.weight / np.float32(temperature), self.bias / np.float32(temperature))


def colour_graph(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> bytes:
    """The same in ONNX: uint8 pixels in, scores and the mean colour out."""
    constants = {
        "weight": np.asarray(weight, np.float32),
        "bias": np.asarray(bias, np.float32),
        "most": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["mean", "most"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "weight"], ["raw"]),
        helper.make_node("Add", ["raw", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    outputs = {"scores": len(bias), "embedding": 3}
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SPEC.crop, SPEC.crop, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def mean_colours(samples: Sequence[Sample]) -> NDArray[np.float32]:
    """(n, 3) from 0 to 1."""
    pictures = [preprocess(sample.picture(SPEC.resize), SPEC) for sample in samples]
    return np.stack([pixels.astype(np.float32).mean(axis=(0, 1)) / np.float32(255) for pixels in pictures])


def fit_colours(
    recipe: str,
    samples: Sequence[Sample],
    classes: int,
    *,
    options: RecipeOptions,
    on_progress: Callable[[TrainProgress], None],
) -> ColourModel:
    """Gradient descent in epochs; the state is saved after each epoch, and training resumes from it."""
    assert options.work_dir is not None
    kept = options.work_dir / "colours.json"
    state: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"epoch": 0}
    weight = np.array(state.get("weight", np.zeros((3, classes)).tolist()))
    bias = np.array(state.get("bias", np.zeros(classes).tolist()))
    means, truth = mean_colours(samples), np.eye(classes)[[sample.label for sample in samples]]
    epochs = options.epochs or EPOCHS
    for epoch in range(state["epoch"], epochs):
        for _ in range(200):
            powers = np.exp(means @ weight + bias)
            missed = (powers / powers.sum(axis=1, keepdims=True) - truth) / len(truth)
            weight, bias = weight - 8 * means.T @ missed, bias - 8 * missed.sum(axis=0)
        kept.write_text(json.dumps({"epoch": epoch + 1, "weight": weight.tolist(), "bias": bias.tolist()}))
        on_progress(
            TrainProgress(
                stage="training", epoch=epoch + 1, epochs=epochs, done=(epoch + 1) / epochs, loss=0.5, seconds_left=9.0
            )
        )
    return ColourModel(weight=np.asarray(weight, np.float32), bias=np.asarray(bias, np.float32))
