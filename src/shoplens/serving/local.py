"""The engine in this process: threads that take a sample from bytes to labels, and the models that they call.

A model can be replaced while requests use it.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

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
from shoplens.serving.batcher import Batcher, Batching, PendingRequest, complete, complete_from_thread
from shoplens.serving.classifier import Classifier, ModelAnswer, PreparedSample, Tensor
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, ServedModel, require_input
from shoplens.telemetry.metrics import Metrics

_DRAIN_S: Final = 5.0
_WARM_SIDE: Final = 64
_WARM_TEXT: Final = "a red cotton shirt"
_WARM_TIMEOUT_S: Final = 60.0
# Longer than any photo may take; shorter than clients wait.
_STUCK_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ModelCall:
    """What one sample asks of a model."""

    sample: PreparedSample
    top_k: int
    embed: bool


class LoadedModel:
    """An open classifier, called in the way that suits its provider: directly on a CPU, in batches on a GPU.

    With `batching` None each caller runs the model on its own thread.
    """

    def __init__(self, classifier: Classifier, *, batching: Batching | None, metrics: Metrics) -> None:
        self.classifier = classifier
        self.batching = batching
        self._sizes = metrics.batch_size.labels(model=classifier.bundle.ref.name)
        self._batcher = (
            Batcher(self._run_batch, batching, name=f"{classifier.bundle.ref.name}-batch") if batching else None
        )

    def classify(self, sample: PreparedSample, *, top_k: int, embed: bool, deadline: float) -> ModelAnswer:
        """Classify one preprocessed sample; blocks until `deadline` (monotonic seconds) at most.

        Raises DeadlineExceeded, QueueFull, EngineStopped, and ShoplensError when the model gives no usable scores.
        """
        call = _ModelCall(sample=sample, top_k=top_k, embed=embed)
        if self._batcher is None:
            (outcome,) = self._run([call])
            if isinstance(outcome, ShoplensError):
                raise outcome
            return outcome
        answer: Future[ModelAnswer] = Future()
        pending = self._batcher.submit(call, deadline=deadline, done=partial(complete, answer))
        try:
            return answer.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            pending.abandoned = True
            raise DeadlineExceeded("The deadline of this request passed while the model was running.") from error

    def close(self) -> None:
        """Finish what was accepted and release the threads."""
        if self._batcher is not None:  # an empty one is false
            self._batcher.close(drain_s=_DRAIN_S)

    def _run_batch(
        self, batch: Sequence[PendingRequest[_ModelCall, ModelAnswer]]
    ) -> Sequence[ModelAnswer | ShoplensError]:
        return self._run([each.item for each in batch])

    def _run(self, calls: Sequence[_ModelCall]) -> Sequence[ModelAnswer | ShoplensError]:
        self._sizes.observe(len(calls))
        top_k = max(call.top_k for call in calls)
        embed = any(call.embed for call in calls)
        return self.classifier.classify([call.sample for call in calls], top_k=top_k, embed=embed)


class ModelHandle:
    """Always points at one loaded model. Requests lease it; `swap` replaces it without failing any of them."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._leases: dict[LoadedModel, int] = {model: 0}
        self._changed = threading.Condition(threading.Lock())

    @property
    def model(self) -> LoadedModel:
        """The model that the next lease gets."""
        return self._model

    @contextmanager
    def lease(self) -> Iterator[LoadedModel]:
        """Use the current model. It stays open until the lease ends, also when it is replaced meanwhile."""
        with self._changed:
            model = self._model
            self._leases[model] += 1
        try:
            yield model
        finally:
            with self._changed:
                self._leases[model] -= 1
                unused = model is not self._model and not self._leases[model]
            if unused:
                self._retire(model)

    def swap(self, replacement: LoadedModel, *, drain_s: float) -> bool:
        """Warm `replacement`, make it the current model, and close the old one when its last lease has ended.

        Raises BundleInvalid if the replacement cannot answer; then nothing changes. Waits up to `drain_s` for the
        leases of the old model and returns whether they ended in time; if not, the last of them closes it.
        """
        replacement.classifier.warm()
        with self._changed:
            old, self._model = self._model, replacement
            self._leases[replacement] = 0
            unused = not self._leases[old]
        if unused:
            self._retire(old)
        with self._changed:
            return self._changed.wait_for(lambda: old not in self._leases, timeout=drain_s)

    def close(self) -> None:
        """Close the current model."""
        self._model.close()

    def _retire(self, old: LoadedModel) -> None:
        """Close a replaced model that nobody uses any more; without the lock, since its last batch may run."""
        old.close()
        with self._changed:
            del self._leases[old]
            self._changed.notify_all()


Pending = PendingRequest[ClassifyRequest, ClassifyResult]


class LocalEngine:
    """One bounded queue for all models. Each thread takes one sample through all stages, photo after photo.

    Samples with a photo that the sandbox must decode have a queue and threads of their own, since those threads wait
    for a process most of the time: however many costly photos there are, they hold no thread that others need. Texts
    without a photo have their own, too: they take a fraction of the time, and do not wait for photos.
    """

    def __init__(
        self,
        models: Mapping[str, ModelHandle],
        *,
        limits: Limits,
        sandbox: SandboxedDecoder,
        batching: Batching,
        metrics: Metrics,
    ) -> None:
        self._models = dict(models)
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

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        for model in request.models:
            manifest = self._handle(model).model.classifier.bundle.manifest
            require_input(manifest, photos=len(request.images), text=request.text)
        answer: asyncio.Future[ClassifyResult] = asyncio.get_running_loop().create_future()
        pending = (self._batcher if request.images else self._texts).submit(
            request,
            deadline=time.monotonic() + request.timeout_s,
            done=partial(complete_from_thread, answer),
            client=request.client,
        )
        try:
            async with asyncio.timeout(request.timeout_s):
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
            for name, handle in self._models.items()
        }

    def labels(self, model: str) -> tuple[str, ...]:
        """See Engine."""
        return tuple(label.name for label in self._handle(model).model.classifier.bundle.labels)

    def warm(self) -> None:
        """Take a sample through every stage of every model, so that the first real one is as quick as the next."""
        self._sandbox.warm()
        grey = np.full((_WARM_SIDE, _WARM_SIDE, 3), 127, np.uint8)
        photo = thumbnail(Picture(pixels=grey, format="png", width=_WARM_SIDE, height=_WARM_SIDE), _WARM_SIDE)
        now = time.monotonic()
        for name, handle in self._models.items():
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
        for handle in self._models.values():
            await asyncio.to_thread(handle.close)
        self._sandbox.close()

    def _handle(self, model: str) -> ModelHandle:
        if model not in self._models:
            raise ModelNotFound(f"No model {model!r} is loaded; there are: {', '.join(sorted(self._models))}.")
        return self._models[model]

    @contextmanager
    def _leased(self, request: ClassifyRequest) -> Iterator[list[LoadedModel]]:
        """The models that classify this photo, in order. Raises ModelNotFound."""
        with ExitStack() as leases:
            yield [leases.enter_context(self._handle(name).lease()) for name in request.models]

    def _classify(self, batch: Sequence[Pending]) -> Sequence[ClassifyResult | None]:
        """One sample from bytes to result, on a thread of the engine; None for one that is passed on to the sandbox.

        Whatever it raises becomes the outcome.
        """
        (pending,) = batch
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
