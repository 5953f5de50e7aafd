"""Classify photos in a plain call, without queue or loop: what scripts, notebooks and the command line use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from shoplens.bundles.bundle import Bundle
from shoplens.errors import ImageMissing, ShoplensError
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.serving.classifier import Classifier
from shoplens.serving.prediction import RANKED_LABELS, Prediction

Photo = bytes | str | Path
Value = TypeVar("Value")


class PhotoClassifier:
    """A loaded bundle. Safe to call from many threads."""

    def __init__(
        self, classifier: Classifier, *, limits: Limits | None = None, sandbox: SandboxedDecoder | None = None
    ) -> None:
        self._classifier = classifier
        self._limits = limits or Limits()
        self._sandbox = sandbox

    @property
    def bundle(self) -> Bundle:
        """The bundle that answers."""
        return self._classifier.bundle

    def classify(self, photo: Photo, *, top_k: int = RANKED_LABELS) -> Prediction:
        """The labels of one photo, given as encoded bytes or as a path. Raises SampleError."""
        picture = decode(
            _bytes_of(photo), limits=self._limits, short_side=self._classifier.short_side, sandbox=self._sandbox
        )
        (outcome,) = self._classifier.classify([self._classifier.preprocess(picture)], top_k=top_k)
        if isinstance(outcome, ShoplensError):
            raise outcome
        return outcome

    def classify_many(
        self, photos: Iterable[Photo], *, threads: int, top_k: int = RANKED_LABELS
    ) -> Iterator[Prediction | ShoplensError]:
        """One outcome per photo, in order, on `threads` threads; only a few photos are held at a time."""

        def outcome(photo: Photo) -> Prediction | ShoplensError:
            try:
                return self.classify(photo, top_k=top_k)
            except ShoplensError as error:
                return error

        with ThreadPoolExecutor(threads, thread_name_prefix="classify") as pool:
            waiting = iter(photos)
            running = [pool.submit(outcome, photo) for photo in islice(waiting, 2 * threads)]
            while running:
                yield running.pop(0).result()
                running.extend(pool.submit(outcome, photo) for photo in islice(waiting, 1))


def _bytes_of(photo: Photo) -> bytes:
    if isinstance(photo, bytes):
        return photo
    try:
        return Path(photo).read_bytes()
    except OSError as error:
        raise ImageMissing(f"{photo} cannot be read: {error.strerror}.") from error
