"""Train `starter-catalogue` and write its files: `python -m tools.build_models.starter CLOTHING GROCERIES`.

CLOTHING and GROCERIES are the folders with `train` and `validation`. Each photo gets a title that is composed from
the names and synonyms of its category and the word lists here; there are also titles without photos, for every
category. Embeddings are kept in `build/starter-catalogue`. Run `tools.build_models.probes` afterwards.
"""

from __future__ import annotations

import csv
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from shoplens.bundles.builtin import BUILTIN_MODELS
from shoplens.bundles.builtin.onnx_graph import EMBEDDING, INPUT, encoder_graph
from shoplens.bundles.manifest import to_json
from shoplens.bundles.probe import open_session
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.preprocess import preprocess
from shoplens.texts.spec import TextSpec
from shoplens.training.card import CardTexts
from shoplens.training.products import Product, product_text
from shoplens.training.progress import ProgressLog
from shoplens.training.recipes.head import IMAGE, in_parallel
from shoplens.training.recipes.transfer import random_view
from shoplens.training.train import TrainConfig
from shoplens.training.train_products import ENCODER, Inputs, train_products
from tools.build_models import DATA
from tools.project import ROOT

NAME: Final = "starter-catalogue"
WORK: Final = ROOT / "build" / NAME
TITLES: Final = 60
"""Titles without a photo per category."""
VIEWS: Final = {"clothing": 3, "groceries": 5}
"""Each photo, its mirror image, and random parts, which have no text."""
EPOCHS: Final = 8
TEXT: Final = TextSpec(buckets=1 << 14, characters=(3, 4))
"""Fewer tokens than the recipe's own: composed titles have few words, and lose nothing by it."""
CLOTHING: Final = {
    "dress": "Apparel > Dresses",
    "hat": "Apparel > Hats",
    "longsleeve": "Apparel > Tops > Long-Sleeved Tops",
    "outwear": "Apparel > Outerwear",
    "pants": "Apparel > Bottoms > Trousers",
    "shirt": "Apparel > Tops > Shirts",
    "shoes": "Apparel > Shoes",
    "shorts": "Apparel > Bottoms > Shorts",
    "skirt": "Apparel > Bottoms > Skirts",
    "t-shirt": "Apparel > Tops > T-Shirts",
}
BRANDS: Final = (
    "Norrhav",
    "Velmora",
    "Tiliaz",
    "Kastrel",
    "Ombrette",
    "Fjordell",
    "Zarvino",
    "Lunq",
    "Pellham",
    "Ostara",
)
BEFORE: Final = {
    "Apparel": [
        "women's",
        "men's",
        "kids",
        "girls",
        "boys",
        "unisex",
        "red",
        "blue",
        "black",
        "white",
        "green",
        "grey",
        "yellow",
        "pink",
        "brown",
        "navy",
        "beige",
        "striped",
        "floral",
        "printed",
        "vintage",
        "slim",
        "oversized",
        "casual",
        "summer",
        "winter",
        "Damen",
        "Herren",
        "Kinder",
        "rot",
        "blau",
        "schwarz",
        "weiß",
        "grün",
        "gestreift",
        "geblümt",
        "femme",
        "homme",
        "rouge",
        "bleu",
        "noir",
        "blanc",
        "mujer",
        "hombre",
        "rojo",
        "azul",
        "negro",
        "nuovo",
    ],
    "Food": [
        "fresh",
        "organic",
        "ripe",
        "bio",
        "frisch",
        "reif",
        "large",
        "small",
        "sweet",
        "Swedish",
        "Spanish",
        "local",
        "regional",
        "new",
        "season",
        "premium",
        "Bio",
        "aus",
        "Spanien",
        "deutsche",
        "frais",
        "mûr",
        "fresco",
        "maturo",
        "ekologisk",
    ],
}
AFTER: Final = {
    "Apparel": [
        "cotton",
        "linen",
        "wool",
        "polyester",
        "100% cotton",
        "size M",
        "size L",
        "size 38",
        "W32 L34",
        "Gr. 40",
        "Größe S",
        "XL",
        "aus Baumwolle",
        "aus Leinen",
        "taille 42",
        "en coton",
        "regular fit",
        "with pockets",
        "new collection",
        "pack of 2",
        "Größe 134",
        "EU 39",
    ],
    "Food": [
        "1 kg",
        "500 g",
        "1 l",
        "1.5 l",
        "per piece",
        "pack of 4",
        "Klasse I",
        "class 1",
        "6 pcs",
        "250 g",
        "Stück",
        "im Netz",
        "la pièce",
        "1 litre",
        "4 x 125 g",
        "chilled",
        "Spain",
        "Italy",
        "loose",
        "lose",
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A category without children: the ways to name it and its parents, and a description, if there is one."""

    id: str
    path: str
    names: tuple[str, ...]
    parents: tuple[str, ...]
    description: str


def leaves(groceries: Path) -> dict[str, Leaf]:
    """The leaves of the tree by their paths."""
    with (DATA / f"{NAME}-tree.csv").open(encoding="utf-8", newline="") as table:
        rows = {row["path"]: row for row in csv.DictReader(table)}
    with (groceries / "categories.csv").open(encoding="utf-8", newline="") as table:
        described = {row["path"]: row["description"] for row in csv.DictReader(table)}

    def names(path: str) -> tuple[str, ...]:
        row = rows[path]
        return (row["name_en"], row["name_en"], row["name_de"], row["name_de"], *row["synonyms"].split("|"))

    found = {}
    for path, row in rows.items():
        if not any(other.startswith(f"{path} > ") for other in rows):
            parent = path.rpartition(" > ")[0]
            parents = names(parent) if parent.count(" > ") > 1 else ()
            found[path] = Leaf(
                id=row["id"], path=path, names=names(path), parents=parents, description=described.get(path, "")
            )
    return found


def composed(leaf: Leaf, random: np.random.Generator) -> str:
    """A title, sometimes with a description, as shops write them."""

    def maybe(words: Sequence[str], share: float) -> list[str]:
        return [str(random.choice(words))] if words and random.random() < share else []

    department = leaf.path.partition(" > ")[0]
    name = leaf.parents if leaf.parents and random.random() < 0.1 else leaf.names
    words = [
        *maybe(BRANDS, 0.4), *maybe(BEFORE[department], 0.5), *maybe(BEFORE[department], 0.3), str(random.choice(name)),
        *maybe(AFTER[department], 0.5), *maybe(AFTER[department], 0.2),
    ]  # fmt: skip
    sentences = [each for each in leaf.description.split(". ") if each]
    title = " ".join(words)
    return product_text(
        title.upper() if random.random() < 0.05 else title, " ".join(maybe(sentences, 0.25) + maybe(sentences, 0.1))
    )


def embeddings(files: Sequence[Path], name: str, *, view: int = 0) -> NDArray[np.float32]:
    """(n, 1280) of length 1, computed once: of the photos, of their mirror images (`view` 1), or of a random part of
    each, in another light (from 2).
    """
    cache = WORK / f"{name}-{view}.npy"
    if not cache.exists():
        session = open_session(encoder_graph(BUILTIN_MODELS[ENCODER].build()), optimise=True)

        def row(file: Path) -> NDArray[np.float32]:
            picture = decode(file.read_bytes(), limits=Limits(), short_side=IMAGE.resize)
            if view > 1:
                seed = zlib.crc32(f"{view} {file.parent.name}/{file.name}".encode())
                seen = random_view(picture.pixels, IMAGE.crop, np.random.default_rng(seed))
            else:
                pixels = preprocess(picture, IMAGE)
                seen = pixels[:, ::-1] if view == 1 else pixels
            embedded: NDArray[np.float32] = session.run([EMBEDDING], {INPUT: np.ascontiguousarray(seen)[None]})[0]
            return embedded

        WORK.mkdir(parents=True, exist_ok=True)
        np.save(cache, np.concatenate(list(in_parallel(row, files))).astype(np.float16))
    found = np.load(cache).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def photos(folders: dict[str, Path], part: str) -> Iterator[tuple[str, str, int, NDArray[np.float32]]]:
    """Name, path of the category, view and embedding of each photo; training photos have several views."""
    with (folders["groceries"] / "categories.csv").open(encoding="utf-8", newline="") as table:
        paths = CLOTHING | {row["folder"]: row["path"] for row in csv.DictReader(table)}
    for name, folder in folders.items():
        files = sorted(file for file in (folder / part).rglob("*") if file.is_file())
        for view in range(VIEWS[name] if part == "train" else 1):
            for number, (file, embedding) in enumerate(
                zip(files, embeddings(files, f"{name}-{part}", view=view), strict=True)
            ):
                yield f"{name}/{file.name} {number}-{view}", paths[file.parent.name], view, embedding


def main() -> None:
    """Train on the folders that the command line names."""
    folders = {"clothing": Path(sys.argv[1]), "groceries": Path(sys.argv[2])}
    by_path, random = leaves(folders["groceries"]), np.random.default_rng(0)
    train, held = (
        [
            Product(
                name=name, label=path, text="" if view > 1 else composed(by_path[path], random), embedding=embedding
            )
            for name, path, view, embedding in photos(folders, part)
        ]
        for part in ("train", "validation")
    )
    held_texts = {product.text for product in held}
    titles = [
        Product(name=f"title {number} of {leaf.id}", label=leaf.path, text=text)
        for leaf in by_path.values()
        for number in range(TITLES)
        if (text := composed(leaf, random)) not in held_texts
    ]
    train = [
        product
        if product.text not in held_texts
        else Product(name=product.name, label=product.label, embedding=product.embedding)
        for product in train
    ]
    config = TrainConfig(
        name=NAME,
        version="1.0.0",
        recipe="fusion",
        texts=CardTexts(
            title="Starter catalogue, fashion and groceries",
            licence="Apache-2.0; the photos of clothes are CC0-1.0, those of groceries MIT (see NOTICE)",
            data_name="clothing-dataset-small (CC0, collected by Alexey Grigorev), GroceryStoreDataset (MIT, by Marcus "
            "Klasson and others), each photo with a title composed from lists of words, and such titles alone. The "
            "figures of texts are on composed titles too, so they say little of the titles of a shop; those of photos "
            "are on real photos.",
            date="2026-11-22",
        ),
        into=WORK / "models",
        work_dir=WORK / "work",
        epochs=EPOCHS,
    )
    with ProgressLog(Console(stderr=True)) as callback:
        result = train_products(
            [*train, *titles],
            config,
            validation=held,
            label_ids={leaf.path: leaf.id for leaf in by_path.values()},
            inputs=Inputs(image=IMAGE, text=TEXT),
            callback=callback,
        )
    for file, part in (("bundle", "manifest"), ("labels", "labels"), ("card", "card")):
        (DATA / f"{NAME}-{part}.json").write_bytes((result.bundle.root / f"{file}.json").read_bytes())
    # Without the tables of 91 by 91 classes, which are larger than all else.
    parts = tuple(replace(each, confusion=()) for each in result.evaluation.parts)
    (DATA / f"{NAME}-evaluation.json").write_bytes(to_json(replace(result.evaluation, parts=parts)))
    (DATA / f"{NAME}.onnx").write_bytes((result.bundle.root / "model.onnx").read_bytes())


if __name__ == "__main__":
    main()
