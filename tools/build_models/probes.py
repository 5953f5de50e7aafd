"""Record the answers of the built-in models to the probe pictures: `python -m tools.build_models.probes`."""

from __future__ import annotations

import json
from typing import Final

import numpy as np

from shoplens.bundles.builtin import BUILTIN_MODELS, BuiltinModel, builtin_scores
from tools.build_models import DATA

BEST: Final = 5


def record(source: BuiltinModel) -> list[list[tuple[int, float]]]:
    """Index and score of the best labels of each probe picture."""
    scores = builtin_scores(source.build(), source, source.encoder() if source.encoder else None)
    orders = np.argsort(-scores, axis=1, kind="stable")[:, :BEST]
    return [
        [(int(label), round(float(row[label]), 5)) for label in order]
        for row, order in zip(scores, orders, strict=True)
    ]


def main() -> None:
    """Write the answers of all built-in models."""
    lines = (f" {json.dumps(name)}: {json.dumps(record(source))}" for name, source in BUILTIN_MODELS.items())
    (DATA / "probes.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
