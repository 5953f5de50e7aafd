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
from dataclasses import replace
from datetime import datetime
from typing import Final

from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import ShoplensError
from shoplens.predictions.entities import PredictionRecord
from shoplens.registry.shadow_repository import ShadowAnswer, ShadowReport, ShadowRepository
from shoplens.serving.engine import ClassifyRequest, Engine
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_QUEUED: Final = 8
_MOST_BYTES: Final = 4_000_000
"""Of the photos of a sample that waits; larger ones are dropped, since the memory for uploads does not count them."""
_TIMEOUT_S: Final = 30.0
_KEPT: Final = 20_000
_PRUNE_EVERY: Final = 500
_log: Final = get_logger(__name__)


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
        self._waiting: asyncio.Queue[tuple[ClassifyRequest, PredictionRecord, str]] = asyncio.Queue(_QUEUED)
        self._task: asyncio.Task[None] | None = None
        self._written = 0

    def offer(self, request: ClassifyRequest, record: PredictionRecord) -> None:
        """Let the challenger see a sample that was answered, if it is among the share. Returns at once."""
        share = self._shares.get(record.channel, 0.0)
        if share <= 0 or random.random() >= share:  # noqa: S311  a sample of the requests, no secret
            return
        challenger = self._challenger_of(request.model)
        if challenger is None or challenger == record.model.version:
            return
        try:
            if request.byte_count > _MOST_BYTES:
                raise asyncio.QueueFull
            self._waiting.put_nowait((request, record, challenger))
        except asyncio.QueueFull:
            self._metrics.shadow_answers.labels(model=request.model, outcome="dropped").inc()
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
            request, record, challenger = await self._waiting.get()
            outcome = "failed"
            try:
                outcome = await self._answer(request, record, challenger)
            except ShoplensError as error:
                _log.warning("shadow.failed", model=request.model, challenger=challenger, code=error.code,
                             reason=str(error))  # fmt: skip
            except Exception:  # noqa: BLE001  the next sample must be answered
                _log.exception("shadow.failed")
            self._metrics.shadow_answers.labels(model=request.model, outcome=outcome).inc()

    async def _answer(self, request: ClassifyRequest, record: PredictionRecord, challenger: str) -> str:
        again = replace(
            request,
            model=f"{record.model.name}@{challenger}",
            timeout_s=_TIMEOUT_S,
            priority="batch",
            client="shadow",
            thumbnail=False,
            embed=False,
        )
        result = await self._engine.classify(again)
        best, other, now = record.labels[0], result.prediction.top, self._clock()
        answer = ShadowAnswer(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            channel=record.channel,
            prediction_id=record.id,
            model=record.model.name,
            champion=record.model.version,
            challenger=challenger,
            champion_label=best.label,
            champion_score=best.score,
            challenger_label=other.label,
            challenger_score=other.score,
            agrees=best.label == other.label,
        )
        self._written += 1
        await asyncio.to_thread(self._write, answer, prune=self._written % _PRUNE_EVERY == 0)
        return "agreed" if answer.agrees else "differed"

    def _write(self, answer: ShadowAnswer, *, prune: bool) -> None:
        with self._database.transaction() as tx:
            ShadowRepository(tx).add(answer)
            if prune:
                ShadowRepository(tx).prune(_KEPT)
