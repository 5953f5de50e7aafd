"""The built-in model `starter-catalogue` fits its tree, and knows a title in several languages."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from shoplens.bundles.builtin import BUILTIN_MODELS, builtin_tree, prepare_builtin
from shoplens.errors import ShoplensError
from shoplens.serving.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(models_dir: Path) -> Classifier:
    """The model, built on this machine."""
    return Classifier(prepare_builtin("starter-catalogue", models_dir))


def test_its_labels_are_the_leaves_of_its_tree() -> None:
    """With the ids and the paths of the categories."""
    data = builtin_tree("starter-catalogue")
    assert data is not None
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    leaves = {
        row["id"]: row["path"]
        for row in rows
        if not any(other["path"].startswith(f"{row['path']} > ") for other in rows)
    }

    assert leaves == {label.id: label.name for label in BUILTIN_MODELS["starter-catalogue"].labels}
    assert (115, 91) == (len(rows), len(leaves))
    assert all(row["name_en"] and row["name_de"] for row in rows)


@pytest.mark.parametrize(
    ("title", "category"),
    [
        ("Blaues Sommerkleid mit Taschen", "Apparel > Dresses"),
        ("running shoes for men", "Apparel > Shoes"),
        ("camiseta negra", "Apparel > Tops > T-Shirts"),
        ("Zitronen 500 g", "Food > Fruit > Lemon"),
        ("fresh courgettes", "Food > Vegetables > Zucchini"),
        ("oat drink", "Food > Packages > Oat Milk > Oatly Oat Milk"),
    ],
)
def test_a_title_has_the_category_that_it_names(classifier: Classifier, title: str, category: str) -> None:
    """Also in words that no photo was labelled with."""
    (answer,) = classifier.classify([classifier.prepare(text=title)])

    assert not isinstance(answer, ShoplensError)
    assert (category, "text") == (answer.prediction.labels[0].label, answer.prediction.kind)


@pytest.mark.parametrize("title", ["asdf qwer", "xkcd zzyzx", "lorem ipsum", "12345", "screwdriver set"])
def test_a_title_of_unknown_words_has_no_sure_category(classifier: Classifier, title: str) -> None:
    """Some of their letters occur in known words."""
    (answer,) = classifier.classify([classifier.prepare(text=title)])

    assert not isinstance(answer, ShoplensError)
    assert answer.prediction.labels[0].score < 0.4


def test_it_is_small() -> None:
    """It lies in the repository."""
    assert len(BUILTIN_MODELS["starter-catalogue"].build()) < 3_000_000


def test_its_evaluation_has_a_part_for_each_kind() -> None:
    """Figures of photos alone are those of real photos; titles are composed, and the card says so."""
    model = BUILTIN_MODELS["starter-catalogue"]
    evaluation = model.evaluation
    assert evaluation is not None

    assert ["both", "photo", "text"] == [part.kind for part in evaluation.parts]
    assert "composed" in model.card.data
