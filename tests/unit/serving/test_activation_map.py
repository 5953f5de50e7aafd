"""Class activation maps: of a synthetic graph whose decisive places are known, and of the shipped models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from shoplens.bundles.bundle import open_bundle, write_bundle
from shoplens.errors import RequestInvalid
from shoplens.images.picture import ImageSpec, Picture
from shoplens.serving.activation_map import ActivationMap, find_head
from tests.support.fusion import write_fusion_bundle
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

SIDE = 64


def picture_of(pixels: np.ndarray) -> Picture:
    """These pixels as a decoded photo."""
    height, width = pixels.shape[:2]
    return Picture(pixels=np.ascontiguousarray(pixels, np.uint8), format="png", width=width, height=height)


def graph(*pool: onnx.NodeProto, weights: np.ndarray, dense: onnx.NodeProto) -> onnx.ModelProto:
    """A model (1, 3, 8, 8) -> scores whose features are its input."""
    nodes = [
        *pool,
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        dense,
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])]
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3]), "axes")]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, constants))


GEMM = helper.make_node("Gemm", ["flat", "weights"], ["logits"], transB=1)
MATMUL = helper.make_node("MatMul", ["flat", "weights"], ["logits"])
WEIGHTS = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


@pytest.mark.parametrize(
    ("pool", "weights", "dense"),
    [
        (helper.make_node("GlobalAveragePool", ["input"], ["pooled"]), WEIGHTS, GEMM),
        (helper.make_node("ReduceMean", ["input"], ["pooled"], axes=[-2, -1]), WEIGHTS.T.copy(), MATMUL),
        (helper.make_node("ReduceMean", ["input", "axes"], ["pooled"]), WEIGHTS.T.copy(), MATMUL),
        (helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8]), WEIGHTS.T.copy(), MATMUL),
    ],
)
def test_the_head_is_found_in_every_usual_form(
    pool: onnx.NodeProto, weights: np.ndarray, dense: onnx.NodeProto
) -> None:
    """Its weights have a row for each label, whichever way they are stored."""
    head = find_head(graph(pool, weights=weights, dense=dense), "scores")
    assert head is not None
    assert (head.features, head.channels_last) == ("input", False)
    assert np.array_equal(head.weights, WEIGHTS)


def test_a_graph_of_another_form_has_no_head() -> None:
    """The greatest value of a channel says nothing of places that add up."""
    pool = helper.make_node("GlobalMaxPool", ["input"], ["pooled"])
    assert find_head(graph(pool, weights=WEIGHTS.T.copy(), dense=MATMUL), "scores") is None


def test_a_shipped_model_without_such_a_head_says_so(models_dir: Path) -> None:
    """The sentence names the model and what is missing."""
    bundle = open_bundle(next((models_dir / "fashion-mnist").iterdir()))
    with pytest.raises(RequestInvalid, match=r"no heat map for fashion-mnist.*average pooling"):
        ActivationMap(bundle)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite0-int8"])
@pytest.mark.parametrize("on_the_left", [True, False])
def test_the_map_lies_where_the_animal_is(models_dir: Path, shared_data: Path, name: str, *, on_the_left: bool) -> None:
    """A real photo in one half of a grey picture: the other half speaks for nothing."""
    photo = Image.open(shared_data / "imagenet-samples" / "n01514859_hen.JPEG").convert("RGB")
    pixels = np.full((300, 300, 3), 127, np.uint8)
    half = np.asarray(photo.resize((150, 150)))
    pixels[75:225, :150] = half
    if not on_the_left:
        pixels = pixels[:, ::-1]
    maps = ActivationMap(open_bundle(next((models_dir / name).iterdir())))
    heat, part = maps.of(picture_of(pixels), ["hen"])
    left, right = heat[:, : heat.shape[1] // 2].sum(), heat[:, (heat.shape[1] + 1) // 2 :].sum()
    assert (left > 2 * right) if on_the_left else (right > 2 * left)
    assert heat.max() == 1.0
    assert part == (0.0625, 0.0625, 0.9375, 0.9375)


def test_an_unknown_label_is_named(models_dir: Path) -> None:
    """Instead of a map of nothing."""
    maps = ActivationMap(open_bundle(next((models_dir / "opennsfw").iterdir())))
    with pytest.raises(RequestInvalid, match="no label 'banana'"):
        maps.of(picture_of(np.zeros((SIDE, SIDE, 3), np.uint8)), ["banana"])


def test_a_graph_whose_decisive_place_is_known(tmp_path: Path) -> None:
    """A model of the means of channels: the map of the label that red speaks for is the red square alone."""
    model = small_model(layout="nchw", side=8)
    bundle = write_bundle(
        tmp_path / "fruit" / "1.2.0",
        manifest=replace(MANIFEST, image=ImageSpec(resize=8, crop=8, layout="nchw", resampling="exact")),
        labels=LABELS,
        card=CARD,
        model=model,
    )
    maps = ActivationMap(bundle)
    matrix = find_head(onnx.load_from_string(model), "answer")
    assert matrix is not None
    red = int(np.argmax((matrix.weights - matrix.weights.mean(axis=0))[:, 0]))
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[5:7, 1:3, 0] = 255
    heat, _ = maps.of(picture_of(pixels), [LABELS[red].name])
    assert np.array_equal(heat > 0.5, pixels[..., 0] == 255)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_model_of_photos_and_texts_shows_what_its_photo_head_sees(tmp_path: Path, hidden: bool) -> None:
    """Its feature map is in one graph and its weights are in the other."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4, 0] = pixels[:, 4:, 1] = 250
    maps = ActivationMap(write_fusion_bundle(tmp_path, hidden=hidden))
    for label, columns in (("Colours > Red", slice(0, 2)), ("Colours > Green", slice(2, 4))):
        heat, _ = maps.of(picture_of(pixels), [label])
        assert (4, 4) == heat.shape
        assert heat[:, columns].min() > 0.5 > np.delete(heat, columns, axis=1).max()


def test_a_model_of_texts_has_no_heat_map(tmp_path: Path) -> None:
    """There is no picture to draw it on."""
    with pytest.raises(RequestInvalid, match="There is no heat map"):
        ActivationMap(write_fusion_bundle(tmp_path, photos=False))
