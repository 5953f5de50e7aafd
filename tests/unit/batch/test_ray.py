"""The executor on a Ray cluster, with a Ray whose actors live in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import shoplens
from shoplens.batch import ray as executor_module
from shoplens.batch.entities import BatchRun, ItemState
from shoplens.batch.executors import ResultBuilder, RetryPolicy
from shoplens.batch.ray import Cluster, NodeJob, RayExecutor
from shoplens.db import Database
from shoplens.errors import ClusterUnavailable, Misconfigured
from shoplens.images.picture import Limits
from shoplens.serving.engine import ClassifyRequest, ClassifyResult
from tests.conftest import ONLY_SQLITE
from tests.unit.batch.batch_house import CHANNEL, MODEL, RULES, House, ScriptedEngine, now, open_house

CLUSTER = {"CPU": 2.0}
pytestmark = ONLY_SQLITE


class ProcessDied(BaseException):
    """What ends the process of an actor."""


class FragileEngine(ScriptedEngine):
    """Its process dies of photos that begin with `Poison`."""

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        if request.images[0].startswith(b"Poison"):
            raise ProcessDied
        return await super().classify(request)


class FakeRay(ModuleType):
    """As much of the module `ray` as the executor uses. A call is done when `wait` looks at it.

    `restart_takes` is the number of waits that a process needs to start again after its death. `setups` are what actors
    were made ready with.
    """

    class RayError(Exception):
        """What Ray raises."""

    def __init__(self, resources: dict[str, float]) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=FakeRay.RayError)
        self.cluster_resources = lambda: resources
        self.open = False
        self.setups: list[list[Any]] = []
        self.restart_takes = self.waits = self.deaths = 0

    def init(self, **_: Any) -> None:
        """Connect."""
        self.open = True

    def shutdown(self) -> None:
        """Disconnect."""
        self.open = False

    def remote(self, actor_class: type) -> Any:
        """A class whose `remote` starts an actor."""

        def options(*, max_task_retries: int = 0, **_: Any) -> Any:
            return SimpleNamespace(remote=lambda: FakeActor(self, actor_class, max_task_retries))

        return SimpleNamespace(options=options)

    def put(self, value: Any) -> Any:
        """A reference is the value itself."""
        return value

    def wait(self, refs: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        """The first that is done."""
        self.waits += 1
        ready = next((ref for ref in refs if ref.is_done()), None)
        return [ready] if ready else [], [ref for ref in refs if ref is not ready]

    def get(self, ref: Reference) -> Any:
        """The result, or the error."""
        if ref.failed:
            raise FakeRay.RayError("The actor died.")
        return ref.result


class FakeActor:
    """Starts again, without its state, when it died. Calls until then fail, or wait if its handle has retries."""

    def __init__(self, ray: FakeRay, actor_class: type, retries: int) -> None:
        self._ray = ray
        self._class = actor_class
        self._instance = actor_class()
        self._up_at = 0
        self.patient = retries != 0

    def __getattr__(self, method: str) -> Any:
        call = SimpleNamespace(remote=lambda *arguments: Reference(self, method, arguments))
        return SimpleNamespace(remote=call.remote, options=lambda **_: call)

    def is_up(self) -> bool:
        """Whether its process runs."""
        return self._ray.waits >= self._up_at

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """The result of a method. Raises RayError if it fails or its process dies."""
        given = [argument.result if isinstance(argument, Reference) else argument for argument in arguments]
        if method == "ready":
            self._ray.setups.append(given)
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(asyncio.run, getattr(self._instance, method)(*given))
        if isinstance(done.exception(), ProcessDied):
            self._ray.deaths += 1
            self._instance = self._class()
            self._up_at = self._ray.waits + self._ray.restart_takes
        if done.exception() is not None:
            raise FakeRay.RayError(f"The actor died: {done.exception()!r}")
        return done.result()


class Reference:
    """What a call returns."""

    def __init__(self, actor: FakeActor, method: str, arguments: tuple[Any, ...]) -> None:
        self._actor, self._method, self._arguments = actor, method, arguments
        self._done = self.failed = not (actor.is_up() or actor.patient)
        self.result: Any = None

    def is_done(self) -> bool:
        """Whether the call has ended. It is made when its process runs and all that it needs is done."""
        needed = [argument for argument in self._arguments if isinstance(argument, Reference)]
        if not self._done and self._actor.is_up() and all(ref.is_done() for ref in needed):
            self._done = True
            try:
                self.result = self._actor.call(self._method, self._arguments)
            except FakeRay.RayError:
                self.failed = True
        return self._done


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """A database and a store without items."""
    return open_house(database, tmp_path, engine=FragileEngine())


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """A cluster of two processors."""
    fake = FakeRay(CLUSTER)
    monkeypatch.setitem(sys.modules, "ray", fake)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_COLOR_PREFIX", "RAY_NUM_REDIS_GET_RETRIES"):
        monkeypatch.setenv(name, "1")
    for name in ("RAY_gcs_rpc_server_connect_timeout_s", "RAY_py_gcs_connect_timeout_s"):
        monkeypatch.setenv(name, "1")
    return fake


def run_on_ray(house: House, job: NodeJob) -> BatchRun:
    """A whole run."""
    results = ResultBuilder(CHANNEL, house.store, clock=now, max_attempts=1)

    def open_executor() -> RayExecutor:
        return RayExecutor(
            job, b"bundle", Cluster(address="head:6379", local_cpus=2), model=MODEL, store=house.store,
            results=results, retry=RetryPolicy(5.0),
        )  # fmt: skip

    return asyncio.run(house.runner(RULES, open_executor=open_executor).run(requested_by="test"))


def job_for(house: House, tmp_path: Path) -> NodeJob:
    """A job for nodes that see the store."""
    return NodeJob(
        version=shoplens.__version__,
        store_url=str(tmp_path / "blobs"),
        limits=Limits(),
        timeout_s=30.0,
        open_engine=lambda _: (house.engine, "script"),
    )


def test_photos_that_kill_their_process_fail_alone(house: House, ray: FakeRay, tmp_path: Path) -> None:
    """Their batch is halved until each of them is alone; their neighbours are classified at the first attempt."""
    house.bring(*["shirt 0.9"] * 40, "Poison", *["shirt 0.9"] * 5, "Poison")
    run_on_ray(house, job_for(house, tmp_path))
    assert {ItemState.DONE: 45, ItemState.QUARANTINED: 2} == house.states()
    assert Counter({None: 45, "internal_error": 2}) == Counter(item.failure_code for item in house.items())
    assert {1} == {item.attempts for item in house.items()}
    assert ([], False) == (house.faults(), ray.open)


def test_a_process_may_take_long_to_start_again(
    house: House, ray: FakeRay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run waits for it. Each death is logged once."""
    ray.restart_takes = 100
    house.bring("Poison", *["shirt 0.9"] * 31)
    run_on_ray(house, job_for(house, tmp_path))
    assert {ItemState.DONE: 31, ItemState.QUARANTINED: 1} == house.states()
    assert ray.deaths == caplog.text.count("ray.actor_died") > 1


def test_a_silent_cluster_ends_the_run(
    house: House, ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning comes long before."""
    monkeypatch.setattr(executor_module, "_WARN_OF_SILENCE_S", 0.1)
    monkeypatch.setattr(executor_module, "_LEAST_SILENCE_S", 0.4)
    ray.restart_takes = sys.maxsize
    house.bring("Poison", "Poison")
    with pytest.raises(ClusterUnavailable, match=r"for 0\.4 s"):
        run_on_ray(house, replace(job_for(house, tmp_path), timeout_s=0.1))
    assert 1 == caplog.text.count("ray.silent")
    assert ItemState.WAITING in house.states()


def test_a_node_that_loses_the_store_costs_no_attempt(house: House, ray: FakeRay, tmp_path: Path) -> None:
    """Its photos are tried again; a photo that is really gone is quarantined."""
    house.bring("!OnceStorageUnavailable", "shirt 0.9")
    gone = house.bring("shirt 0.9")[0]
    house.store.delete(gone.key or "")
    run_on_ray(house, job_for(house, tmp_path))
    assert {ItemState.DONE: 2, ItemState.QUARANTINED: 1} == house.states()
    assert {1} == {item.attempts for item in house.items()}
    assert (ItemState.QUARANTINED, "image_gone") == (house.item(gone.id).state, house.item(gone.id).failure_code)


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [({"version": "0.0.1"}, "the driver 0.0.1"), ({"store_url": "elsewhere"}, "must be mounted on every node")],
)
def test_an_unsuitable_node_ends_the_run(
    house: House, ray: FakeRay, tmp_path: Path, difference: dict[str, str], sentence: str
) -> None:
    """The error says what differs, all items wait for the next start, and the marker is removed."""
    house.bring("shirt 0.9")
    if "store_url" in difference:
        difference = {"store_url": str(tmp_path / difference["store_url"])}
    with pytest.raises(Misconfigured, match=sentence):
        run_on_ray(house, replace(job_for(house, tmp_path), **difference))  # type: ignore[arg-type]
    assert {ItemState.WAITING: 1} == house.states()
    assert ([], False) == (list(house.store.list("health")), ray.open)


def test_the_marker_of_a_killed_driver_is_removed(house: House, ray: FakeRay, tmp_path: Path) -> None:
    """Only that of the same channel: the run of another channel may need its own."""
    house.store.put("health/nodes/returns.0123456789abcdef", b"seen")
    house.store.put("health/nodes/other.0123456789abcdef", b"seen")
    house.bring("shirt 0.9")
    run_on_ray(house, job_for(house, tmp_path))
    assert ["health/nodes/other.0123456789abcdef"] == list(house.store.list("health/nodes"))


def test_a_cluster_without_processors_is_unavailable(
    house: House, ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head may be started with `--num-cpus 0`."""
    monkeypatch.setattr(ray, "cluster_resources", dict)
    house.bring("shirt 0.9")
    with pytest.raises(ClusterUnavailable, match="no processors"):
        run_on_ray(house, job_for(house, tmp_path))
    assert False is ray.open


ACTOR = """
import asyncio, sys, shoplens
from shoplens.batch.ray import NodeJob, PhotoActor
from shoplens.images.picture import Limits
from shoplens.serving.engine import Engine

class Broken(Engine):
    async def classify(self, request):
        raise ZeroDivisionError

job = NodeJob(version=shoplens.__version__, store_url=sys.argv[1], limits=Limits(), timeout_s=5,
              open_engine=lambda _: (Broken(), "m"))
actor = PhotoActor()
assert asyncio.run(actor.ready(job, b"", "marker", {"run": "r1", "channel": "returns", "trace_id": "t1"}, True)) is None
asyncio.run(actor.classify([("marker", sys.argv[2])]))
"""


def test_lines_of_an_actor_name_its_run(house: House, tmp_path: Path) -> None:
    """In a process of its own, whose standard error Ray keeps; the driver sends what its own lines have."""
    house.store.put("marker", b"photo")
    sha256 = hashlib.sha256(b"photo").hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", ACTOR, str(tmp_path / "blobs"), sha256],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    (line,) = map(json.loads, done.stderr.splitlines())
    assert ("ray.photo_failed", "r1", "returns", "t1", sha256) == (
        line["event"], line["run"], line["channel"], line["trace_id"], line["sha256"]
    )  # fmt: skip


def test_an_actor_is_given_what_lines_of_the_run_have(house: House, ray: FakeRay, tmp_path: Path) -> None:
    """The id of the run and its channel."""
    house.bring("shirt 0.9")
    run = run_on_ray(house, job_for(house, tmp_path))
    assert {"run": run.id, "channel": run.channel} == ray.setups[0][-2]
