"""The engine in this process: threads that take a sample from bytes to labels, and the models that they call.

A model can be replaced while requests use it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import SampleKind
from shoplens.errors import (
    DeadlineExceeded,
    EngineStopped,
    EngineStuck,
    ModelNotFound,
    NotStarted,
    SampleError,
    ShoplensError,
)
from shoplens.images.decoder import decode, decode_here
from shoplens.images.measuring import measure
from shoplens.images.picture import ImageFacts, Limits, Measurements, Picture
from shoplens.images.preprocess import preprocess
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import encode_thumbnail, halved, perceptual_hash, thumbnail
from shoplens.serving.batcher import Batcher, Batching, PendingRequest, complete_from_thread
from shoplens.serving.classifier import Tensor
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, ServedModel, require_input
from shoplens.serving.models import LoadedModel, ModelHandle, ModelPool
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import run_in
from shoplens.telemetry.tracing import past_span, span

_DRAIN_S: Final = 5.0
_WARM_SIDE: Final = 64
_WARM_TEXT: Final = "a red cotton shirt"
_WARM_TIMEOUT_S: Final = 60.0
# Longer than any photo may take; shorter than clients wait.
_STUCK_AFTER_S: Final = 5.0
_WAIT: Final = "wait for a thread"
_log: Final = get_logger(__name__)


Pending = PendingRequest[ClassifyRequest, ClassifyResult]


class LocalEngine:
    """One bounded queue for all models. Each thread takes one sample through all stages, photo after photo.

    Samples with a photo that the sandbox must decode have a queue and threads of their own, since those threads wait
    for a process most of the time: however many costly photos there are, they hold no thread that others need. Texts
    without a photo have their own, too: they take a fraction of the time, and do not wait for photos.
    """

    def __init__(
        self,
        models: ModelPool,
        *,
        limits: Limits,
        sandbox: SandboxedDecoder,
        batching: Batching,
        metrics: Metrics,
    ) -> None:
        self._models = models
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load-version")
        self._metrics = metrics
        self._limits = limits
        self._sandbox = sandbox
        self._batcher: Batcher[ClassifyRequest, ClassifyResult] = Batcher(self._classify, batching, name="engine")
        self._sandboxed: Batcher[ClassifyRequest, ClassifyResult] = Batcher(
            self._classify_sandboxed, replace(batching, threads=sandbox.processes), name="sandboxed"
        )
        self._texts: Batcher[ClassifyRequest, ClassifyResult] = Batcher(self._classify_text, batching, name="texts")
        metrics.watch_queue(lambda: len(self._batcher) + len(self._sandboxed) + len(self._texts))
        for served in self.served():
            metrics.model_info.labels(model=served.ref.name, version=served.ref.version).set(1)
            metrics.model_live.labels(model=served.ref.name).set_to_current_time()

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        deadline = time.monotonic() + request.timeout_s
        for name in request.models:
            handle = self._models.current(name) or await self._loaded(name, request.timeout_s)
            manifest = handle.model.classifier.bundle.manifest
            require_input(manifest, photos=len(request.images), text=request.text)
        answer: asyncio.Future[ClassifyResult] = asyncio.get_running_loop().create_future()
        pending = (self._batcher if request.images else self._texts).submit(
            request,
            deadline=deadline,
            done=partial(complete_from_thread, answer),
            client=request.client,
        )
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await answer
        except TimeoutError as error:
            late = DeadlineExceeded if pending.begun else NotStarted
            raise late(f"There was no answer within {request.timeout_s:g} s.") from error
        finally:
            pending.abandoned = True  # without effect once the answer is here

    def served(self) -> tuple[ServedModel, ...]:
        """See Engine."""
        return tuple(self.served_by_name().values())

    def served_by_name(self) -> dict[str, ServedModel]:
        """The models that answer now, by the name under which requests ask for them."""
        return {
            name: ServedModel(
                ref=handle.model.classifier.bundle.ref,
                provider=handle.model.classifier.provider,
                batching=str(handle.model.batching or self._batcher.batching),
            )
            for name, handle in self._models.live.items()
        }

    def labels(self, model: str) -> tuple[str, ...]:
        """See Engine."""
        return tuple(label.name for label in self.bundle(model).labels)

    def kinds(self, model: str) -> tuple[SampleKind, ...]:
        """See Engine."""
        return self.bundle(model).manifest.kinds

    def bundle(self, model: str) -> Bundle:
        """The bundle that answers under this name now. Raises ModelNotFound."""
        handle = self._models.current(model)
        if handle is None:
            raise ModelNotFound(f"The version {model} is not loaded.")
        return handle.model.classifier.bundle

    def replace(self, name: str, model: LoadedModel) -> None:
        """Let `model` answer under this name from now on; requests that have begun end with the old one. Blocks.

        Raises BundleInvalid if it cannot answer; then nothing changes. Raises ModelNotFound.
        """
        handle = self._models.current(name)
        if handle is None:
            raise ModelNotFound(f"The model {name} is not live.")
        old = handle.model.ref
        if not handle.swap(model, drain_s=_DRAIN_S):
            _log.info("model.still_in_use", model=str(old))
        if old != model.ref:
            self._metrics.model_info.remove(old.name, old.version)
        self._metrics.model_info.labels(model=model.ref.name, version=model.ref.version).set(1)
        self._metrics.model_live.labels(model=model.ref.name).set_to_current_time()

    def warm(self) -> None:
        """Take a sample through every stage of every model, so that the first real one is as quick as the next."""
        self._sandbox.warm()
        grey = np.full((_WARM_SIDE, _WARM_SIDE, 3), 127, np.uint8)
        photo = thumbnail(Picture(pixels=grey, format="png", width=_WARM_SIDE, height=_WARM_SIDE), _WARM_SIDE)
        now = time.monotonic()
        for name, handle in self._models.live.items():
            handle.model.classifier.warm()
            kinds = handle.model.classifier.bundle.manifest.kinds
            request = ClassifyRequest(
                model=name,
                images=(photo,) if "photo" in kinds else (),
                text=_WARM_TEXT if "text" in kinds else "",
                top_k=1,
                timeout_s=_WARM_TIMEOUT_S,
                thumbnail=True,
            )
            stages = self._classify if request.images else self._classify_text
            stages([PendingRequest(item=request, deadline=now + _WARM_TIMEOUT_S, done=lambda _: None, enqueued_at=now)])

    async def check(self) -> None:
        """See Engine."""
        if self._batcher.stopped:
            raise EngineStopped("The engine is stopping.")
        for batcher, most_s in (
            (self._batcher, _STUCK_AFTER_S),
            (self._texts, _STUCK_AFTER_S),
            (self._sandboxed, _STUCK_AFTER_S + self._sandbox.longest_s),
        ):
            if (stuck_s := batcher.stuck_s) > most_s:
                raise EngineStuck(
                    f"No sample was finished for {stuck_s:.0f} s, and {len(batcher)} wait. "
                    "Restart the process if this does not end."
                )

    async def close(self, *, drain_s: float = _DRAIN_S) -> None:
        """See Engine."""
        give_up_at = time.monotonic() + drain_s
        for batcher in (self._texts, self._batcher, self._sandboxed):  # in this order: the second fills the third
            await asyncio.to_thread(batcher.close, drain_s=max(0.0, give_up_at - time.monotonic()))
        self._loading.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._models.close)
        self._sandbox.close()

    async def _loaded(self, name: str, timeout_s: float) -> ModelHandle:
        """A version that is not live. It is loaded also when that takes longer, for the next request."""
        try:
            async with asyncio.timeout(timeout_s):
                # On a thread of its own, one after the other: other requests need those of the event loop.
                return await run_in(self._loading, partial(self._models.load, name))
        except TimeoutError as error:
            raise NotStarted(f"The model {name} was not loaded within {timeout_s:g} s. Try again.") from error

    @contextmanager
    def _leased(self, request: ClassifyRequest) -> Iterator[list[LoadedModel]]:
        """The models that classify this photo, in order. Raises ModelNotFound."""
        with ExitStack() as leases:
            yield [leases.enter_context(self._models.lease(name)) for name in request.models]

    def _classify(self, batch: Sequence[Pending]) -> Sequence[ClassifyResult | None]:
        """One sample from bytes to result, on a thread of the engine; None for one that is passed on to the sandbox.

        Whatever it raises becomes the outcome.
        """
        (pending,) = batch
        past_span(_WAIT, pending.waited_s)
        started = time.perf_counter()
        with self._leased(pending.item) as models:
            view = _look(
                pending.item, models, partial(decode_here, limits=self._limits, short_side=_short_side(models))
            )
            if view is not None:
                return [_predict(pending, view, models, started)]
        self._sandboxed.enqueue(pending)
        return [None]

    def _classify_sandboxed(self, batch: Sequence[Pending]) -> Sequence[ClassifyResult]:
        """The same for a sample with a photo that the sandbox decodes, on a thread that may wait for it."""
        (pending,) = batch
        started = time.perf_counter()
        with self._leased(pending.item) as models:
            apart = partial(decode, limits=self._limits, short_side=_short_side(models), sandbox=self._sandbox)
            view = _look(pending.item, models, apart)
            if view is None:  # it never is: `decode` gives a picture or raises
                raise ShoplensError("This photo could not be decoded.")
            return [_predict(pending, view, models, started)]

    def _classify_text(self, batch: Sequence[Pending]) -> Sequence[ClassifyResult]:
        """The same for a text without a photo."""
        (pending,) = batch
        past_span(_WAIT, pending.waited_s)
        started = time.perf_counter()
        with self._leased(pending.item) as models:
            return [_predict(pending, _View(photos=((),) * len(models)), models, started)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What was seen in the photos of a sample: `photos` has, for each model, the tensors of all photos."""

    photos: tuple[tuple[Tensor, ...], ...]
    facts: tuple[ImageFacts, ...] = ()
    thumbnail: bytes | None = None
    measurements: Measurements | None = None


def _short_side(models: Sequence[LoadedModel]) -> int:
    """The least pixels on the shorter side that all of these models need."""
    return max(model.classifier.spec.resize for model in models)


def _look(
    request: ClassifyRequest, models: Sequence[LoadedModel], decoded: Callable[[bytes], Picture | None]
) -> _View | None:
    """Decode and preprocess the photos of a sample one after the other; None when one cannot be decoded here.

    Raises SampleError, which names the photo where there are several.
    """
    with span("decode", {"shoplens.photos": len(request.images), "shoplens.bytes": request.byte_count}):
        return _view_of(request, models, decoded)


def _view_of(
    request: ClassifyRequest, models: Sequence[LoadedModel], decoded: Callable[[bytes], Picture | None]
) -> _View | None:
    facts: list[ImageFacts] = []
    tensors: list[list[Tensor]] = [[] for _ in models]
    shown: bytes | None = None
    measurements: Measurements | None = None
    for at, photo in enumerate(request.images):
        try:
            picture = decoded(photo)
        except SampleError as error:
            if len(request.images) > 1:
                raise type(error)(f"Photo {at + 1} of {len(request.images)}: {error}") from error
            raise
        if picture is None:
            return None
        small = halved(picture.pixels)
        known = request.sha256 if at == 0 else None
        facts.append(
            ImageFacts(
                format=picture.format,
                width=picture.width,
                height=picture.height,
                byte_count=len(photo),
                sha256=known or hashlib.sha256(photo).hexdigest(),
                phash=perceptual_hash(small),
            )
        )
        if at == 0:
            shown = encode_thumbnail(small) if request.thumbnail else None
            measurements = measure(picture.pixels) if request.measure else None
        for model, found in zip(models, tensors, strict=True):
            found.append(preprocess(picture, model.classifier.spec))
    return _View(photos=tuple(map(tuple, tensors)), facts=tuple(facts), thumbnail=shown, measurements=measurements)


def _predict(pending: Pending, view: _View, models: Sequence[LoadedModel], started: float) -> ClassifyResult:
    """What follows from the photos and the text of a request that was begun at `started` (perf_counter seconds)."""
    request = pending.item
    samples = [
        model.classifier.prepared(photos, request.text) for model, photos in zip(models, view.photos, strict=True)
    ]
    prepared = time.perf_counter()
    with span("infer", {"shoplens.model": request.model, "shoplens.models": len(models)}):
        first, *others = [
            model.classify(sample, top_k=request.top_k, embed=request.embed, deadline=pending.deadline)
            for model, sample in zip(models, samples, strict=True)
        ]
    embedding = first.embedding if request.embed else None
    return ClassifyResult(
        prediction=first.prediction,
        images=view.facts,
        thumbnail=view.thumbnail,
        queue_s=pending.waited_s,
        pixels_s=prepared - started,
        inference_s=time.perf_counter() - prepared,
        others=tuple(other.prediction for other in others),
        measurements=view.measurements,
        embedding=None if embedding is None else embedding.astype("<f2").tobytes(),
    )
