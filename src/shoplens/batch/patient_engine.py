"""An engine for work that can wait: where the queue is full or away, or no worker is there, it tries again later."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

import structlog

from shoplens.errors import NoWorker, QueueFull, QueueUnavailable
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, ServedModel

_PAUSE_S: Final = 1.0
_log: Final = structlog.get_logger(__name__)


class PatientEngine:
    """Around another engine. A full queue is waited for without end, since it moves; the rest for `patience_s`."""

    def __init__(self, engine: Engine, *, patience_s: float) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._told = False

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine; every job goes behind those that somebody waits for."""
        later = replace(request, priority="batch")
        give_up_at: float | None = None
        while True:
            try:
                answer = await self._engine.classify(later)
            except QueueFull as full:
                await asyncio.sleep(full.retry_after_s)
            except (QueueUnavailable, NoWorker) as error:
                give_up_at = give_up_at or time.monotonic() + self._patience_s
                if time.monotonic() >= give_up_at:
                    raise
                self._tell(error)
                await asyncio.sleep(_PAUSE_S)
            else:
                self._told = False
                return answer

    def served(self) -> tuple[ServedModel, ...]:
        """See Engine."""
        return self._engine.served()

    def labels(self, model: str) -> tuple[str, ...]:
        """See Engine."""
        return self._engine.labels(model)

    async def check(self) -> None:
        """See Engine."""
        await self._engine.check()

    async def close(self) -> None:
        """See Engine."""
        await self._engine.close()

    def _tell(self, error: Exception) -> None:
        """Once, however many photos wait."""
        if not self._told:
            self._told = True
            _log.warning("night.waits", reason=str(error))
