"""The engine in this process: threads that decode, hash, preprocess and classify."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from shoplens.errors import DeadlineExceeded, EngineStopped, ModelNotFound
from shoplens.futures import complete_from_thread
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageFacts, Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import encode_thumbnail, halved, perceptual_hash, thumbnail
from shoplens.serving.batcher import Batcher, Batching, PendingRequest
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, ServedModel
from shoplens.serving.handle import ModelHandle
from shoplens.telemetry.metrics import Metrics

_WARM_SIDE: Final = 64
_WARM_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How bytes become a picture: the limits, and the decoder of formats that are not trusted in this process."""

    limits: Limits
    sandbox: SandboxedDecoder


class LocalEngine:
    """One bounded queue for all models. Each thread takes one photo through all stages."""

    def __init__(
        self, models: Mapping[str, ModelHandle], *, decoding: Decoding, batching: Batching, metrics: Metrics
    ) -> None:
        self._models = dict(models)
        self._decoding = decoding
        self._batcher: Batcher[ClassifyRequest, ClassifyResult] = Batcher(self._classify, batching, name="engine")
        metrics.watch_queue(lambda: len(self._batcher))
        for served in self.served():
            metrics.model_info.labels(model=served.ref.name, version=served.ref.version).set(1)

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        self._handle(request.model)
        answer: asyncio.Future[ClassifyResult] = asyncio.get_running_loop().create_future()
        pending = self._batcher.submit(
            request, deadline=time.monotonic() + request.timeout_s, done=partial(complete_from_thread, answer)
        )
        try:
            async with asyncio.timeout(request.timeout_s):
                return await answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"There was no answer within {request.timeout_s:g} s.") from error
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
                provider=handle.model.classifier.session.provider,
                batching=str(handle.model.batching or self._batcher.batching),
            )
            for name, handle in self._models.items()
        }

    def labels(self, model: str) -> tuple[str, ...]:
        """See Engine."""
        return tuple(label.name for label in self._handle(model).model.classifier.bundle.labels)

    def warm(self) -> None:
        """Take a photo through every stage of every model, so that the first real one is as quick as the next."""
        grey = np.full((_WARM_SIDE, _WARM_SIDE, 3), 127, np.uint8)
        photo = thumbnail(Picture(pixels=grey, format="png", width=_WARM_SIDE, height=_WARM_SIDE), _WARM_SIDE)
        now = time.monotonic()
        for model in self._models:
            request = ClassifyRequest(model=model, image=photo, top_k=1, timeout_s=_WARM_TIMEOUT_S, thumbnail=True)
            self._classify(
                [PendingRequest(item=request, deadline=now + _WARM_TIMEOUT_S, done=lambda _: None, enqueued_at=now)]
            )

    async def check(self) -> None:
        """See Engine."""
        if self._batcher.stopped:
            raise EngineStopped("The engine is stopping.")

    async def close(self, *, drain_s: float = 5.0) -> None:
        """See Engine."""
        await asyncio.to_thread(self._batcher.close, drain_s=drain_s)
        for handle in self._models.values():
            await asyncio.to_thread(handle.close)
        self._decoding.sandbox.close()

    def _handle(self, model: str) -> ModelHandle:
        if model not in self._models:
            raise ModelNotFound(f"No model {model!r} is loaded; there are: {', '.join(sorted(self._models))}.")
        return self._models[model]

    def _classify(self, batch: Sequence[PendingRequest[ClassifyRequest, ClassifyResult]]) -> Sequence[ClassifyResult]:
        """One photo from bytes to result, on a thread of the batcher; whatever it raises becomes the outcome."""
        (pending,) = batch
        request = pending.item
        started = time.perf_counter()
        with self._models[request.model].lease() as model:
            picture = decode(
                request.image,
                limits=self._decoding.limits,
                short_side=model.classifier.short_side,
                sandbox=self._decoding.sandbox,
            )
            small = halved(picture.pixels)
            facts = ImageFacts(
                format=picture.format,
                width=picture.width,
                height=picture.height,
                byte_count=len(request.image),
                sha256=request.sha256 or hashlib.sha256(request.image).hexdigest(),
                phash=perceptual_hash(small),
            )
            shown = encode_thumbnail(small) if request.thumbnail else None
            tensor = model.classifier.preprocess(picture)
            preprocessed = time.perf_counter()
            prediction = model.classify(tensor, top_k=request.top_k, deadline=pending.deadline)
        result = ClassifyResult(
            prediction=prediction,
            image=facts,
            thumbnail=shown,
            queue_s=pending.waited_s,
            pixels_s=preprocessed - started,
            inference_s=time.perf_counter() - preprocessed,
        )
        return [result]
