"""How right first answers are for a tree that no model knows: by the number of examples, and how honest their scores.

python -m bench.cold_start --data DIR [--models-dir DIR]   (DIR has products/ and groceries/)
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import shoplens
from shoplens.catalogue.suggest.cold_start import ColdStart, Example
from shoplens.catalogue.tree.categories import Tree
from shoplens.catalogue.tree.source import read_tree

TESTED = 2_000
COUNTS = (0, 1, 3, 5, 20)


def report(name: str, tree: Tree, samples: Sequence[Example], *, counts: Sequence[int] = COUNTS) -> None:
    """Print a line for each number of examples; the samples that are tested are the same in all."""
    by_category: dict[str, list[Example]] = defaultdict(list)
    tested: list[Example] = []
    for sample in samples:
        if len(by_category[sample.category]) < max(counts):
            by_category[sample.category].append(sample)
        elif len(tested) < TESTED:
            tested.append(sample)
    for count in counts:
        cold = ColdStart(tree, (each for found in by_category.values() for each in found[:count]))
        rows = [_outcome(cold, each) for each in tested]
        right, top3, confidence = (np.array(column, float) for column in zip(*rows, strict=True))
        print(
            f"{name:24} {count:3} examples  accuracy {right.mean():.3f}  in three {top3.mean():.3f}  "
            f"mean score {confidence.mean():.3f}  calibration error {calibration_error(confidence, right):.3f}"
        )


def _outcome(cold: ColdStart, sample: Example) -> tuple[bool, bool, float]:
    scores = cold.scores(sample.text, sample.embedding)
    best = sorted(scores, key=lambda each: -scores[each])[:3]
    return best[:1] == [sample.category], sample.category in best, scores[best[0]] if best else 0.0


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The expected calibration error in ten bins (Guo et al. 2017)."""
    which = np.minimum((confidence * 10).astype(int), 9)
    return float(
        sum(
            abs(confidence[which == each].mean() - right[which == each].mean()) * float((which == each).mean())
            for each in np.unique(which)
        )
    )


def main() -> None:
    """Products by text, groceries by photo and by both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="efficientnet-lite0")
    arguments = parser.parse_args()
    products = arguments.data / "products"
    tree = read_tree((products / "categories.csv").read_bytes())
    titles = [row["designation"] for row in csv.DictReader((products / "X.csv").open(encoding="utf-8"))]
    codes = [row["prdtypecode"] for row in csv.DictReader((products / "Y.csv").open(encoding="utf-8"))]
    samples = [Example(category=code, text=title) for title, code in zip(titles, codes, strict=True)]
    random.Random(1).shuffle(samples)
    report("products, text", tree, samples)

    groceries = arguments.data / "groceries"
    tree = read_tree((groceries / "categories.csv").read_bytes())
    with shoplens.load_bundle(arguments.model) as model:
        files = [path for part in ("train", "validation") for path in sorted((groceries / part).glob("*/*.jpg"))]
        embeddings = list(model.embed_many(str(path) for path in files))
    photos = [
        Example(category=path.parent.name, text="", embedding=embedding)
        for path, embedding in zip(files, embeddings, strict=True)
        if isinstance(embedding, np.ndarray)
    ]
    random.Random(1).shuffle(photos)
    report("groceries, photo", tree, photos)


if __name__ == "__main__":
    main()
