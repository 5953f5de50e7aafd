"""The recipe `fusion`: products by photo, text or both, and the graph that computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from shoplens.bundles.bundle import write_bundle
from shoplens.bundles.manifest import TEXT_FORMAT_VERSION, Label, Manifest, SampleKind
from shoplens.bundles.probe import check_answers, open_session
from shoplens.images.picture import ImageSpec
from shoplens.serving.classifier import padded
from shoplens.texts.features import features
from shoplens.texts.spec import TextSpec
from shoplens.training.errors import DatasetInvalid
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.fusion import FusionData, FusionModel, Vocabulary, fit_fusion, mean_embedding
from shoplens.training.recipes.fusion_network import chosen_share
from shoplens.training.recipes.fusion_text import learn_texts, text_groups
from tests.support.fusion import encoder_graph
from tests.unit.bundles.conftest import CARD

SPEC = TextSpec(buckets=4_096)
GARMENTS = ("dress", "hat", "shoe")
COLOURS = ("red", "green", "blue")


def shop(count: int = 240, seed: int = 0) -> tuple[FusionData, np.ndarray]:
    """Nine classes of garment and colour: the text names the garment, the photo shows the colour.

    A sixth of the products has no text, a sixth no photo.
    """
    random = np.random.default_rng(seed)
    garments, colours = random.integers(0, 3, count), random.integers(0, 3, count)
    texts = [f"{GARMENTS[garment]} size {random.integers(30, 50)}" for garment in garments]
    photos = np.eye(3, dtype=np.float32)[colours] + random.normal(0, 0.1, (count, 3)).astype(np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    lacking = random.integers(0, 6, count)
    photos[lacking == 0] = 0
    found = [features("" if lacks == 1 else text, SPEC) for text, lacks in zip(texts, lacking, strict=True)]
    return FusionData.of(found, photos), (garments * 3 + colours).astype(np.int64)


@pytest.fixture(scope="module")
def model() -> FusionModel:
    """Trained on 480 products."""
    data, labels = shop(480)
    return fit_fusion(data, labels, 9, options=RecipeOptions(epochs=12), spec=SPEC)


def test_each_head_knows_what_its_input_tells(model: FusionModel) -> None:
    """The text tells the garment, the photo the colour, and only both tell the class."""
    data, labels = shop(seed=1)

    def right(kind: SampleKind, part: int) -> float:
        found = model.logits(data, kind).argmax(axis=1)
        mask = data.having(kind)
        same = {3: found // 3 == labels // 3, 1: found % 3 == labels % 3, 0: found == labels}[part]
        return float(same[mask].mean())

    assert right("text", 3) > 0.95
    assert right("photo", 1) > 0.95
    assert right("both", 0) > 0.95


def test_the_graph_computes_what_was_learned_and_applies_the_temperatures(model: FusionModel) -> None:
    """Also where a text or a photo is missing, and for texts of different lengths in one batch."""
    texts = ["red dress size 40", "hat", "", "words never seen before"]
    found = [features(text, SPEC) for text in texts]
    photos = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0.6, 0.8]], np.float32)
    tokens, weights = padded([each if len(each.tokens) else None for each in found])
    session = open_session(model.export({"photo": 2.0, "text": 0.5, "both": 4.0}), optimise=True)

    outputs = session.run(["photo", "text", "both"], {"tokens": tokens, "weights": weights, "embedding": photos})

    data = FusionData.of(found, photos)
    for values, (kind, temperature) in zip(outputs, [("photo", 2.0), ("text", 0.5), ("both", 4.0)], strict=True):
        expected = model.logits(data, kind) / temperature  # type: ignore[arg-type]
        assert values == pytest.approx(expected, abs=0.02)


def test_the_same_seed_gives_the_same_bytes(model: FusionModel) -> None:
    """On one machine."""
    data, labels = shop(480)
    again = fit_fusion(data, labels, 9, options=RecipeOptions(epochs=12), spec=SPEC)
    other = fit_fusion(data, labels, 9, options=RecipeOptions(epochs=12, seed=1), spec=SPEC)

    one, two, three = (each.export({"photo": 1, "text": 1, "both": 1}) for each in (model, again, other))
    assert one == two
    assert one != three


def test_its_bundle_answers_the_probes(model: FusionModel, tmp_path: Path) -> None:
    """Probe texts are mostly unknown tokens."""
    manifest = Manifest(
        format_version=TEXT_FORMAT_VERSION, name="shop", version="1.0.0", task="product-classification",
        input="pixels", output="both", embedding="embedding", activation="softmax",
        image=ImageSpec(resize=8, crop=8, dtype="uint8"), max_batch=32, text=SPEC,
    )  # fmt: skip
    labels = tuple(Label(id=str(index), name=f"class {index}") for index in range(9))
    bundle = write_bundle(
        tmp_path / "shop", manifest=manifest, labels=labels, card=CARD, encoder=encoder_graph(),
        model=model.export({"photo": 1, "text": 1, "both": 1}),
    )  # fmt: skip

    check_answers(bundle.model_path, bundle.encoder_path, bundle.manifest, len(labels))


def test_products_without_any_photo_give_a_model_of_texts(tmp_path: Path) -> None:
    """With one head, and a graph that asks for no embedding."""
    data, labels = shop()
    model = fit_fusion(
        replace(data, embeddings=np.zeros((len(data), 0), np.float32)), labels // 3, 3,
        options=RecipeOptions(epochs=6), spec=SPEC,
    )  # fmt: skip

    session = open_session(model.export({"text": 1.0}))

    assert ("text",) == model.kinds
    assert {"tokens", "weights"} == {each.name for each in session.get_inputs()}
    assert (model.logits(data, "text").argmax(axis=1) == labels // 3)[data.has_text].mean() > 0.95


def test_texts_of_too_many_classes_for_machines_share_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a weight per class and token would not fit into memory."""
    data, labels = shop()
    monkeypatch.setattr("shoplens.training.recipes.fusion_text.MOST_WEIGHTS", 0)
    model = fit_fusion(data, labels // 3, 3, options=RecipeOptions(epochs=6), spec=SPEC)

    assert 128 == model.table.shape[1]
    assert (model.logits(data, "text").argmax(axis=1) == labels // 3)[data.has_text].mean() > 0.95


def test_machines_of_more_classes_than_a_row_has_values_lose_little_by_a_lower_rank() -> None:
    """Forty classes in rows of thirty values."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 40, 400)
    data = FusionData.of([features(f"article{label} of the shop", SPEC) for label in labels])
    part, unseen = learn_texts(
        Vocabulary.of(data, SPEC.buckets).matrix(data), labels, random.integers(0, 4, 400), 40, seed=0, size=30
    )

    assert (30, 40) == (part.table.shape[1], part.layer.weight.shape[0])
    assert (part.logits(Vocabulary.of(data, SPEC.buckets).matrix(data)).argmax(axis=1) == labels).mean() > 0.95
    assert (unseen.argmax(axis=1) == labels).mean() > 0.9


def test_the_logits_for_both_heads_come_from_texts_that_were_not_learned_from() -> None:
    """Texts of one word of their own each: what was learned knows them all, what was not knows none."""
    labels = np.arange(80) % 2
    data = FusionData.of([features(f"x{number:05d}", replace(SPEC, characters=(6, 6))) for number in range(80)])
    matrix = Vocabulary.of(data, SPEC.buckets).matrix(data)
    part, unseen = learn_texts(matrix, labels, text_groups(data), 2, seed=0)

    assert (part.logits(matrix).argmax(axis=1) == labels).mean() > 0.95
    assert (unseen.argmax(axis=1) == labels).mean() < 0.7


def test_as_much_is_kept_of_what_a_photo_adds_as_is_most_often_right() -> None:
    """All of it where only the photo knows, less where the photo is wrong and loud."""
    labels = np.arange(300) % 3
    truth, wrong = np.eye(3, dtype=np.float32)[labels], np.eye(3, dtype=np.float32)[(labels + 1) % 3]

    assert chosen_share(np.zeros_like(truth), truth, labels) == 1.0
    assert chosen_share(0.6 * wrong, truth, labels) == 1.0
    assert chosen_share(truth, 1.2 * wrong, labels) == 0.75
    assert chosen_share(truth, 1.8 * wrong, labels) == 0.5


def test_the_head_for_both_keeps_the_share_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing of the photo it answers as the head for texts."""
    data, labels = shop(120)
    monkeypatch.setattr("shoplens.training.recipes.fusion_network.SHARES", (0.0,))
    model = fit_fusion(data, labels, 9, options=RecipeOptions(epochs=1), spec=SPEC)

    assert (model.logits(data, "both").argmax(axis=1) == model.logits(data, "text").argmax(axis=1)).all()


def test_products_without_any_text_are_refused() -> None:
    """The sentence names the recipes for photos."""
    data, labels = shop()
    bare = FusionData.of([features("", SPEC)] * len(data), data.embeddings)
    with pytest.raises(DatasetInvalid, match="recipe `transfer` or `head`"):
        fit_fusion(bare, labels, 9, options=RecipeOptions(), spec=SPEC)


def test_several_photos_are_averaged_each_with_length_one() -> None:
    """A photo with a long embedding counts no more than another."""
    assert mean_embedding(np.array([[10, 0], [0, 0.1]], np.float32)) == pytest.approx([0.5, 0.5])
