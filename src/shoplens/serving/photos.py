"""Classify samples in plain calls, for scripts, notebooks, training and the command line.

A photo is whatever a program has: a path, encoded bytes, an open file, a Pillow image or an array of pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shoplens.errors import ImageMissing, ImageUnsupported, RequestInvalid, ShoplensError
from shoplens.images.decoder import decode
from shoplens.images.in_memory import picture_of_array, picture_of_image
from shoplens.images.picture import Limits, Picture
from shoplens.images.preprocess import preprocess
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.serving.classifier import Classifier
from shoplens.serving.cores import usable_cores
from shoplens.serving.engine import RANKED_LABELS, Prediction, fault_of, require_input
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.threads import run_in

TOP_K: Final = 5
_log: Final = get_logger(__name__)


class BinaryFile(Protocol):
    """A file that was opened in binary mode, or what reads like one."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        ...


Photo: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryFile | Image.Image | NDArray[Any]
Answer = TypeVar("Answer")
Result = TypeVar("Result")
Finish: TypeAlias = Callable[[Prediction, int], Result]
"""Makes the answer from a prediction that ranks at least `RANKED_LABELS` labels, and from the number asked for."""


def best_labels(prediction: Prediction, top_k: int) -> Prediction:
    """The prediction with its `top_k` best labels."""
    return replace(prediction, labels=prediction.labels[:top_k])


class PhotoClassifier(Generic[Answer]):
    """An open model, called with photos, texts or both. Safe to call from many threads; usable in a `with` block, which
    closes it.

    `threads` work on many photos at once; unset: as many as this process may use cores.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        finish: Finish[Answer],
        limits: Limits | None = None,
        sandbox: SandboxedDecoder | None = None,
        threads: int | None = None,
    ) -> None:
        self.bundle = classifier.bundle
        self._classifier = classifier
        self._finish = finish
        self._limits = limits or Limits()
        self._sandbox = sandbox
        self._threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="classify")

    def __enter__(self) -> PhotoClassifier[Answer]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the photos in progress and release threads and processes."""
        self._pool.shutdown(cancel_futures=True)
        if self._sandbox is not None:
            self._sandbox.close()

    @overload
    def __call__(self, photos: Photo | None = None, *, text: str = "", top_k: int | None = TOP_K) -> Answer: ...

    @overload
    def __call__(self, photos: list[Any] | tuple[Any, ...], *, top_k: int | None = TOP_K) -> list[Any]: ...

    @overload
    def __call__(self, photos: Iterable[Photo], *, top_k: int | None = TOP_K) -> Any: ...

    def __call__(self, photos: Any = None, *, text: str = "", top_k: int | None = TOP_K) -> Any:
        """`classify` for one photo, a text, or both; `classify_many` for many photos, as a list for a list or tuple, as
        an iterator for a generator.
        """
        if text or photos is None:
            return self.classify(photos, text=text, top_k=top_k)
        if isinstance(photos, (list, tuple)):
            return list(self.classify_many(photos, top_k=top_k))
        if not _is_photo(photos) and isinstance(photos, Iterable):
            return self.classify_many(photos, top_k=top_k)
        return self.classify(photos, top_k=top_k)

    def classify(
        self, photo: Photo | Sequence[Photo] | None = None, *, text: str = "", top_k: int | None = TOP_K
    ) -> Answer:
        """The `top_k` best labels of one sample, or all if None.

        The sample is a photo or a list of photos that show the same thing, a text (a title and, after the first line
        break, a description), or both. Raises SampleError, and RequestInvalid for `top_k` and for a sample that the
        model cannot take.
        """
        wanted = len(self.bundle.labels) if top_k is None else top_k
        if wanted < 1:
            raise RequestInvalid(f"top_k is {top_k}; it must be at least 1.")
        photos: Sequence[Any] = [] if photo is None else photo if isinstance(photo, (list, tuple)) else [photo]
        require_input(self.bundle.manifest, photos=len(photos), text=text)
        sample = self._classifier.prepare([self._picture(each) for each in photos], text)
        (outcome,) = self._classifier.classify([sample], top_k=max(wanted, RANKED_LABELS))
        if isinstance(outcome, ShoplensError):
            raise outcome
        return self._finish(outcome.prediction, wanted)

    def classify_many(self, photos: Iterable[Photo], *, top_k: int | None = TOP_K) -> Iterator[Answer | ShoplensError]:
        """One outcome per photo, in order: an answer, or the error of a photo that cannot be used.

        The photos may come from a generator; only a few are held at a time.
        """
        return self._map(partial(self.classify, top_k=top_k), photos)

    async def classify_async(
        self, photo: Photo | Sequence[Photo] | None = None, *, text: str = "", top_k: int | None = TOP_K
    ) -> Answer:
        """`classify` on a thread of its own, so that an event loop goes on meanwhile. Raises what `classify` raises."""
        work = partial(self.classify, photo, text=text, top_k=top_k)
        return await run_in(self._pool, work)

    def embed(self, photo: Photo) -> NDArray[np.float32]:
        """The model's embedding of one photo: a vector, not normalised. Photos that look alike have similar ones.

        Raises SampleError, and RequestInvalid for a model without embeddings.
        """
        tensor = preprocess(self._picture(photo), self._classifier.spec)
        vector: NDArray[np.float32] = self._classifier.embeddings([tensor])[0]
        return vector

    def embed_many(self, photos: Iterable[Photo]) -> Iterator[NDArray[np.float32] | ShoplensError]:
        """One outcome per photo, in order, as in `classify_many`."""
        return self._map(self.embed, photos)

    def _map(self, work: Callable[[Photo], Result], photos: Iterable[Photo]) -> Iterator[Result | ShoplensError]:
        """One outcome per photo, in order; only a few photos are held at a time."""

        def outcome(photo: Photo) -> Result | ShoplensError:
            try:
                return work(photo)
            except ShoplensError as error:
                return error
            except Exception as error:  # noqa: BLE001 - a bug met by one photo must not end the others
                _log.exception("photos.item_failed")
                return fault_of(error)

        waiting = iter(photos)
        running: list[Future[Result | ShoplensError]] = []
        try:
            running += [self._pool.submit(outcome, photo) for photo in islice(waiting, 2 * self._threads)]
            while running:
                yield running.pop(0).result()
                running.extend(self._pool.submit(outcome, photo) for photo in islice(waiting, 1))
        finally:
            for each in running:
                each.cancel()

    def _picture(self, photo: Photo) -> Picture:
        short_side = self._classifier.spec.resize
        if isinstance(photo, Image.Image):
            return picture_of_image(photo, limits=self._limits, short_side=short_side)
        if isinstance(photo, np.ndarray):
            return picture_of_array(photo, limits=self._limits, short_side=short_side)
        data = _encoded(photo, self._limits.max_bytes + 1)
        return decode(data, limits=self._limits, short_side=short_side, sandbox=self._sandbox)


def _is_photo(value: object) -> bool:
    known = (bytes, bytearray, memoryview, str, os.PathLike, Image.Image, np.ndarray)
    return isinstance(value, known) or hasattr(value, "read")


def _encoded(photo: object, most: int) -> bytes:
    """At most `most` bytes of an encoded photo. Raises ImageMissing for a file that cannot be read."""
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return bytes(photo)
    if isinstance(photo, str) and photo.startswith(("http://", "https://")):
        raise ImageMissing(f"{photo} is an address. Download the photo and pass its bytes or its path.")
    if isinstance(photo, (str, os.PathLike)):
        try:
            with Path(photo).open("rb") as file:
                return file.read(most)
        except (OSError, ValueError) as error:
            raise ImageMissing(f"{photo!s} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        data = photo.read(most) if hasattr(photo, "read") else None
    except (OSError, ValueError) as error:  # it is closed, say
        raise ImageMissing(f"The file cannot be read: {error}.") from error
    if isinstance(data, bytes):
        return data
    hint = "Open the file in binary mode." if isinstance(data, str) else ""
    raise ImageUnsupported(
        f"A photo is a path, bytes, a file opened in binary mode, a Pillow image or a NumPy array, "
        f"not {type(photo).__name__}. {hint}".rstrip()
    )
