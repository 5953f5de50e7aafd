"""`python -m bench.scaled_decoding`: what decoding a large JPEG at a fraction of its size changes in the scores.

Each sample photo is enlarged to a size, encoded as JPEG, and classified twice by the 8-bit model: decoded whole and
decoded at the scale that serving takes. Needs the sample photos (SHOPLENS_SHARED_DATA).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from bench.photos import SIZES, PhotoSize, photos
from shoplens.bundles.builtin import prepare_builtin
from shoplens.errors import ShoplensError
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.serving.classifier import Classifier
from shoplens.serving.engine import Prediction

MODEL = "efficientnet-lite0-int8"


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaled_decoding", description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    options = parser.parse_args()
    classifier = Classifier(prepare_builtin(MODEL, options.models_dir.absolute()))
    for size in SIZES[1:]:
        print(_line(classifier, size, options.count), flush=True)


def _line(classifier: Classifier, size: PhotoSize, count: int) -> str:
    pairs = [
        (_prediction(classifier, photo, None), _prediction(classifier, photo, classifier.spec.resize))
        for photo in photos(size, count=count)
    ]
    same = np.mean([whole.top.label == scaled.top.label for whole, scaled in pairs])
    moved = np.mean([abs(whole.top.score - scaled.score_of(whole.top.label)) for whole, scaled in pairs])
    return f"{size.name}: {len(pairs)} photos, same first label {same:.1%}, its score moved by {moved:.3f} on average"


def _prediction(classifier: Classifier, photo: bytes, short_side: int | None) -> Prediction:
    picture = decode(photo, limits=Limits(), short_side=short_side)
    (outcome,) = classifier.classify([classifier.prepare([picture])])
    if isinstance(outcome, ShoplensError):
        raise outcome
    return outcome.prediction


if __name__ == "__main__":
    if "SHOPLENS_SHARED_DATA" not in os.environ and not (Path(__file__).parents[2] / "shared" / "data").is_dir():
        raise SystemExit("no sample photos here: set SHOPLENS_SHARED_DATA")
    main()
