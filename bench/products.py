"""`python -m bench.products --data products`: the recipe `fusion` on products in the format of the Rakuten challenge.

Four fifths of the products train, one fifth is measured; products with the same title stay together. Text, photo and
both are measured on whole titles and on titles without the words of any category path ("cut"), beside TF-IDF with a
linear SVM. Nothing is written but the embeddings, to `--cache`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC

from shoplens.bundles.builtin import BUILTIN_MODELS
from shoplens.bundles.builtin.onnx_graph import encoder_graph
from shoplens.images.picture import Limits
from shoplens.texts.features import features
from shoplens.training.products import Product, embed_products, group_products, product_text
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.fusion import TEXT, FusionData, fit_fusion
from shoplens.training.samples import PhotoFile
from shoplens.training.train_products import ENCODER, PHOTO

Labels = NDArray[np.int64]


def read(folder: Path) -> tuple[list[Product], dict[str, str]]:
    """The products, labelled with their codes, and the path of each code."""
    with (folder / "X.csv").open(encoding="utf-8", newline="") as one, (folder / "Y.csv").open(newline="") as other:
        rows = list(zip(csv.DictReader(one), csv.DictReader(other), strict=True))
    with (folder / "categories.csv").open(encoding="utf-8", newline="") as file:
        paths = {row["prdtypecode"]: row["path"] for row in csv.DictReader(file)}
    products = []
    for row, label in rows:
        path = folder / "images" / f"image_{row['imageid']}_product_{row['productid']}.jpg"
        photo = PhotoFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), limits=Limits())
        products.append(
            Product(
                name=row["productid"],
                label=label["prdtypecode"],
                text=product_text(row["designation"], row["description"]),
                photos=(photo,),
            )
        )
    return products, paths


def held_products(products: list[Product]) -> NDArray[np.bool_]:
    """Which fifth of the products is measured: whole groups of equal titles."""
    groups = np.array(group_products([Product(name=each.name, label=each.label, text=each.text) for each in products]))
    order = np.random.default_rng(0).permutation(groups.max() + 1)
    return np.isin(groups, order[: len(order) // 5])


def without_category_words(text: str, paths: dict[str, str]) -> str:
    """`text` without the words of the paths, in the singular and in the plural."""
    words = {word for path in paths.values() for word in re.findall(r"[a-z]+", path.lower())}
    forms = {
        form
        for word in words
        for form in (word, f"{word}s", f"{word}es", word.removesuffix("s"), word.removesuffix("es"))
    }
    forms = {form for form in forms if len(form) > 1}
    return " ".join(word for word in re.findall(r"\w+", text) if word.lower() not in forms)


def embeddings(products: list[Product], cache: Path) -> NDArray[np.float32]:
    """(n, d), computed once."""
    if not cache.exists():
        done, _ = embed_products(products, encoder_graph(BUILTIN_MODELS[ENCODER].build()), PHOTO)
        np.save(cache, np.stack([np.asarray(each.embedding) for each in done]).astype(np.float16))
    found = np.load(cache).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def row(name: str, truth: Labels, found: Labels, cpu_s: float) -> None:
    """Print one line of the table."""
    weighted, macro = (f1_score(truth, found, average=average, zero_division=0) for average in ("weighted", "macro"))
    print(f"| {name} | {weighted:.3f} | {macro:.3f} | {cpu_s:.0f} |", flush=True)


def measure(titles: str, texts: list[str], rows: NDArray[np.float32], labels: Labels, held: NDArray[np.bool_]) -> None:
    """The baseline and the three heads on these texts."""
    train, test = np.flatnonzero(~held), np.flatnonzero(held)
    began = time.process_time()
    found = [features(text, TEXT) for text in texts]

    def part(chosen: Labels) -> FusionData:
        return FusionData.of([found[index] for index in chosen], rows[chosen])

    classes = int(labels.max()) + 1
    model = fit_fusion(part(train), labels[train], classes, options=RecipeOptions())
    cpu_s = time.process_time() - began
    for kind in model.kinds:
        answers = model.logits(part(test), kind).argmax(axis=1)
        row(f"fusion: {kind}, {titles} titles", labels[test], answers.astype(np.int64), cpu_s)
    began = time.process_time()
    tfidf: Any = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    inputs = np.array(texts, object)
    svm = LinearSVC().fit(tfidf.fit_transform(inputs[train]), labels[train])
    row(
        f"TF-IDF and SVM, {titles} titles",
        labels[test],
        svm.predict(tfidf.transform(inputs[test])),
        time.process_time() - began,
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("build/products-embeddings.npy"))
    options = parser.parse_args()
    products, paths = read(options.data)
    codes = sorted(paths)
    labels = np.array([codes.index(product.label) for product in products], np.int64)
    held = held_products(products)
    options.cache.parent.mkdir(parents=True, exist_ok=True)
    rows = embeddings(products, options.cache)
    print("| model | weighted F1 | macro F1 | CPU s to train |\n|---|---|---|---|")
    texts = [product.text for product in products]
    measure("whole", texts, rows, labels, held)
    measure("cut", [without_category_words(text, paths) for text in texts], rows, labels, held)


if __name__ == "__main__":
    main()
