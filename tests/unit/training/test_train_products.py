"""`shoplens train --recipe fusion`: from a CSV of products to a bundle that is measured per kind of input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("torch")

from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.cli.app import app
from shoplens.images.picture import Limits
from shoplens.platform.parts import load_bundle
from shoplens.training.errors import DatasetInvalid
from shoplens.training.products import Product, group_products, product_text, read_products

COLOURS = {"red": (220, 30, 30), "blue": (30, 40, 210)}
GARMENTS = ("dress", "hat")


def write_shop(folder: Path) -> Path:
    """Four categories of garment and colour: 72 products; of each six one has no text and one no photo."""
    random = np.random.default_rng(5)
    lines = ["label;designation;description;path"]
    for number in range(72):
        colour, garment = ("red", "blue")[number % 2], GARMENTS[number // 2 % 2]
        pixels = np.clip(np.array(COLOURS[colour]) + random.normal(0, 12, (48, 36, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        title = "" if number % 6 == 0 else f"A <b>{garment}</b> of model {number}"
        path = "" if number % 6 == 5 else f"{number}.png|{number}.png"
        lines.append(f"Shop > {garment} > {colour};{title};Worn daily;{path}")
    lines.append("Shop > hat > red;broken photo;;broken.png")
    (folder / "broken.png").write_bytes(b"no photo")
    file = folder / "products.csv"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Trained by the command."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "photos").mkdir()
    source = write_shop(folder / "photos")
    options = ["--name", "shop", "--recipe", "fusion", "--into", str(folder / "models"), "--held-out", "0.25", "--json"]
    result = CliRunner().invoke(app, ["train", str(source), *options, "--data-dir", str(folder / "data")])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["data"]["unreadable"][0]["name"] == "broken.png"
    return open_bundle(facts["path"])


def test_the_evaluation_has_a_part_and_a_temperature_per_kind(bundle: Bundle) -> None:
    """What a photo and a text tell together is first, for the card."""
    evaluation = bundle.evaluation
    assert evaluation is not None
    accuracy = {part.kind: part.accuracy for part in evaluation.parts}

    assert ["both", "photo", "text"] == list(accuracy)
    assert accuracy["both"] > 0.9
    assert 0.3 < accuracy["photo"] < 0.8
    kinds = [evaluation.calibration.kind, *(each.kind for each in evaluation.other_calibrations)]
    assert ["both", "photo", "text"] == kinds


def test_the_bundle_answers_to_a_photo_a_text_and_both(bundle: Bundle) -> None:
    """Through the Python interface, which every other way shares."""
    photo = np.full((80, 60, 3), COLOURS["blue"], np.uint8)
    with load_bundle(str(bundle.root)) as classify:
        both = classify(photo, text="hat")
        text = classify(text="blue dress")
        alone = classify(photo)

    assert ("Shop > hat > blue", "both") == (both.labels[0].label, both.kind)
    assert ("text", True) == (text.kind, "dress" in text.labels[0].label)
    assert ("photo", True) == (alone.kind, "blue" in alone.labels[0].label)


def test_products_with_the_same_words_or_photo_stay_together(tmp_path: Path) -> None:
    """Else the validation part would have seen its answers."""
    products = read_products(write_shop(tmp_path), limits=Limits())
    again = [Product(name="x", label="a", text="a DRESS of model 4, worn daily!"), *products]

    groups = group_products(again)

    index = next(at for at, product in enumerate(again) if product.text.startswith("A dress of model 4\n"))
    assert groups[0] == groups[index]
    assert len(set(groups)) == len(products) - 11  # the twelve without a title have the same description


def test_a_text_is_cleaned_as_in_the_catalogue() -> None:
    """A title, and a description on a second line."""
    assert product_text("<b>Red</b> \u202edress", "a\n b") == "Red dress\na b"
    assert product_text("", "") == ""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("title\nx\n", "must name a column `label`"),
        ("label,title\n,x\n", "line 2: the label is empty"),
        ("label,path\na,../x.png\n", "below the folder"),
        ("label,path\na,missing.png\n", "cannot be read"),
        ('label,title\n"a,x\n', "is not a CSV"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path: Path, content: str, sentence: str) -> None:
    """Before anything is trained."""
    file = tmp_path / "products.csv"
    file.write_text(content, "utf-8")
    with pytest.raises(DatasetInvalid, match=sentence):
        read_products(file, limits=Limits())
