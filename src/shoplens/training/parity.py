"""Prove that what was exported is what was trained: fitted model, bundle and samples in, the differences out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.evaluation import Parity
from shoplens.errors import TrainingDiverged
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageSpec, Limits
from shoplens.images.preprocess import preprocess
from shoplens.serving.classifier import Classifier
from shoplens.serving.session import Session
from shoplens.training.samples import Sample

SAMPLES: Final = 64
TOLERANCE: Final = 0.02
_LEAST_SCORE: Final = 1e-30


def check_parity(
    bundle: Bundle,
    samples: Sequence[Sample],
    logits: NDArray[np.float32],
    *,
    image: ImageSpec,
    temperature: float,
    limits: Limits,
) -> Parity:
    """Compare on some of `samples`, evenly chosen; `logits` (n, classes) are the framework's for all of them.

    Raises TrainingDiverged where a tensor of serving differs in any byte from that of training (`image` says how it
    was encoded there), or a logit of the exported graph by more than `TOLERANCE`.
    """
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(SAMPLES, len(samples))).round().astype(int)).tolist()
    classifier = Classifier(bundle)
    greatest = 0.0
    for index in chosen:
        tensor = _same_tensor(classifier, samples[index], image, limits)
        scores = _scores(classifier.session, bundle, tensor)
        greatest = max(greatest, _difference(scores, logits[index], temperature))
    if not greatest <= TOLERANCE:
        raise TrainingDiverged(
            f"The exported model computes other values than the trained one: a logit differs by {greatest:.3g}."
        )
    return Parity(samples=len(chosen), logit_difference=float(f"{greatest:.2g}"), tensors_equal=True)


def _same_tensor(classifier: Classifier, sample: Sample, image: ImageSpec, limits: Limits) -> NDArray[np.generic]:
    """What serving makes of the encoded photo, compared with what training made of the sample."""
    served = classifier.encode(decode(sample.data(), limits=limits, short_side=classifier.short_side))
    trained = preprocess(sample.picture(image.resize), image)
    if served.dtype != trained.dtype or not np.array_equal(served, trained):
        raise TrainingDiverged(f"Serving makes another tensor of {sample.name} than training did.")
    return served


def _scores(session: Session, bundle: Bundle, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
    manifest = bundle.manifest
    batch = session.run(tensor[None], input_name=manifest.input, output_name=manifest.output)
    return np.asarray(batch[0], np.float32)


def _difference(scores: NDArray[np.float32], logits: NDArray[np.float32], temperature: float) -> float:
    """Between logits up to a constant, which the softmax removes; scores too small for their logarithm are left out."""
    expected = np.asarray(logits, np.float64)
    expected = expected - expected.max()
    told = scores > _LEAST_SCORE
    got = np.log(np.asarray(scores, np.float64)[told]) * temperature
    got = got + (expected[told] - got).mean()
    return float(np.abs(got - expected[told]).max())
