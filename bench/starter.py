"""`python -m bench.starter CLOTHING GROCERIES`: `starter-catalogue` on the photos that are kept for validation.

Titles are composed as for training, with other random choices. The 43 groups of the groceries are their categories at
the third level, such as "Food > Fruit > Apple"; a group has the scores of its categories together.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np

from shoplens.bundles.builtin import BUILTIN_MODELS, prepare_builtin
from shoplens.serving.classifier import Classifier, PreparedSample
from shoplens.texts.features import features
from tools.build_models.starter import NAME, TEXT, WORK, composed, leaves, photos

UNKNOWN: Final = ("asdf qwer", "xkcd zzyzx", "lorem ipsum", "12345", "Milk", "Tasche", "screwdriver set")


def group(path: str) -> str:
    """The first three names of a path of food."""
    return " > ".join(path.split(" > ")[:3])


def main() -> None:
    """Print the tables."""
    folders = {"clothing": Path(sys.argv[1]), "groceries": Path(sys.argv[2])}
    by_path, random = leaves(folders["groceries"]), np.random.default_rng(1)
    classifier = Classifier(prepare_builtin(NAME, WORK / "prepared"))
    names = [label.name for label in BUILTIN_MODELS[NAME].labels]
    every = list(photos(folders, "validation"))
    texts = [features(composed(by_path[path], random), TEXT) for _, path, _, _ in every]
    truth = np.array([names.index(path) for _, path, _, _ in every])
    of_food = np.array([name.startswith("groceries/") for name, *_ in every])
    groups = sorted({group(path) for _, path, _, _ in every if path.startswith("Food")})
    member = np.array([[group(name) == each for each in groups] for name in names])
    print("| kind | clothing, 10 classes | groceries, 81 classes | groceries, 43 groups |\n|---|---|---|---|")
    for kind in ("photo", "text", "both"):
        scores = classifier.scores(
            [
                PreparedSample(text=None if kind == "photo" else text, embedding=None if kind == "text" else embedding)
                for text, (_, _, _, embedding) in zip(texts, every, strict=True)
            ]
        )
        right = scores.argmax(axis=1) == truth
        grouped = (scores @ member).argmax(axis=1)[of_food] == member[truth[of_food]].argmax(axis=1)
        print(f"| {kind} | {right[~of_food].mean():.1%} | {right[of_food].mean():.1%} | {grouped.mean():.1%} |")
    print("\n| title | best category | score |\n|---|---|---|")
    for title, row in zip(
        UNKNOWN, classifier.scores([PreparedSample(text=features(title, TEXT)) for title in UNKNOWN]), strict=True
    ):
        print(f"| {title} | {names[int(row.argmax())]} | {row.max():.2f} |")


if __name__ == "__main__":
    main()
