"""Who classifies for a night, opened once the run is claimed and closed at its end: a port, and an engine behind it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from shoplens.batch.examine import ExamineItem, ItemRules
from shoplens.batch.examiners import Examiners
from shoplens.batch.patience import Patience
from shoplens.batch.runs import Clock
from shoplens.batch.shift import Bounds, Hands
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import NoWorker
from shoplens.predictions.entities import Channel
from shoplens.serving.engine import Engine
from shoplens.storage import Store

_READERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a night gives to whoever classifies for it."""

    store: Store
    channel: Channel
    rules: ItemRules
    bounds: Bounds
    patience: Patience
    clock: Clock


class Crew(Protocol):
    """Few verbs, so that a cluster is only another crew."""

    @property
    def model(self) -> ModelRef:
        """The version that answers."""
        ...

    def hands(self, tools: Tools) -> Hands:
        """For one shift."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


class EngineCrew:
    """An engine with the model of the night's channel alone: in this process, or behind a queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="night-read")

    @property
    def model(self) -> ModelRef:
        """See Crew. Raises NoWorker while workers with different versions answer, as in the middle of an upgrade."""
        versions = {served.ref for served in self._engine.served()}
        if len(versions) != 1:
            found = ", ".join(sorted(map(str, versions))) or "none"
            raise NoWorker(f"A night needs one version of its model, and the workers have: {found}.")
        return versions.pop()

    def hands(self, tools: Tools) -> Hands:
        """See Crew."""
        examine = ExamineItem(
            store=tools.store,
            engine=self._engine,
            channel=tools.channel,
            rules=tools.rules,
            readers=self._readers,
            patience=tools.patience,
            clock=tools.clock,
        )
        return Examiners(examine, tools.bounds)

    async def close(self) -> None:
        """See Crew."""
        self._readers.shutdown(wait=False)
        await self._engine.close()
