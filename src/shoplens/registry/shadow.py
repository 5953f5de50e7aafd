"""Let a challenger answer a share of the requests beside the champion, and record where they differ.

Nobody waits for it: the challenger sees a sample after its answer was given, from a short queue that drops what is too
much.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import QueueFull, ShoplensError, Unavailable
from shoplens.predictions.entities import PredictionRecord
from shoplens.registry.shadow_repository import ShadowAnswer, ShadowReport, ShadowRepository
from shoplens.serving.engine import ClassifyRequest, Engine, Prediction
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_QUEUED: Final = 8
_MOST_BYTES: Final = 4_000_000
"""Of the photos of a sample that waits; larger ones are dropped, since the memory for uploads does not count them."""
_TIMEOUT_S: Final = 30.0
_KEPT: Final = 20_000
_PRUNE_EVERY: Final = 500
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredSample:
    """A sample that the champion answered with `prediction`. One of the ids names what is stored of it, if anything."""

    request: ClassifyRequest
    channel: str
    prediction: Prediction
    prediction_id: str | None = None
    photo_id: str | None = None
    product_id: str | None = None


Offer = Callable[[AnsweredSample], None]
"""Called with each sample that a champion answered, on the event loop; returns at once and raises nothing."""


def offer_nothing(sample: AnsweredSample) -> None:
    """For where no challenger is shown anything, as in runs."""


class ShadowService:
    """`challenger_of` gives the challenger of a model; `shares` the share of the requests of each channel, 0 to 1.

    `offer` is called on one event loop.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        challenger_of: Callable[[str], str | None],
        shares: Mapping[str, float],
        database: Database,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._challenger_of = challenger_of
        self._shares = shares
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._waiting: asyncio.Queue[tuple[AnsweredSample, str]] = asyncio.Queue(_QUEUED)
        self._task: asyncio.Task[None] | None = None
        self._written = 0

    def offer_record(self, request: ClassifyRequest, record: PredictionRecord) -> None:
        """As `offer`, for a request whose answer is stored as a record."""
        prediction = Prediction(model=record.model, labels=record.labels)
        self.offer(
            AnsweredSample(request=request, channel=record.channel, prediction=prediction, prediction_id=record.id)
        )

    def offer(self, sample: AnsweredSample) -> None:
        """Let the challenger see a sample that was answered, if it is among the share. Returns at once."""
        share, model = self._shares.get(sample.channel, 0.0), sample.request.model
        if share <= 0 or random.random() >= share:  # noqa: S311  a sample of the requests, no secret
            return
        challenger = self._challenger_of(model)
        if challenger is None or challenger == sample.prediction.model.version:
            return
        try:
            if sample.request.byte_count > _MOST_BYTES:
                raise asyncio.QueueFull
            self._waiting.put_nowait((sample, challenger))
        except asyncio.QueueFull:
            self._metrics.shadow_answers.labels(model=model, outcome="dropped").inc()
            return
        if self._task is None:
            self._task = asyncio.create_task(self._answer_all())

    def reports(self) -> Sequence[ShadowReport]:
        """What was recorded. Blocks. Raises DatabaseUnavailable."""
        with self._database.reading() as tx:
            return ShadowRepository(tx).reports()

    async def close(self) -> None:
        """End without the samples that wait."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _answer_all(self) -> None:
        while True:
            sample, challenger = await self._waiting.get()
            outcome = "failed"
            try:
                outcome = await self._answer(sample, challenger)
            except ShoplensError as error:
                _log.warning("shadow.failed", model=sample.request.model, challenger=challenger, code=error.code,
                             reason=str(error))  # fmt: skip
            except Exception as error:  # noqa: BLE001  one sample must not end the loop that all others wait for
                _log.exception("shadow.failed", model=sample.request.model, challenger=challenger,
                               error=type(error).__name__)  # fmt: skip
            self._metrics.shadow_answers.labels(model=sample.request.model, outcome=outcome).inc()

    async def _answer(self, sample: AnsweredSample, challenger: str) -> str:
        """How it answered, after that is stored. Raises DatabaseUnavailable, and RecordRefused for a removed sample."""
        again = replace(
            sample.request,
            model=f"{sample.prediction.model.name}@{challenger}",
            timeout_s=_TIMEOUT_S,
            priority="batch",
            client="shadow",
            thumbnail=False,
            embed=False,
            measure=False,
            also=(),
        )
        answered: Prediction | None = None
        failure: ShoplensError | None = None
        try:
            answered = (await self._engine.classify(again)).prediction
        except (QueueFull, Unavailable):
            return "dropped"  # the server is busy or its workers are away: that says nothing about the challenger
        except ShoplensError as error:
            _log.warning("shadow.failed", model=sample.request.model, challenger=challenger, code=error.code,
                         reason=str(error))  # fmt: skip
            failure = error
        best, now = sample.prediction.top, self._clock()
        other = None if answered is None else answered.top
        answer = ShadowAnswer(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            channel=sample.channel,
            prediction_id=sample.prediction_id,
            photo_id=sample.photo_id,
            product_id=sample.product_id,
            model=sample.prediction.model.name,
            champion=sample.prediction.model.version,
            challenger=challenger,
            champion_label=best.label,
            champion_score=best.score,
            challenger_label=other.label if other else None,
            challenger_score=other.score if other else None,
            agrees=other is not None and best.label == other.label,
            failure_code=failure.code if failure else None,
        )
        self._written += 1
        await asyncio.to_thread(self._write, answer, prune=self._written % _PRUNE_EVERY == 0)
        return "failed" if failure else "agreed" if answer.agrees else "differed"

    def _write(self, answer: ShadowAnswer, *, prune: bool) -> None:
        with self._database.transaction() as tx:
            ShadowRepository(tx).add(answer)
            if prune:
                ShadowRepository(tx).prune(_KEPT)
