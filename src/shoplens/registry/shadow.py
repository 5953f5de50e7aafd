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
from typing import Any, Final

from sqlalchemy import Connection, case, delete, func, insert, select

from shoplens.db import Database
from shoplens.db.tables import from_row, make_id, to_row
from shoplens.errors import ShoplensError
from shoplens.predictions.entities import PredictionRecord
from shoplens.registry.tables import shadow_answers
from shoplens.serving.engine import ClassifyRequest, Engine
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_QUEUED: Final = 8
_TIMEOUT_S: Final = 30.0
_KEPT: Final = 20_000
_PRUNE_EVERY: Final = 500
SHOWN_DIFFERENCES: Final = 20
_log: Final = get_logger(__name__)
_columns: Final = shadow_answers.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAnswer:
    """What the champion and the challenger of `model` said of one sample, whose record is `prediction_id`."""

    id: str
    created_at: datetime
    channel: str
    prediction_id: str
    model: str
    champion: str
    challenger: str
    champion_label: str
    champion_score: float
    challenger_label: str
    challenger_score: float
    agrees: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """How often a challenger agreed with a champion, and the newest samples on which it did not."""

    model: str
    champion: str
    challenger: str
    compared: int
    agreed: int
    differences: tuple[ShadowAnswer, ...]


class ShadowRepository:
    """The table `shadow_answers`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, answer: ShadowAnswer) -> None:
        """Raises RecordRefused if the record was deleted meanwhile."""
        self._tx.execute(insert(shadow_answers), to_row(answer))

    def prune(self, most: int) -> None:
        """Remove the oldest answers until `most` are left."""
        newest = select(_columns.id).order_by(_columns.id.desc()).limit(1).offset(most - 1).scalar_subquery()
        self._tx.execute(delete(shadow_answers).where(_columns.id < newest))

    def reports(self) -> list[ShadowReport]:
        """One for each pair of versions that were compared, the newest pair first."""
        pair = (_columns.model, _columns.champion, _columns.challenger)
        agreed = func.sum(case((_columns.agrees, 1), else_=0))
        counted = select(*pair, func.count(), agreed).group_by(*pair).order_by(func.max(_columns.id).desc())
        return [
            ShadowReport(
                model=model,
                champion=champion,
                challenger=challenger,
                compared=compared,
                agreed=int(same),
                differences=self._differences(model, champion, challenger),
            )
            for model, champion, challenger, compared, same in self._tx.execute(counted)
        ]

    def _differences(self, model: str, champion: str, challenger: str) -> tuple[ShadowAnswer, ...]:
        these: tuple[Any, ...] = (
            _columns.model == model,
            _columns.champion == champion,
            _columns.challenger == challenger,
            _columns.agrees.is_(False),
        )
        found = select(shadow_answers).where(*these).order_by(_columns.id.desc()).limit(SHOWN_DIFFERENCES)
        return tuple(from_row(ShadowAnswer, row) for row in self._tx.execute(found))


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
