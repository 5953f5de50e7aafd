"""The driver's side of a Ray cluster: photos are given to it, outcomes are collected, whatever dies in between.

Every photo that was given comes back once. Ray retries the tasks of a node that is lost. If a process dies again and
again, or nothing comes back for long, its data set ends. What was under way then goes in small blocks, in a data set
that leaves out those that cannot be done; the photos of these go alone, and one whose process dies even so has met its
own fault.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog

from shoplens.batch.cluster.conductor import Collected, Conductor, Course
from shoplens.batch.cluster.link import linked
from shoplens.batch.cluster.node import outcome_of
from shoplens.batch.cluster.nodes import check_nodes
from shoplens.batch.cluster.plan import Block, ClusterOutcome, ClusterPhoto, Plan, blocks_of
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.store import pack_bundle
from shoplens.errors import ClusterUnavailable, ShoplensError

LARGEST_BLOCK: Final = 32
_TICKETS_PER_CPU: Final = 256
_MOST_TICKETS: Final = 16_384
_BLOCKS_PER_CPU: Final = 4
_SPARE_CALLS: Final = 8
_ANSWERS_WITHIN_S: Final = 60.0
_WARM_WITHIN_S: Final = 60.0
_MOST_RESTARTS: Final = 5
_SUSPECTED_BLOCK: Final = 8
_LEAST_SILENCE_S: Final = 300.0
_SILENT_TIMEOUTS: Final = 3
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a cluster, as it is when it is joined."""

    cpus: int
    gpus: int

    @property
    def photos(self) -> int:
        """How many may be under way, so that no processor waits for the driver."""
        return LARGEST_BLOCK * _BLOCKS_PER_CPU * self.cpus


@contextlib.contextmanager
def joined(plan: Plan, bundle: Bundle, *, address: str | None, local_cpus: int) -> Iterator[Cluster]:
    """A cluster that is ready for photos. Raises ExtraMissing, Misconfigured and ClusterUnavailable."""
    packed = _packed(bundle)
    with linked(address, cpus=local_cpus) as ray:
        size = _size(ray)
        check_nodes(ray, plan)
        cluster = Cluster(ray, plan, [ray.put(packed)], size)
        try:
            cluster.warm()
            yield cluster
        finally:
            cluster.close()


class Cluster:
    """All methods block. `collect` is for one thread at a time; the others may come from others beside it."""

    def __init__(
        self, ray: Any, plan: Plan, bundle: list[Any], size: Size, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._ray = ray
        self._plan = plan
        self._bundle = bundle
        self.size = size
        self._out: dict[str, ClusterPhoto] = {}
        self._later: list[ClusterPhoto] = []
        self._suspicion = 0
        self._heard_at = monotonic()
        self._monotonic = monotonic
        self._withdrawn = False
        self._restarts = 0
        self._changed = threading.RLock()
        self._actor = self._conductor()
        self._begin((), suspicion=0)

    def warm(self, limit_s: float = _WARM_WITHIN_S) -> None:
        """Wait until the first task is there, so that work goes at full speed once it begins; not for ever."""
        until = self._monotonic() + limit_s
        with contextlib.suppress(self._ray.exceptions.RayError):
            while self._monotonic() < until and not self._ray.get(
                self._actor.asked.remote(), timeout=_ANSWERS_WITHIN_S
            ):
                pass

    def give(self, photos: Sequence[ClusterPhoto]) -> None:
        """Have these worked on."""
        with self._changed:
            self._out.update((photo.id, photo) for photo in photos)
            if self._suspicion:
                self._later.extend(photos)
                return
        with contextlib.suppress(self._ray.exceptions.RayError):  # who collects sees it, too, and starts anew
            self._ray.get(self._actor.give.remote(self._blocks(photos)), timeout=_ANSWERS_WITHIN_S)

    def collect(self, wait_s: float) -> list[ClusterOutcome]:
        """What came back by now, within about `wait_s`. Raises ClusterUnavailable when the cluster is lost."""
        try:
            got: Collected = self._ray.get(self._actor.collect.remote(wait_s), timeout=wait_s + _ANSWERS_WITHIN_S)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            self._replace(error)
            return []
        outcomes = [self._back(outcome_of(row)) for row in got.rows]
        found = [outcome for outcome in outcomes if outcome is not None]
        if found or not self._out:
            self._restarts, self._heard_at = (0 if found else self._restarts), self._monotonic()
        if got.ended:
            return found + self._go_on(got.error)
        if self._monotonic() - self._heard_at > max(_LEAST_SILENCE_S, _SILENT_TIMEOUTS * self._plan.timeout_s):
            self._renew()
            return found + self._go_on("Nothing came back for too long.")
        return found

    def withdraw(self) -> list[str]:
        """Take back what no node has begun; the ids of those photos. Nothing can be given after that."""
        with self._changed:
            self._withdrawn = True
            later = [photo.id for photo in self._later]
            self._later.clear()
        ids: list[str] = []
        with contextlib.suppress(self._ray.exceptions.RayError):
            ids = self._ray.get(self._actor.withdraw.remote(), timeout=_ANSWERS_WITHIN_S)
        with self._changed:
            return [each for each in [*ids, *later] if self._out.pop(each, None) is not None]

    def close(self) -> None:
        """End the work; what is under way is dropped."""
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)

    def _back(self, outcome: ClusterOutcome) -> ClusterOutcome | None:
        """None for what came back before, or belongs to nobody."""
        with self._changed:
            return outcome if self._out.pop(outcome.id, None) is not None else None

    def _go_on(self, error: str | None) -> list[ClusterOutcome]:
        """The data set has ended: because its tickets are used up, or too early."""
        with self._changed:
            if self._withdrawn:
                if self._out:
                    raise ClusterUnavailable(f"What was under way is lost: {error}")
                return []
            if self._suspicion:
                return self._after_the_suspects(error)
            if error is None:
                self._begin(self._blocks(list(self._out.values())), suspicion=0)
                return []
            self._count_restart(error)
            _log.warning("cluster.suspects", photos=len(self._out), reason=error)
            self._begin(blocks_of(list(self._out.values()), largest=_SUSPECTED_BLOCK, tasks=1), suspicion=1)
            return []

    def _after_the_suspects(self, error: str | None) -> list[ClusterOutcome]:
        if error is not None:
            raise ClusterUnavailable(f"The cluster does not get on with its work: {error}")
        later = {photo.id for photo in self._later}
        lost = [photo for photo in self._out.values() if photo.id not in later]
        if lost and self._suspicion == 1:
            self._begin([(photo,) for photo in lost], suspicion=2)
            return []
        for each in lost:
            del self._out[each.id]
        self._begin(self._blocks(self._later), suspicion=0)
        self._later.clear()
        fault = ShoplensError("The process that worked on this photo died each time it was tried.")
        return [ClusterOutcome(id=each.id, outcome=fault) for each in lost]

    def _replace(self, error: Exception) -> None:
        """The conductor died with its node: another one is given all that has not come back."""
        with self._changed:
            self._count_restart(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            _log.warning("cluster.conductor_lost", photos=len(self._out), reason=type(error).__name__)
            try:
                self._renew()
                self._later.clear()
                self._begin(self._blocks(list(self._out.values())), suspicion=0)
            except (self._ray.exceptions.RayError, ConnectionError) as again:
                raise ClusterUnavailable(f"The cluster is lost: {' '.join(str(again).split())[:300]}") from again

    def _renew(self) -> None:
        self.close()
        self._actor = self._conductor()

    def _count_restart(self, reason: str) -> None:
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise ClusterUnavailable(f"The cluster does not get on with its work: {reason}")

    def _begin(self, blocks: Sequence[Block], *, suspicion: int) -> None:
        """With `suspicion`, these blocks and no more."""
        self._suspicion, self._heard_at = suspicion, self._monotonic()
        lenient = suspicion > 0
        tickets = len(blocks) if lenient else min(_MOST_TICKETS, _TICKETS_PER_CPU * self.size.cpus)
        course = Course(tickets=tickets, actors=self._actors(), gpus=self.size.gpus, lenient=lenient)
        self._ray.get(self._actor.start.remote(self._actor, course, blocks), timeout=_ANSWERS_WITHIN_S)

    def _actors(self) -> int:
        return self.size.gpus if self._plan.provider == "cuda" else self.size.cpus

    def _blocks(self, photos: Sequence[ClusterPhoto]) -> list[Block]:
        return blocks_of(photos, largest=LARGEST_BLOCK, tasks=self.size.cpus)

    def _conductor(self) -> Any:
        """Near this process, where its death means that of the night anyway."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        actor = self._ray.remote(Conductor).options(
            num_cpus=0,
            max_concurrency=2 * self.size.cpus + _SPARE_CALLS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
        )
        return actor.remote(self._plan, self._bundle)


def _packed(bundle: Bundle) -> bytes:
    with TemporaryDirectory(prefix="shoplens-bundle-") as folder:
        return pack_bundle(bundle.root, Path(folder) / "bundle").read_bytes()


def _size(ray: Any) -> Size:
    """Raises ClusterUnavailable for a cluster that has no processors."""
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if cpus < 1:
        raise ClusterUnavailable("The Ray cluster has no processors: start nodes that have some.")
    return Size(cpus=cpus, gpus=gpus)
