"""Look at photos for drift: how they were taken, and where they lie in the space of the channel's model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

import numpy as np

from shoplens.bundles.bundle import Bundle
from shoplens.errors import ShoplensError
from shoplens.images.decoder import decode
from shoplens.images.measuring import measure
from shoplens.images.picture import Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.monitoring.drift.profile import Floats, Measure, binned
from shoplens.monitoring.drift.sketch import kernel_features, reduced
from shoplens.serving.classifier import Classifier
from shoplens.telemetry.logs import get_logger

Space = Literal["embedding", "scores", ""]
"""What the vectors of photos are: embeddings of the model, else the roots of its scores; "" for none."""

_SHORT_SIDE: Final = 256
_TOGETHER: Final = 8
_MEASURED: Final = (Measure.BRIGHTNESS, Measure.CONTRAST, Measure.SHARPNESS)
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What was seen of some photos, a row for each: `measured` has brightness, contrast and sharpness, `points` the
    reduced vectors; None without a model of photos.
    """

    ids: tuple[str, ...]
    measured: Floats
    points: Floats | None
    space: Space

    def scales(self) -> dict[Measure, Floats]:
        """Counts for a profile."""
        if not self.ids:
            return {}
        return {measure: binned(measure, self.measured[:, column]) for column, measure in enumerate(_MEASURED)}

    def features(self) -> Floats | None:
        """(n, features) of the kernel, for the profile and for the strangest photos."""
        return None if self.points is None else kernel_features(self.points)


class PhotoLooker:
    """Looks at photos one after another, in the calling thread. `classifier` is None where no model takes photos."""

    def __init__(self, classifier: Classifier | None, *, limits: Limits, sandbox: SandboxedDecoder) -> None:
        self._classifier = classifier if classifier is not None and takes_photos(classifier.bundle) else None
        self._limits = limits
        self._sandbox = sandbox

    @property
    def space(self) -> Space:
        """What its vectors are."""
        if self._classifier is None:
            return ""
        return "embedding" if self._classifier.bundle.manifest.embedding is not None else "scores"

    def look(self, photos: Iterable[tuple[str, bytes]], *, going_on: Callable[[], bool] = lambda: True) -> Look:
        """Look at photos, ids with their bytes; what cannot be decoded is left out. Ends early if not `going_on`."""
        ids: list[str] = []
        measured: list[tuple[float, float, float]] = []
        found: list[Floats] = []
        pictures = self._pictures(photos)
        while going_on() and (batch := list(islice(pictures, _TOGETHER))):
            ids += [sample_id for sample_id, _ in batch]
            for _, picture in batch:
                each = measure(picture.pixels)
                measured.append((each.brightness, each.contrast, each.sharpness))
            if self._classifier is not None:
                found.append(_vectors(self._classifier, [picture for _, picture in batch]))
        return Look(
            ids=tuple(ids),
            measured=np.array(measured, float).reshape(-1, len(_MEASURED)),
            points=reduced(np.concatenate(found)) if found else None,
            space=self.space,
        )

    def _pictures(self, photos: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Picture]]:
        for sample_id, data in photos:
            try:
                yield sample_id, decode(data, limits=self._limits, short_side=_SHORT_SIDE, sandbox=self._sandbox)
            except ShoplensError as error:  # it was classified once; what is stored of it is unreadable now
                _log.warning("drift.photo_unreadable", sample=sample_id, code=error.code)


def takes_photos(bundle: Bundle) -> bool:
    """Whether a model has an input for photos."""
    return bundle.manifest.image is not None


def _vectors(classifier: Classifier, pictures: list[Picture]) -> Floats:
    """(n, any) of these pictures. Roots of scores have length 1, and their distance is that of Hellinger."""
    samples = [classifier.prepare([picture]) for picture in pictures]
    if classifier.bundle.manifest.embedding is not None:
        return np.asarray(classifier.embeddings([sample.photos[0] for sample in samples]), float)
    return np.asarray(np.sqrt(np.maximum(classifier.scores(samples), 0.0)), float)
