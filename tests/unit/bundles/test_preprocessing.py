"""The configuration files of Hugging Face give the same pixels as the image processors of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shoplens.bundles.importing import import_onnx
from shoplens.bundles.manifest import labels_from
from shoplens.bundles.preprocessing import PRESETS, beside, model_file, preprocessing_beside, preprocessing_of
from shoplens.errors import BundleIncomplete, BundleInvalid
from shoplens.images.picture import Picture
from shoplens.images.preprocess import preprocess
from tests.conftest import colourful
from tests.unit.bundles.conftest import LABELS, small_model

VIT: dict[str, Any] = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 2,
    "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224},
}  # fmt: skip
CONVNEXT: dict[str, Any] = {
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224,
}  # fmt: skip
MOBILENET: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5], "resample": 2, "size": {"shortest_edge": 256},
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (VIT, (224, 224, "squash", "bilinear")),
        ({**VIT, "size": 224}, (224, 224, "squash", "bilinear")),
        (CONVNEXT, (256, 224, "short_side", "bicubic")),
        ({**CONVNEXT, "size": {"shortest_edge": 384}}, (384, 384, "squash", "bicubic")),
        (MOBILENET, (256, 224, "short_side", "bilinear")),
        ({**MOBILENET, "size": 256, "crop_size": 224}, (256, 224, "short_side", "bilinear")),
        ({**MOBILENET, "do_center_crop": False}, (256, 256, "short_side", "bilinear")),
        ({**VIT, "do_center_crop": True, "crop_size": 192}, (224, 192, "squash", "bilinear")),
    ],
)
def test_sizes_are_those_of_the_image_processor(config: dict[str, Any], sizes: tuple[Any, ...]) -> None:
    """A square, the shorter side and a crop, and the share of ConvNeXT, which ends at 384 pixels."""
    found = preprocessing_of(config)
    assert sizes == (found.resize, found.crop, found.fit, found.interpolation)


def test_mean_and_deviation_are_scaled_to_bytes() -> None:
    """0.5 is the preset `half`, that of ImageNet the preset `imagenet`; steps that are switched off change nothing."""
    for config, preset in ((VIT, "half"), (CONVNEXT, "imagenet")):
        found = preprocessing_of(config)
        assert PRESETS[preset][0] == pytest.approx(found.mean)
        assert PRESETS[preset][1] == pytest.approx(found.scale)
    plain = preprocessing_of({**VIT, "do_normalize": False})
    assert (0.0, 0.0, 0.0) == plain.mean
    assert (255.0, 255.0, 255.0) == pytest.approx(plain.scale)
    raw = preprocessing_of({**VIT, "do_normalize": False, "do_rescale": False})
    assert ((0.0,) * 3, (1.0,) * 3) == (raw.mean, raw.scale)


def test_the_processor_of_mobilevit_swaps_the_channels_and_normalises_nothing() -> None:
    """It has no mean at all."""
    config = {
        "crop_size": {"height": 256, "width": 256}, "do_center_crop": True, "do_flip_channel_order": True,
        "do_resize": True, "do_rescale": True, "image_processor_type": "MobileViTImageProcessor", "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 288},
    }  # fmt: skip
    found = preprocessing_of(config)
    assert ("bgr", 288, 256, (0.0, 0.0, 0.0)) == (found.colour, found.resize, found.crop, found.mean)
    assert (255.0, 255.0, 255.0) == pytest.approx(found.scale)


def test_a_null_in_a_configuration_is_the_default() -> None:
    """As newer versions of transformers write what is not set."""
    found = preprocessing_of(
        {**CONVNEXT, "crop_pct": None, "crop_size": None, "do_center_crop": None, "data_format": None}
    )
    assert (256, 224) == (found.resize, found.crop)


def test_the_tensor_is_that_of_the_steps_as_written(tmp_path: Path) -> None:
    """Resize to a square, times 1/255, minus 0.5, by 0.5, channels first: here with Pillow and NumPy.

    The photo is less than twice as large: a larger one is halved first, which changes the last digits.
    """
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**VIT, "size": {"height": 8, "width": 8}}))
    (tmp_path / "model.onnx").write_bytes(small_model(layout="nchw", side="height"))
    bundle = import_onnx(
        tmp_path / "model.onnx", labels=LABELS, name="fruit", into=tmp_path / "m",
        preprocessing=preprocessing_beside(tmp_path / "model.onnx"),
    )  # fmt: skip
    pixels = colourful(5, width=15, height=12)
    resized = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR)
    wanted = ((np.asarray(resized, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
    tensor = preprocess(Picture(pixels=pixels, format="png", width=15, height=12), bundle.manifest.image_spec)
    assert wanted.shape == tensor.shape
    assert np.abs(wanted - tensor).max() < 1e-5


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({**VIT, "resample": 1}, "resample is 1"),
        ({**VIT, "size": {"height": 224, "width": 192}}, "no square"),
        ({**VIT, "size": {"longest_edge": 224}}, "not a number of pixels"),
        ({**VIT, "size": {"shortest_edge": "224"}}, "not a number of pixels"),
        ({**VIT, "size": {"shortest_edge": True}}, "not a number of pixels"),
        ({**VIT, "image_mean": [0.5]}, "image_mean must have three"),
        ({**VIT, "image_std": None}, "image_std must have three"),
        ({**VIT, "image_processor_type": "EfficientNetImageProcessor"}, "steps of its own"),
        ({**VIT, "rescale_factor": 0}, "rescale_factor"),
        ({**VIT, "rescale_factor": "x"}, "rescale_factor"),
        ({**CONVNEXT, "crop_pct": 0}, "crop_pct"),
    ],
)
def test_what_shoplens_cannot_do_is_refused(config: dict[str, Any], reason: str) -> None:
    """With the field that is in the way."""
    with pytest.raises(BundleInvalid, match=reason):
        preprocessing_of(config)


@pytest.mark.parametrize("content", ["{", "[]", "7", " " * 1_000_001])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    """With its path."""
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(BundleInvalid, match=r"preprocessor_config\.json"):
        preprocessing_beside(tmp_path / "model.onnx")


def test_files_are_found_beside_the_model_and_above_a_folder_called_onnx(tmp_path: Path) -> None:
    """Nowhere else; a folder stands for the model in it."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert tmp_path / "config.json" == beside(tmp_path / "model.onnx", "config.json")
    assert tmp_path / "config.json" == beside(tmp_path / "onnx" / "model.onnx", "config.json")
    assert beside(tmp_path / "other" / "model.onnx", "config.json") is None
    with pytest.raises(BundleIncomplete, match="neither"):
        model_file(tmp_path)
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"")
    assert tmp_path / "onnx" / "model.onnx" == model_file(tmp_path)


def test_labels_come_from_id2label_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    """Two classes named crane are distinguished by their number."""
    names = {"2": "crane", "0": " tench ", "1": "crane"}
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["X"], "id2label": names}))
    labels = labels_from(str(tmp_path / "config.json"))
    assert ["tench", "crane (1)", "crane (2)"] == [label.name for label in labels]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({}, "id2label"),
        ({"1": "a"}, "from 0 to 0"),
        ({"0": ""}, "once"),
        ({"x": "a"}, "numbers"),
        ({"0": "a", "00": "b"}, "once"),
    ],
)
def test_an_id2label_with_gaps_is_refused(tmp_path: Path, names: dict[str, str], reason: str) -> None:
    """An answer would have the wrong name."""
    (tmp_path / "config.json").write_text(json.dumps({"id2label": names}))
    with pytest.raises(BundleInvalid, match=reason):
        labels_from(str(tmp_path / "config.json"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["height", "shortest_edge", "0"]), inner)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*VIT, "crop_pct", "crop_size", "do_center_crop", "feature_extractor_type"]), JSON_VALUES
    )
)
def test_any_configuration_is_read_or_refused(config: dict[str, Any]) -> None:
    """Never another error, also where a file of a stranger has values of any kind."""
    for base in (VIT, CONVNEXT, MOBILENET):
        try:
            found = preprocessing_of({**base, **config})
        except BundleInvalid:
            continue
        assert found.mean is not None
        assert found.scale is not None
        assert np.isfinite([*found.mean, *found.scale]).all()


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4) | st.integers().map(str), JSON_VALUES, max_size=4)
)
def test_any_id2label_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, names: dict[str, Any]) -> None:
    """A label is a text that is not empty."""
    path = tmp_path_factory.mktemp("labels") / "config.json"
    path.write_text(json.dumps({"id2label": names}), "utf-8")
    try:
        labels = labels_from(str(path))
    except BundleInvalid:
        return
    assert len(names) == len(labels)
