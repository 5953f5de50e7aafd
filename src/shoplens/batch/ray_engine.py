"""An engine whose models run in actors on a Ray cluster, for runs that send whole samples and not keys of a store.

Photos and texts travel with each request through the driver: right for products, whose photos are small beside their
work; a run of large photos reads them on the nodes (`batch/ray.py`). An actor that dies is restarted by Ray and set up
again, and its samples are tried once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from structlog.contextvars import get_contextvars

import shoplens
from shoplens.batch.ray import Cluster, connected, one_line, show_log
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import SampleKind
from shoplens.errors import ClusterUnavailable, Misconfigured, ModelNotFound, ShoplensError
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, ServedModel, fault_of
from shoplens.telemetry.logs import get_logger

OpenEngine = Callable[[bytes], tuple[Engine, str]]
"""Makes an engine from a packed bundle, and gives its model's name there."""

_PER_ACTOR: Final = 8
_MOST_DEATHS: Final = 2
_MOST_DEATHS_IN_A_ROW: Final = 20
_log: Final = get_logger(__name__)


class SampleActor:
    """Runs on a node. `up` and `ready` are called first after every start."""

    async def up(self) -> bool:
        """Answers as soon as Ray has started the process."""
        return True

    async def ready(
        self, version: str, open_engine: OpenEngine, packed: bytes, about: Mapping[str, Any], _up: bool
    ) -> ShoplensError | None:
        """Load the model. Returns what makes this node useless. Lines of the log have `about`."""
        show_log(about)
        if version != shoplens.__version__:
            return Misconfigured(f"A node has Shoplens {shoplens.__version__}, the driver {version}.")
        try:
            self._engine, self._model = await asyncio.to_thread(open_engine, packed)
        except ShoplensError as error:
            return error
        return None

    async def classify(self, request: ClassifyRequest) -> ClassifyResult | ShoplensError:
        """The answer, or the error that `Engine.classify` raised."""
        try:
            return await self._engine.classify(replace(request, model=self._model))
        except ShoplensError as error:
            return error
        # One sample must not end the actor, with which Ray would try all samples again that it has in work.
        except Exception as error:  # noqa: BLE001
            _log.exception("ray.sample_failed", model=self._model, error=type(error).__name__)
            return fault_of(error)


class RayEngine:
    """An `Engine` for one bundle, one actor per processor. `close` disconnects from the cluster."""

    def __init__(self, bundle: Bundle, packed: bytes, open_engine: OpenEngine, cluster: Cluster, *, model: str) -> None:
        """Connect to the cluster, or start one here, and start the actors. Blocks. `model` is what requests name.

        Raises ExtraMissing, Misconfigured and ClusterUnavailable.
        """
        self._bundle = bundle
        self._model = model
        with contextlib.ExitStack() as stack:
            self._ray = ray = stack.enter_context(connected(cluster))
            count = int(ray.cluster_resources().get("GPU" if cluster.gpu else "CPU", 0))
            if count < 1:
                raise ClusterUnavailable(f"The Ray cluster has no {'GPUs' if cluster.gpu else 'processors'}.")
            actor = ray.remote(SampleActor).options(
                num_cpus=1, num_gpus=1 if cluster.gpu else 0, max_restarts=-1, max_task_retries=-1
            )
            self._setup = (shoplens.__version__, ray.put(open_engine), ray.put(packed), get_contextvars())
            self._actors = [actor.remote() for _ in range(count)]
            self._stack = stack.pop_all()
        self.capacity: Final = count * _PER_ACTOR
        self._busy: Counter[int] = Counter()
        self._ready: dict[int, asyncio.Task[None]] = {}
        self._deaths = 0  # since the last answer

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """As `Engine.classify`. Raises ClusterUnavailable when the cluster is lost."""
        if not self._ready and threading.current_thread() is threading.main_thread():
            # Ray's native code takes SIGTERM over when it connects; setting the handler again gives it back to Python.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        for _ in range(_MOST_DEATHS):
            number = min(range(len(self._actors)), key=lambda each: self._busy[each])
            self._busy[number] += 1
            try:
                await self._set_up(number)
                call = self._actors[number].classify.options(max_task_retries=0)
                found = await asyncio.wrap_future(call.remote(request).future())
            except self._ray.exceptions.RayError as error:
                self._died(number, error)
                continue
            finally:
                self._busy[number] -= 1
            self._deaths = 0
            if isinstance(found, ShoplensError):
                raise found
            answer: ClassifyResult = found
            return answer
        raise ShoplensError("The process that worked on this sample died each time.")

    def served(self) -> tuple[ServedModel, ...]:
        """As `Engine.served`."""
        return (ServedModel(ref=self._bundle.ref, provider="Ray", batching=f"{len(self._actors)} actors"),)

    def labels(self, model: str) -> tuple[str, ...]:
        """As `Engine.labels`."""
        return tuple(label.name for label in self._bundle_of(model).labels)

    def kinds(self, model: str) -> tuple[SampleKind, ...]:
        """As `Engine.kinds`."""
        return self._bundle_of(model).manifest.kinds

    def _bundle_of(self, model: str) -> Bundle:
        if model != self._model:
            raise ModelNotFound(f"The Ray cluster has the model {self._model} only.")
        return self._bundle

    async def check(self) -> None:
        """As `Engine.check`."""
        await self._set_up(0)

    async def close(self) -> None:
        """As `Engine.close`."""
        for task in self._ready.values():
            task.cancel()
        await asyncio.to_thread(self._stack.close)

    async def _set_up(self, number: int) -> None:
        """Wait until an actor has its model. Raises what makes its node useless."""
        if number not in self._ready:
            self._ready[number] = asyncio.create_task(self._load(self._actors[number]))
        await asyncio.shield(self._ready[number])

    async def _load(self, actor: Any) -> None:
        # Ray repeats `up` until the process is there. If `ready` fails, it was there and died.
        up = actor.up.remote()
        fault = await asyncio.wrap_future(actor.ready.options(max_task_retries=0).remote(*self._setup, up).future())
        if fault is not None:
            raise ClusterUnavailable(f"A node of the Ray cluster cannot be used: {fault}") from fault

    def _died(self, number: int, error: Exception) -> None:
        """Ray restarts an actor that died, here or on another node; it only has to be set up again."""
        self._ready.pop(number, None)
        self._deaths += 1
        _log.warning("ray.actor_died", reason=one_line(error))
        if self._deaths > _MOST_DEATHS_IN_A_ROW + len(self._actors):
            raise ClusterUnavailable(f"The Ray cluster makes no progress: {one_line(error)}") from error
