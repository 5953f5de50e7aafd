"""An executor on a Ray cluster: a pool of actors that read and classify photos, each with an engine of its own.

Ray schedules the actors and restarts those that die. A batch whose actor died is halved and tried again, until the
photo that ends its process is alone. Photos never come to the driver: it sends keys and receives results.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

import shoplens
from shoplens.batch.entities import BatchItem
from shoplens.batch.executors import ItemQueue, ResultQueue, take
from shoplens.batch.results import ProcessedItem, ResultBuilder
from shoplens.batch.retry import RetryPolicy
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import (
    BlobNotFound,
    ClusterUnavailable,
    ExtraMissing,
    ImageGone,
    Misconfigured,
    ShoplensError,
    StorageUnavailable,
)
from shoplens.images.picture import Limits
from shoplens.images.salvage import salvage
from shoplens.predictions.service import STORED_LABELS
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, fault_of
from shoplens.storage import Store, open_store

LARGEST_BATCH: Final = 32
_BATCHES_PER_ACTOR: Final = 2
_READ_AHEAD: Final = 8
_READY_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.2
_LEAST_SILENCE_S: Final = 300.0
_DEATHS_ALONE: Final = 2
_MOST_DEATHS_IN_A_ROW: Final = 20
_MOST_TIMES_AWAY: Final = 5
_AWAY_PAUSE_S: Final = 1.0
_FOLDER_PREFIX: Final = "shoplens-ray-"
_LONGEST_FOLDER: Final = 22  # the paths of Ray's sockets below it have a limit
_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_COLOR_PREFIX": "0"}
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJob:
    """What an actor needs. `open_engine` makes an engine with the packed bundle, and the name of its model.

    A node that reads `marker` under `marker_key` sees the same store as the driver.
    """

    version: str
    store_url: str
    marker_key: str
    marker: bytes
    limits: Limits
    timeout_s: float
    open_engine: Callable[[bytes], tuple[Engine, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoOutcome:
    """What an actor found. `away`: its node cannot reach the store, which says nothing about the photo."""

    found: ClassifyResult | ShoplensError
    thumbnail: bytes | None = None
    away: bool = False


class PhotoActor:
    """Runs on a node."""

    _job: NodeJob

    def __init__(self) -> None:
        self._store: Store | None = None
        self._engine: Engine | None = None
        self._model = ""

    async def ready(self, job: NodeJob, bundle: bytes) -> ShoplensError | None:
        """Load the model and look at the store; what makes this node useless. Called first after every start."""
        self._job = job
        node = socket.gethostname()
        if self._job.version != shoplens.__version__:
            own = f"the node {node} has Shoplens {shoplens.__version__}, the driver {self._job.version}"
            return Misconfigured(f"All machines of a Ray cluster need the same release: {own}.")
        try:
            await asyncio.to_thread(self._check_store)
            if self._engine is None:
                self._engine, self._model = await asyncio.to_thread(job.open_engine, bundle)
        except StorageUnavailable as error:
            return Misconfigured(f"The node {node} cannot read photos: {error}")
        except ShoplensError as error:
            return error
        return None

    async def classify(self, photos: Sequence[tuple[str | None, str]]) -> list[PhotoOutcome]:
        """One outcome for each key and hash, in this order. Some photos are read while others are classified."""
        reading = asyncio.Semaphore(_READ_AHEAD)
        return await asyncio.gather(*(self._classify_one(key, sha256, reading) for key, sha256 in photos))

    async def _classify_one(self, key: str | None, sha256: str, reading: asyncio.Semaphore) -> PhotoOutcome:
        photo: bytes | None = None
        async with reading:
            try:
                photo = await asyncio.to_thread(self._read, key)
                request = ClassifyRequest(
                    model=self._model, image=photo, top_k=STORED_LABELS, timeout_s=self._job.timeout_s, sha256=sha256,
                    priority="batch",
                )  # fmt: skip
                assert self._engine is not None
                return PhotoOutcome(found=await self._engine.classify(request))
            except StorageUnavailable as error:
                return PhotoOutcome(found=error, away=True)
            except ShoplensError as error:
                failure = error
            except Exception as error:  # noqa: BLE001  whatever happens to one photo, the others are worked on
                failure = fault_of(error)
            return PhotoOutcome(found=failure, thumbnail=await asyncio.to_thread(self._thumbnail, photo))

    def _read(self, key: str | None) -> bytes:
        """The photo. Raises ImageGone, and StorageUnavailable while this node cannot reach the store."""
        assert self._store is not None
        try:
            return self._store.get(key or "nowhere")
        except BlobNotFound as error:
            self._check_store()
            raise ImageGone("The photo is not in the store any more. Import it again.") from error

    def _check_store(self) -> None:
        """Raises StorageUnavailable unless this node sees what the driver wrote."""
        self._store = self._store or open_store(self._job.store_url)
        try:
            seen = self._store.get(self._job.marker_key)
        except BlobNotFound:
            seen = b""
        if seen != self._job.marker:
            raise StorageUnavailable(
                f"{self._job.store_url} is another place there than here. "
                "A folder must be mounted on every node at the same path."
            )

    def _thumbnail(self, photo: bytes | None) -> bytes | None:
        with contextlib.suppress(ShoplensError, MemoryError):
            return None if photo is None else salvage(photo, limits=self._job.limits)
        return None


class RayExecutor:
    """The driver's side. `close` disconnects from the cluster."""

    def __init__(  # noqa: PLR0913  the parts of one executor
        self,
        ray: Any,
        pool: Sequence[Any],
        setup: Sequence[Any],
        stack: contextlib.ExitStack,
        *,
        model: ModelRef,
        store: Store,
        results: ResultBuilder,
        retry: RetryPolicy,
        timeout_s: float,
    ) -> None:
        self.model = model
        self.capacity = len(pool) * _BATCHES_PER_ACTOR * LARGEST_BATCH
        self._ray = ray
        self._pool = pool
        self._setup = setup  # kept, since an actor that restarts needs it again
        self._stack = stack
        self._store = store
        self._builder = results
        self._retry = retry
        self._silence_s = max(_LEAST_SILENCE_S, 3 * timeout_s)
        self._free: deque[Any] = deque()
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, list[BatchItem]]] = {}
        self._again: deque[list[BatchItem]] = deque()
        self._deaths_alone: Counter[str] = Counter()
        self._times_away: Counter[str] = Counter()
        self._deaths = 0
        for actor in pool:
            self._start(actor)

    def wait_until_ready(self) -> None:
        """Wait for all actors, or a minute for at least one. Blocks. Raises what makes a node useless."""
        until = time.monotonic() + _READY_WITHIN_S
        while self._starting and time.monotonic() < until:
            for ref in self._wait(1.0):
                self._started(ref)
        if not self._free:
            raise ClusterUnavailable("No process could be started on the Ray cluster. Has it free processors?")

    async def process(self, items: ItemQueue, results: ResultQueue) -> None:
        """See Executor. Raises ClusterUnavailable when the cluster is lost or makes no progress."""
        if threading.current_thread() is threading.main_thread():
            # Ray's native code takes SIGTERM over when it connects; setting the handler again gives it back to Python.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        heard_at = time.monotonic()
        while True:
            while self._free and (batch := await self._next_batch(items)):
                self._submit(self._free.popleft(), batch)
            if not self._running and not self._again and self._free:
                return
            ready = await asyncio.to_thread(self._wait, _POLL_S)
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > self._silence_s:
                raise ClusterUnavailable("The Ray cluster has not answered for too long.")
            for ref in ready:
                if ref in self._starting:
                    self._started(ref)
                else:
                    await self._collect(ref, results)

    async def close(self) -> None:
        """See Executor."""
        await asyncio.to_thread(self._stack.close)

    async def _next_batch(self, items: ItemQueue) -> list[BatchItem]:
        """Waits only while no actor works. Empty when there is nothing to do just now, or no more."""
        if self._again:
            return self._again.popleft()
        if items.empty() and self._running:
            return []
        return await take(items, max(1, min(LARGEST_BATCH, -(-items.qsize() // len(self._pool)))))

    def _start(self, actor: Any) -> None:
        self._starting[actor.ready.remote(*self._setup)] = actor

    def _submit(self, actor: Any, batch: list[BatchItem]) -> None:
        self._running[actor.classify.remote([(item.key, item.sha256) for item in batch])] = actor, batch

    def _wait(self, timeout_s: float) -> list[Any]:
        try:
            ready, _ = self._ray.wait([*self._running, *self._starting], num_returns=1, timeout=timeout_s)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise ClusterUnavailable(f"The Ray cluster is lost: {_one_line(error)}") from error
        return list(ready)

    def _started(self, ref: Any) -> None:
        actor = self._starting.pop(ref)
        try:
            fault = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._count_death(error)
            self._start(actor)
            return
        if fault is not None:
            raise fault
        self._free.extend([actor] * _BATCHES_PER_ACTOR)

    async def _collect(self, ref: Any, results: ResultQueue) -> None:
        actor, batch = self._running.pop(ref)
        try:
            outcomes = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._count_death(error)
            if actor not in self._starting.values():
                self._free = deque(each for each in self._free if each is not actor)
                self._start(actor)
            for each in self._halve(batch):
                await results.put(each)
            return
        self._deaths = 0
        if actor not in self._starting.values():
            self._free.append(actor)
        away = []
        for item, outcome in zip(batch, outcomes, strict=True):
            if outcome.away:
                away.append((item, outcome.found))
            else:
                await results.put(await self._processed(item, outcome))
        if away:
            await self._wait_for_store(away)

    async def _processed(self, item: BatchItem, outcome: PhotoOutcome) -> ProcessedItem:
        if not isinstance(outcome.found, ShoplensError):
            return self._builder.classified(item, outcome.found)
        processed = self._builder.failed(item, outcome.found)
        if not processed.needs_thumbnail or outcome.thumbnail is None:
            return processed
        return await asyncio.to_thread(self._builder.with_thumbnail, processed, lambda: outcome.thumbnail)

    def _halve(self, batch: list[BatchItem]) -> list[ProcessedItem]:
        """Try a batch whose actor died again in two halves; a single photo fails when its process died twice."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._again.extendleft([batch[middle:], batch[:middle]])
            return []
        (item,) = batch
        self._deaths_alone[item.id] += 1
        if self._deaths_alone[item.id] < _DEATHS_ALONE:
            self._again.append(batch)
            return []
        del self._deaths_alone[item.id]
        return [self._builder.failed(item, ShoplensError("The process of this photo died each time it was tried."))]

    def _count_death(self, error: Exception) -> None:
        self._deaths += 1
        _log.warning("ray.actor_died", reason=_one_line(error))
        if self._deaths > _MOST_DEATHS_IN_A_ROW:
            raise ClusterUnavailable(f"The Ray cluster makes no progress: {_one_line(error)}") from error

    async def _wait_for_store(self, away: Sequence[tuple[BatchItem, ShoplensError]]) -> None:
        """A node cannot reach the store: try these photos again once the driver can, perhaps on another node."""
        self._times_away.update(item.id for item, _ in away)
        _log.warning("ray.node_without_store", photos=len(away), reason=str(away[0][1]))
        for item, error in away:
            if self._times_away[item.id] >= _MOST_TIMES_AWAY:
                raise error
        await asyncio.to_thread(self._retry, self._store.check)
        await asyncio.sleep(_AWAY_PAUSE_S)
        self._again.append([item for item, _ in away])


def open_ray(  # noqa: PLR0913  the parts of one executor
    job: NodeJob,
    bundle: bytes,
    *,
    address: str | None,
    local_cpus: int,
    gpu: bool,
    model: ModelRef,
    store: Store,
    results: ResultBuilder,
    retry: RetryPolicy,
) -> RayExecutor:
    """Connect to the cluster at `address`, or start one here, and start an actor per processor (or GPU). Blocks.

    Raises ExtraMissing, Misconfigured and ClusterUnavailable.
    """
    with contextlib.ExitStack() as stack:
        ray = stack.enter_context(_connected(address, cpus=local_cpus))
        count = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if count < 1:
            raise ClusterUnavailable(f"The Ray cluster has no {'GPUs' if gpu else 'processors'}.")
        actor = ray.remote(PhotoActor).options(num_cpus=1, num_gpus=1 if gpu else 0, max_restarts=-1)
        pool = [actor.remote() for _ in range(count)]
        setup = [ray.put(job), ray.put(bundle)]
        executor = RayExecutor(
            ray,
            pool,
            setup,
            stack.pop_all(),
            model=model,
            store=store,
            results=results,
            retry=retry,
            timeout_s=job.timeout_s,
        )
    try:
        executor.wait_until_ready()
    except BaseException:
        executor._stack.close()  # noqa: SLF001  it was never handed out
        raise
    return executor


@contextlib.contextmanager
def _connected(address: str | None, *, cpus: int) -> Iterator[Any]:
    """The module `ray`, connected. A cluster started here is reachable only with a key that its processes share."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise ExtraMissing("Runs on a Ray cluster need the extra `ray`: pip install 'shoplens[ray]'.") from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    with _session_folder() if address is None else contextlib.nullcontext() as folder:
        if folder is not None:
            options |= {"num_cpus": cpus, "include_dashboard": False, "_temp_dir": str(folder)}
        try:
            ray.init(address=address or "local", **options)
            yield ray
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _connection_error(error, address) from error
        finally:
            with contextlib.suppress(Exception):
                ray.shutdown()


def _connection_error(error: Exception, address: str | None) -> ShoplensError:
    """One sentence instead of Ray's many lines."""
    text = _one_line(error)
    if "ersion mismatch" in text:
        return Misconfigured(f"The cluster at {address} has another version of Ray or Python than this machine: {text}")
    where = f"The Ray cluster at {address}" if address else "A Ray cluster on this machine"
    return ClusterUnavailable(f"{where} cannot be reached: {text}. Start one with `ray start --head`.")


@contextlib.contextmanager
def _session_folder() -> Iterator[Path]:
    """The files of a cluster of our own; locked while it lives, so that folders of killed processes can be removed."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST_FOLDER:
        parent = Path("/tmp")  # noqa: S108  only the parent of a folder of our own
    for lock in parent.glob(f"{_FOLDER_PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
