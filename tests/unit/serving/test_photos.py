"""The Python interface: whatever a program has is a photo, and each photo gets its own outcome."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shoplens.bundles.store import resolve_bundle
from shoplens.errors import (
    ChannelNotFound,
    ImageCorrupt,
    ImageMissing,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUnsupported,
    RequestInvalid,
    ShoplensError,
)
from shoplens.images.picture import Limits
from shoplens.platform.parts import load_channel
from shoplens.predictions.policy import Outcome
from shoplens.serving.classifier import Classifier
from shoplens.serving.engine import Prediction
from shoplens.serving.photos import PhotoClassifier, best_labels
from shoplens.settings import read_settings
from tests.conftest import colourful, jpeg_of
from tests.support.fusion import write_fusion_bundle
from tests.unit.serving.test_classifier import root_of_mean_bundle


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_hidden_red() -> Image.Image:
    """Pixels that are red, and so transparent that white shows."""
    return Image.fromarray(np.full((40, 40, 4), (255, 0, 0, 0), np.uint8))


@pytest.fixture(scope="module")
def classifier(models_dir: Path) -> Iterator[PhotoClassifier[Prediction]]:
    """The built-in model with 1,000 labels."""
    with PhotoClassifier(
        Classifier(resolve_bundle("efficientnet-lite0-int8", models_dir)), finish=best_labels, threads=2
    ) as opened:
        yield opened


@pytest.mark.parametrize("top_k", [1, 3, 5, 25, 1_000])
def test_there_are_exactly_as_many_labels_as_asked_for(classifier: PhotoClassifier[Prediction], top_k: int) -> None:
    """Best first, and the same ones as in a longer list."""
    labels = classifier.classify(jpeg_of(colourful(1)), top_k=top_k).labels
    assert top_k == len(labels)
    assert labels == classifier.classify(jpeg_of(colourful(1)), top_k=None).labels[:top_k]


def test_none_means_all_labels_and_nothing_means_five(classifier: PhotoClassifier[Prediction]) -> None:
    """As the command line shows."""
    assert 5 == len(classifier.classify(jpeg_of(colourful(1))).labels)
    assert 1_000 == len(classifier.classify(jpeg_of(colourful(1)), top_k=None).labels)
    with pytest.raises(RequestInvalid, match="at least 1"):
        classifier.classify(jpeg_of(colourful(1)), top_k=0)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(colourful(1)),
        Image.fromarray(colourful(2, width=1_200, height=800)),
        Image.fromarray(colourful(3)[..., 0]),
        Image.fromarray(colourful(3)).quantize(16),
        with_hidden_red(),
    ],
    ids=["plain", "large", "grey", "palette", "transparent"],
)
def test_one_photo_in_any_form_has_one_answer(
    classifier: PhotoClassifier[Prediction], tmp_path: Path, image: Image.Image
) -> None:
    """Nothing is lost in a PNG, so all answers are equal."""
    data = encoded(image, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        forms: list[Any] = [data, bytearray(data), memoryview(data), path, str(path), io.BytesIO(data), file, image]
        answers = [classifier.classify(form) for form in [*forms, Image.open(path)]]
    assert {answers[0]} == set(answers)
    if image.mode == "RGB":
        assert answers[0] == classifier.classify(np.asarray(image))


def test_a_turned_photo_is_upright_in_every_form(classifier: PhotoClassifier[Prediction]) -> None:
    """By its EXIF orientation; as pixels it is turned already."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(colourful(4))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    data = encoded(turned, "PNG", exif=exif)
    answers = [classifier.classify(form) for form in (data, Image.open(io.BytesIO(data)), np.asarray(upright))]
    assert {answers[0]} == set(answers)


def test_arrays_that_could_be_misread_are_refused_with_what_to_do(classifier: PhotoClassifier[Prediction]) -> None:
    """Never a wrong answer."""
    for array, sentence in (
        (np.zeros((8, 8), np.uint8), r"\(8, 8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"list\(array\)"),
        (np.zeros((8, 8, 3)), "float64"),
    ):
        with pytest.raises(ImageUnsupported, match=sentence):
            classifier.classify(array)


def test_limits_hold_for_every_form(models_dir: Path, tmp_path: Path) -> None:
    """A file that is too large is not read to its end."""
    bundle = root_of_mean_bundle(tmp_path / "bundle")
    limits = Limits(max_bytes=1_000, max_pixels=1_000)
    photos = PhotoClassifier(Classifier(bundle), finish=best_labels, limits=limits)
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    source = io.BytesIO(bytes(5_000))
    for photo in (large, source):
        with pytest.raises(ImageTooLarge):
            photos.classify(photo)
    assert 1_001 == source.tell()
    for pixels in (np.zeros((100, 100, 3), np.uint8), Image.new("RGB", (100, 100))):
        with pytest.raises(ImageTooManyPixels):
            photos.classify(pixels)


class Unreadable:
    """A file whose storage is away."""

    def read(self, size: int = -1) -> bytes:
        raise OSError("the storage is away")


def test_what_is_no_photo_says_what_is(classifier: PhotoClassifier[Prediction], tmp_path: Path) -> None:
    """A missing file, an address, text, a number, a damaged picture that Pillow opened lazily."""
    damaged = encoded(Image.fromarray(colourful(1)), "PNG")[:-2_000]
    attempts: list[tuple[Any, type[ShoplensError], str]] = [
        (tmp_path / "missing.jpg", ImageMissing, "No such file"),
        (tmp_path, ImageMissing, "directory"),
        ("a\0b", ImageMissing, "null"),
        ("https://shop.example/a.jpg", ImageMissing, "Download"),
        (Unreadable(), ImageMissing, "away"),
        (io.StringIO("text"), ImageUnsupported, "binary mode"),
        (5, ImageUnsupported, "not int"),
        (7, ImageUnsupported, "a path, bytes"),
        (Image.open(io.BytesIO(damaged)), ImageCorrupt, "damaged"),
    ]
    for photo, error, sentence in attempts:
        with pytest.raises(error, match=sentence):
            classifier.classify(photo)
    outcomes = list(classifier.classify_many([*(photo for photo, _, _ in attempts), colourful(1)]))
    assert [error for _, error, _ in attempts] == [type(outcome) for outcome in outcomes[:-1]]
    assert isinstance(outcomes[-1], Prediction)


def test_a_bug_met_by_one_photo_leaves_the_others(
    classifier: PhotoClassifier[Prediction], caplog: pytest.LogCaptureFixture
) -> None:
    """It is an outcome with its cause, and the log has the traceback."""

    class Odd:
        def read(self, size: int = -1) -> bytes:
            raise ZeroDivisionError

    first, second = classifier([Odd(), colourful(1)])
    assert isinstance(first, ShoplensError)
    assert isinstance(first.__cause__, ZeroDivisionError)
    assert isinstance(second, Prediction)
    (logged,) = (record for record in caplog.records if "photos.item_failed" in str(record.msg))
    assert "ZeroDivisionError" in str(logged.msg) or (logged.exc_info and logged.exc_info[0] is ZeroDivisionError)


def test_a_fault_of_our_own_is_not_reported_as_a_damaged_photo(
    classifier: PhotoClassifier[Prediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a file that Pillow decodes nor for a picture in memory."""
    files = (encoded(Image.fromarray(colourful(1)), "PNG"), Image.fromarray(colourful(1)))
    monkeypatch.setattr("shoplens.images.pixels.to_srgb", None)  # calling it raises TypeError
    for photo in files:
        with pytest.raises(TypeError):
            classifier.classify(photo)


def test_a_call_answers_in_the_kind_that_it_was_asked_in(classifier: PhotoClassifier[Prediction]) -> None:
    """A prediction for a photo, a list for a list, an iterator for a generator, which is read as it goes."""
    taken = 0

    def endless() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield colourful(1)

    single = classifier(colourful(1), top_k=2)
    assert [single, single] == classifier([colourful(1), colourful(1)], top_k=2)
    stream = classifier(endless(), top_k=2)
    assert [single, single, single] == [next(stream) for _ in range(3)]
    assert taken < 12
    stream.close()


def test_embeddings_are_vectors_of_which_equal_photos_have_equal_ones(
    classifier: PhotoClassifier[Prediction], tmp_path: Path
) -> None:
    """One outcome each in a list; a model without them says so."""
    one, same, bad, other = classifier.embed_many([colourful(1), colourful(1), b"", colourful(2)])
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert (1, "float32") == (one.ndim, str(one.dtype))
    assert isinstance(same, np.ndarray)
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert isinstance(bad, ImageMissing)
    without = PhotoClassifier(Classifier(root_of_mean_bundle(tmp_path / "bundle")), finish=best_labels)
    with pytest.raises(RequestInvalid, match="no embeddings"):
        without.embed(colourful(1))


async def test_an_event_loop_goes_on_while_photos_are_classified(classifier: PhotoClassifier[Prediction]) -> None:
    """And each caller has its own outcome."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    good, bad = await asyncio.gather(
        classifier.classify_async(colourful(1), top_k=1), classifier.classify_async(b""), return_exceptions=True
    )
    ticking.cancel()
    assert isinstance(good, Prediction)
    assert isinstance(bad, ImageMissing)
    assert ticks > 2


def test_a_channel_decides_on_all_labels_whatever_is_shown(
    classifier: PhotoClassifier[Prediction], models_dir: Path, tmp_path: Path
) -> None:
    """Here the threshold is for the second label, and one is shown."""
    photo, second = next(
        (photo, labels[1])
        for photo in (colourful(seed) for seed in range(50))
        if (labels := classifier.classify(photo).labels)[1].score > 0.06
    )
    channels = {"look": {"labels": {second.label: {"reject_at": 0.06}}}}
    settings = read_settings(data_dir=tmp_path, models_dir=models_dir, channels=channels)
    with load_channel(settings=settings) as look:
        answer = look.classify(photo, top_k=1)
    assert ("look", 1) == (answer.channel, len(answer.labels))
    assert second.label != answer.top.label
    assert (Outcome.REJECT, second.label, 0.06) == (
        answer.decision.outcome, answer.decision.label, answer.decision.threshold,
    )  # fmt: skip
    with pytest.raises(ChannelNotFound, match="look, returns, reviews"):
        load_channel("lok", settings=settings)


def test_a_closed_classifier_gives_its_threads_back(models_dir: Path, tmp_path: Path) -> None:
    """Afterwards it takes no more lists."""
    bundle = root_of_mean_bundle(tmp_path / "bundle")
    with PhotoClassifier(Classifier(bundle), finish=best_labels, threads=1) as photos:
        assert [Prediction] == [type(each) for each in photos([np.full((9, 9, 3), 50, np.uint8)])]
    with pytest.raises(RuntimeError, match="shutdown"):
        photos([b""])
    assert bundle == photos.bundle


def test_a_call_with_a_text_answers_for_one_sample(tmp_path: Path) -> None:
    """A text alone, with a photo, or with several photos of the same thing; without any it says what is needed."""
    with PhotoClassifier(Classifier(write_fusion_bundle(tmp_path)), finish=best_labels, threads=1) as classify:
        red, green = (np.full((48, 64, 3), colour, np.uint8) for colour in ((250, 5, 5), (5, 250, 5)))

        assert ("text", "Colours > Blue") == (classify(text="blue").kind, classify(text="blue").top.label)
        assert ("both", "Colours > Red") == (classify(red, text="hat").kind, classify(red, text="hat").top.label)
        assert ["Colours > Red", "Colours > Green"] == [each.top.label for each in classify([red, green])]
        assert "Colours > Green" == classify.classify([red, green], text="green, green").top.label
        with pytest.raises(RequestInvalid, match="send a photo, a text, or both"):
            classify()
