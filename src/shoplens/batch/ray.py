"""An executor on a Ray cluster: a pool of actors that read and classify photos, each with an engine of its own.

Ray places the actors and restarts those that die. A batch whose actor died is halved and tried again, until the photo
that ends its process is alone. Photos never come to the driver: it sends keys and receives results.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from structlog.contextvars import get_contextvars

import shoplens
from shoplens.advice import how_to_install
from shoplens.batch import executors
from shoplens.batch.entities import BatchItem
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import (
    ClusterUnavailable,
    ExtraMissing,
    ImageGone,
    Misconfigured,
    ShoplensError,
    StorageUnavailable,
)
from shoplens.images.decoder import salvage
from shoplens.images.picture import Limits
from shoplens.serving.engine import ClassifyResult, Engine, fault_of
from shoplens.storage import Store, open_store
from shoplens.telemetry.logs import bind_process_fields, configure_logs, get_logger

_LARGEST_BATCH: Final = 32
_READ_AHEAD: Final = 8
_WARN_OF_SILENCE_S, _LEAST_SILENCE_S = 60.0, 300.0
_POLL_S: Final = 0.2
_MOST_DEATHS_ALONE: Final = 2
_MOST_DEATHS_IN_A_ROW: Final = 20
_MOST_TIMES_UNREAD: Final = 5
_STORE_PAUSE_S: Final = 1.0
_MARKERS: Final = "health/nodes"
_LONGEST_FOLDER, _SHORT_FOLDER = 22, "/tmp"  # noqa: S108  the paths of Ray's sockets below it have a limit
_ONE_SHORT_ATTEMPT: Final = {  # Ray would try for minutes to reach an address where nothing answers
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "2",
    "RAY_py_gcs_connect_timeout_s": "3",
}
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJob:
    """What an actor needs. `open_engine` makes an engine from the packed bundle, and returns its model's name there."""

    version: str
    store_url: str
    limits: Limits
    timeout_s: float
    open_engine: Callable[[bytes], tuple[Engine, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where actors run: on the cluster at `address`, or on `local_cpus` of this machine. One per processor or GPU."""

    address: str | None = None
    local_cpus: int
    gpu: bool = False


PhotoOutcome = tuple[ClassifyResult | ShoplensError, bytes | None]
"""The answer, or an error and perhaps a thumbnail. StorageUnavailable is an error of the node, not of the photo."""


class PhotoActor:
    """Runs on a node. `up` and `ready` are called first after every start."""

    async def up(self) -> bool:
        """Answers as soon as Ray has started the process."""
        return True

    async def ready(
        self, job: NodeJob, bundle: bytes, marker: str, about: Mapping[str, Any], _up: bool
    ) -> ShoplensError | None:
        """Look at the store and load the model. Returns what makes this node useless. Lines of the log have `about`."""
        show_log(about)
        node = socket.gethostname()
        if job.version != shoplens.__version__:
            return Misconfigured(f"The node {node} has Shoplens {shoplens.__version__}, the driver {job.version}.")
        self._job, self._marker = job, marker
        try:
            self._store = open_store(job.store_url)
            await asyncio.to_thread(self._check_store)
            self._engine, self._model = await asyncio.to_thread(job.open_engine, bundle)
        except StorageUnavailable as error:
            return Misconfigured(f"The node {node} cannot read photos: {error}")
        except ShoplensError as error:
            return error
        return None

    async def classify(self, photos: Sequence[tuple[str | None, str]]) -> list[PhotoOutcome]:
        """One outcome for each key and hash, in this order. Some photos are read while others are classified."""
        if not hasattr(self, "_engine"):
            raise RuntimeError("This actor was restarted and is not set up.")
        reading = asyncio.Semaphore(_READ_AHEAD)
        return await asyncio.gather(*(self._classify_one(key, sha256, reading) for key, sha256 in photos))

    async def _classify_one(self, key: str | None, sha256: str, reading: asyncio.Semaphore) -> PhotoOutcome:
        photo: bytes | None = None
        async with reading:
            try:
                photo = await asyncio.to_thread(self._read, key, sha256)
                request = executors.classify_request(self._model, photo, sha256=sha256, timeout_s=self._job.timeout_s)
                return await self._engine.classify(request), None
            except ShoplensError as error:
                failure = error
            except Exception as error:  # noqa: BLE001  an error of one photo must not fail the batch
                _log.exception("ray.photo_failed", sha256=sha256, error=type(error).__name__)
                failure = fault_of(error)
            with contextlib.suppress(ShoplensError, MemoryError):
                return failure, photo and await asyncio.to_thread(salvage, photo, limits=self._job.limits)
            return failure, None

    def _read(self, key: str | None, sha256: str) -> bytes:
        """The photo. Raises ImageGone, ImageChanged, and StorageUnavailable while this node cannot reach the store."""
        try:
            return executors.read_photo(self._store, key, sha256)
        except ImageGone:
            self._check_store()
            raise

    def _check_store(self) -> None:
        """A folder that is not mounted looks like one whose photos are gone. Raises StorageUnavailable."""
        if not self._store.exists(self._marker):
            raise StorageUnavailable(
                f"{self._job.store_url} is another place there than here. "
                "A folder must be mounted on every node at the same path."
            )


class RayExecutor:
    """The driver's side: gives batches to actors, one at a time to each. `close` disconnects from the cluster."""

    def __init__(
        self,
        job: NodeJob,
        bundle: bytes,
        cluster: Cluster,
        *,
        model: ModelRef,
        store: Store,
        results: executors.ResultBuilder,
        retry: executors.RetryPolicy,
    ) -> None:
        """Connect to the cluster, or start one here, and start the actors. Blocks.

        Raises ExtraMissing, Misconfigured, ClusterUnavailable and StorageUnavailable.
        """
        self.model = model
        self._store = store
        self._builder = results
        self._retry = retry
        self._silence_s = max(_LEAST_SILENCE_S, 3 * job.timeout_s)
        with contextlib.ExitStack() as stack:
            marker = stack.enter_context(_marker(store, results.channel.name))
            self._ray = ray = stack.enter_context(connected(cluster))
            count = int(ray.cluster_resources().get("GPU" if cluster.gpu else "CPU", 0))
            if count < 1:
                raise ClusterUnavailable(f"The Ray cluster has no {'GPUs' if cluster.gpu else 'processors'}.")
            actor = ray.remote(PhotoActor).options(
                num_cpus=1, num_gpus=1 if cluster.gpu else 0, max_restarts=-1, max_task_retries=-1
            )
            self._setup = (ray.put(job), ray.put(bundle), marker, get_contextvars())
            self._actors = [actor.remote() for _ in range(count)]
            self._stack = stack.pop_all()
        self.capacity = count * _LARGEST_BATCH
        self._free: deque[Any] = deque()
        self._starting = {self._set_up(actor): actor for actor in self._actors}
        self._running: dict[Any, tuple[Any, list[BatchItem]]] = {}
        self._again: deque[list[BatchItem]] = deque()
        self._deaths = 0  # since the last result
        self._deaths_alone: Counter[str] = Counter()
        self._times_unread: Counter[str] = Counter()
        self._heard_at, self._warned = time.monotonic(), False

    async def process(self, items: executors.ItemQueue, results: executors.ResultQueue) -> None:
        """See Executor. Raises ClusterUnavailable when the cluster is lost, and what makes a node useless."""
        if threading.current_thread() is threading.main_thread():
            # Ray's native code takes SIGTERM over when it connects; setting the handler again gives it back to Python.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        self._heard()
        while True:
            if not self._running and not self._again:
                if not (batch := await self._take(items, wait=True)):
                    return
                self._again.append(batch)
                self._heard()
            while self._free and (batch := self._again.popleft() if self._again else await self._take(items)):
                actor = self._free.popleft()
                classify = actor.classify.options(max_task_retries=0)
                self._running[classify.remote([(item.key, item.sha256) for item in batch])] = actor, batch
            ready = await asyncio.to_thread(self._wait)
            if not ready:
                self._check_silence()
            for ref in ready:
                if ref in self._starting:
                    self._started(ref)
                else:
                    await self._collect(ref, results)
                self._heard()

    async def close(self) -> None:
        """See Executor."""
        await asyncio.to_thread(self._stack.close)

    async def _take(self, items: executors.ItemQueue, *, wait: bool = False) -> list[BatchItem]:
        """A share for one actor of what is there. With `wait` it is empty only after the end mark."""
        if items.empty() and not wait:
            return []
        return await executors.take(items, max(1, min(_LARGEST_BATCH, -(-items.qsize() // len(self._actors)))))

    def _wait(self) -> list[Any]:
        """What is ready, at most one. Blocks for a short time."""
        try:
            ready, _ = self._ray.wait([*self._running, *self._starting], num_returns=1, timeout=_POLL_S)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise ClusterUnavailable(f"The Ray cluster is lost: {one_line(error)}") from error
        return list(ready)

    def _heard(self) -> None:
        self._heard_at, self._warned = time.monotonic(), False

    def _check_silence(self) -> None:
        """Warn of a cluster from which nothing comes, and give it up in the end. Raises ClusterUnavailable."""
        silent_s = time.monotonic() - self._heard_at
        if silent_s > self._silence_s:
            raise ClusterUnavailable(
                f"Nothing came from the Ray cluster for {self._silence_s:g} s. "
                "Look with `ray status` whether a processor is free."
            )
        if silent_s > _WARN_OF_SILENCE_S and not self._warned:
            self._warned = True
            _log.warning("ray.silent", seconds=round(silent_s), starting=len(self._starting), busy=len(self._running))

    def _set_up(self, actor: Any) -> Any:
        """A call of `ready`, made as soon as Ray has started the process, however long that takes.

        Ray repeats `up` until then. If `ready` fails, the process was there and died.
        """
        up = actor.up.remote()
        return actor.ready.options(max_task_retries=0).remote(*self._setup, up)

    def _started(self, ref: Any) -> None:
        """An actor is set up, and free. Raises what makes its node useless."""
        actor = self._starting.pop(ref)
        try:
            fault = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._restart(actor, error)
            return
        if fault is not None:
            raise fault
        self._free.append(actor)

    def _restart(self, actor: Any, error: Exception) -> None:
        """Ray restarts an actor that died, here or on another node; it only has to be set up again."""
        self._deaths += 1
        _log.warning("ray.actor_died", reason=one_line(error))
        if self._deaths > _MOST_DEATHS_IN_A_ROW + len(self._actors):
            raise ClusterUnavailable(f"The Ray cluster makes no progress: {one_line(error)}") from error
        self._starting[self._set_up(actor)] = actor

    async def _collect(self, ref: Any, results: executors.ResultQueue) -> None:
        """The outcomes of a batch, or another attempt at it."""
        actor, batch = self._running.pop(ref)
        try:
            outcomes = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._restart(actor, error)
            await self._halve(batch, results)
            return
        self._deaths = 0
        self._free.append(actor)
        unread = []
        for item, (found, thumbnail) in zip(batch, outcomes, strict=True):
            if isinstance(found, StorageUnavailable):
                unread.append((item, found))
            elif isinstance(found, ShoplensError):
                failed = self._builder.failed(item, found)
                if failed.needs_thumbnail:
                    failed = await asyncio.to_thread(self._builder.with_thumbnail, failed, lambda: thumbnail)  # noqa: B023
                await results.put(failed)
            else:
                await results.put(self._builder.classified(item, found))
        if unread:
            await self._wait_for_store(unread)

    async def _halve(self, batch: list[BatchItem], results: executors.ResultQueue) -> None:
        """Try a batch whose actor died again in two halves. A single photo fails when its actor died twice."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._again.extendleft([batch[middle:], batch[:middle]])
            return
        (item,) = batch
        self._deaths_alone[item.id] += 1
        if self._deaths_alone[item.id] < _MOST_DEATHS_ALONE:
            self._again.append(batch)
        else:
            await results.put(self._builder.failed(item, ShoplensError("The process of this photo died each time.")))

    async def _wait_for_store(self, unread: Sequence[tuple[BatchItem, ShoplensError]]) -> None:
        """A node cannot reach the store: try these photos again once the driver can, perhaps on another node."""
        self._times_unread.update(item.id for item, _ in unread)
        _log.warning("ray.node_without_store", photos=len(unread), reason=str(unread[0][1]))
        for item, error in unread:
            if self._times_unread[item.id] >= _MOST_TIMES_UNREAD:
                raise error
        await asyncio.to_thread(self._retry, self._store.check)
        await asyncio.sleep(_STORE_PAUSE_S)
        self._again.append([item for item, _ in unread])


@contextlib.contextmanager
def _marker(store: Store, channel: str) -> Iterator[str]:
    """The key of an object that a node sees only in the same store. What a killed driver left is removed."""
    for old in list(store.list(_MARKERS)):
        if old.startswith(f"{_MARKERS}/{channel}."):
            store.delete(old)
    key = f"{_MARKERS}/{channel}.{secrets.token_hex(8)}"
    store.put(key, b"seen")
    try:
        yield key
    finally:
        with contextlib.suppress(StorageUnavailable):
            store.delete(key)


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """The module `ray`, connected. A cluster started here is reachable only with a token that its processes share."""
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    environment, address = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0"}, cluster.address
    with contextlib.ExitStack() as stack:
        if address is None:
            parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else _SHORT_FOLDER
            own = tempfile.TemporaryDirectory(prefix="shoplens-ray-", dir=parent, ignore_cleanup_errors=True)
            folder = stack.enter_context(own)
            options.update(num_cpus=cluster.local_cpus, include_dashboard=False, _temp_dir=folder)
            # What an actor that is killed leaves is removed with the folder.
            options["runtime_env"] = {"env_vars": {"TMPDIR": folder}}
            if "RAY_AUTH_MODE" not in os.environ:
                environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        else:
            environment |= _ONE_SHORT_ATTEMPT
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise ExtraMissing(f"Runs on a Ray cluster need the extra `ray`. {how_to_install('ray')}") from error
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        stack.callback(ray.shutdown)
        try:
            ray.init(address=address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            text, where = one_line(error), f"The Ray cluster at {address}" if address else "A Ray cluster here"
            if "ersion mismatch" in text:
                raise Misconfigured(f"{where} has another version of Ray or Python: {text}") from error
            raise ClusterUnavailable(f"{where} cannot be reached: {text}. Is it running?") from error
        yield ray


def show_log(about: Mapping[str, Any]) -> None:
    """Let this process, an actor, write its log to standard error, which Ray keeps in its folder of logs on the node.

    Each line has the fields `about`: the run, its channel and its trace, as lines of the driver have them.
    """
    if not logging.getLogger().handlers:
        configure_logs(log_format="json", level="info")
        bind_process_fields(**about)


def one_line(error: Exception) -> str:
    """The beginning of what Ray says, without its line breaks."""
    return " ".join(str(error).split())[:300] or type(error).__name__
