"""Record what the built-in models answer to the probe pictures: nothing in, JSON out.

    python tools/record_probes.py > src/shoplens/bundles/builtin/data/probes.json

To be run, and its result looked at, only when a recipe changes on purpose.
"""

from __future__ import annotations

import json

import numpy as np

from shoplens.bundles.builtin.recipes import RECIPES, Recipe
from shoplens.bundles.probe import open_session, probe_scores

BEST = 5


def record(recipe: Recipe) -> list[list[tuple[int, float]]]:
    """Index and score of the best labels of each probe picture."""
    scores = probe_scores(open_session(recipe.build(), optimise=True), recipe.manifest)
    orders = np.argsort(-scores, axis=1, kind="stable")[:, :BEST]
    return [
        [(int(label), round(float(row[label]), 5)) for label in order]
        for row, order in zip(scores, orders, strict=True)
    ]


def main() -> None:
    """Print the answers of all built-in models."""
    lines = (f" {json.dumps(name)}: {json.dumps(record(recipe))}" for name, recipe in RECIPES.items())
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
