"""The driver's side and the conductor with a make-believe Ray: every photo comes back once, whatever dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from shoplens.batch.cluster import conductor
from shoplens.batch.cluster.cluster import Cluster, Size
from shoplens.batch.cluster.conductor import Blocks, Conductor, Course
from shoplens.batch.cluster.node import Row, column_of
from shoplens.batch.cluster.plan import Block, ClusterOutcome, ClusterPhoto, Plan
from shoplens.errors import ClusterUnavailable, ShoplensError
from shoplens.serving.redis.messages import Reply, encode_reply


class RayError(Exception):
    """As Ray's."""


class Method:
    """`actor.method.remote(…)`; the call happens when somebody gets its result, in the thread of whoever asks."""

    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        def call() -> Any:
            if self._actor.dead:
                raise RayError("The actor died.")
            return getattr(self._actor.conductor, self._name)(*arguments)

        return call


class Actor:
    """A conductor that can be killed."""

    def __init__(self, plan: Plan, bundle: list[Any]) -> None:
        self.conductor = Conductor(plan, bundle)
        self.dead = False

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


class MakeBelieveRay:
    """What `Cluster` asks of the module."""

    class exceptions:  # noqa: N801 - as in Ray
        """Of Ray."""

        RayError = RayError

    def __init__(self) -> None:
        self.actors: list[Actor] = []

    def get(self, call: Callable[[], Any], timeout: float) -> Any:
        return call()

    def kill(self, actor: Actor) -> None:
        actor.dead = True
        actor.conductor.withdraw()


class TestCluster(Cluster):
    """With actors in this process."""

    __test__ = False

    def _conductor(self) -> Any:
        self._ray.actors.append(Actor(self._plan, self._bundle))
        return self._ray.actors[-1]


class Work:
    """In place of Ray Data: takes blocks by their tickets and answers them; what it does to each is up to a test."""

    def __init__(self) -> None:
        self.courses: list[Course] = []
        self.dies_of: set[str] = set()
        self.before: Callable[[Block], None] = lambda block: None
        self.error: str | None = None

    def __call__(self, plan: Plan, bundle: list[Any], me: Actor, course: Course) -> Iterator[dict[str, Any]]:
        self.courses.append(course)
        if self.error:
            raise RuntimeError(self.error)
        for ticket in range(course.tickets):
            block: Block | None = None
            while block is None:
                block = me.conductor.take(ticket)
            assert me.conductor.take(ticket) == block  # a second try gets the same
            self.before(block)
            if self.dies_of & {photo.id for photo in block}:
                if course.lenient:
                    continue
                raise RuntimeError("A process died.")
            yield {"row": column_of([_answered(photo) for photo in block])}


def _answered(photo: ClusterPhoto) -> Row:
    return Row(id=photo.id, reply=encode_reply(Reply(job_id=photo.id, outcome=ShoplensError(f"seen {photo.id}"))))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What the conductor runs."""
    made = Work()
    monkeypatch.setattr(conductor, "_data_set", made)
    monkeypatch.setattr(conductor, "_LONGEST_WAIT_S", 0.01)
    return made


@pytest.fixture
def ray() -> MakeBelieveRay:
    """Without actors yet."""
    return MakeBelieveRay()


class PlanOfTests:
    """As much of a plan as the driver reads."""

    provider = "cpu"
    timeout_s = 1.0


@pytest.fixture
def cluster(ray: MakeBelieveRay, work: Work) -> Iterator[Cluster]:
    """Of two processors."""
    made = TestCluster(ray, cast("Plan", PlanOfTests()), [], Size(cpus=2, gpus=0))
    yield made
    made.close()


def photos(count: int, start: int = 0) -> list[ClusterPhoto]:
    """With numbers for names."""
    return [ClusterPhoto(id=str(number), key=f"k/{number}", sha256="") for number in range(start, start + count)]


def collected(cluster: Cluster, count: int) -> dict[str, str]:
    """What came back once so many did; nothing may come twice."""
    found: list[ClusterOutcome] = []
    until = time.monotonic() + 30
    while len(found) < count and time.monotonic() < until:
        found += cluster.collect(0.02)
    assert len({each.id for each in found}) == len(found) == count
    return {each.id: str(each.outcome) for each in found}


def test_every_photo_comes_back_once(cluster: Cluster) -> None:
    """In whatever order."""
    cluster.give(photos(100))
    cluster.give(photos(50, start=100))
    assert {str(number): f"seen {number}" for number in range(150)} == collected(cluster, 150)
    assert [] == cluster.collect(0.02)


def test_a_data_set_whose_tickets_are_used_up_is_followed_by_another(
    cluster: Cluster, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees the seam."""
    cluster.give(photos(600))
    for part in range(1, 5):
        cluster.give(photos(1, start=1000 * part))
    collected(cluster, 604)
    assert 512 == work.courses[0].tickets
    for number in range(600):
        cluster.give(photos(1, start=10_000 + number))
    collected(cluster, 600)
    assert [False, False] == [course.lenient for course in work.courses]


def test_a_photo_whose_process_always_dies_fails_alone(cluster: Cluster, work: Work) -> None:
    """Its neighbours are answered; what was given meanwhile waits for the next data set; then all is as before."""
    work.dies_of = {"7"}
    given = threading.Event()

    def give_more(block: Block) -> None:
        if work.courses[-1].lenient and not given.is_set():
            given.set()
            cluster.give(photos(5, start=200))

    work.before = give_more
    cluster.give(photos(100))
    found = collected(cluster, 105)
    assert "The process that worked on this photo died each time it was tried." == found.pop("7")
    assert all(text.startswith("seen") for text in found.values())
    assert [False, True, True, False] == [course.lenient for course in work.courses]


def test_a_conductor_that_dies_is_replaced(cluster: Cluster, ray: MakeBelieveRay, work: Work) -> None:
    """What had not come back is done again."""
    held = threading.Event()
    work.before = lambda block: cast("None", held.wait(10))
    cluster.give(photos(60))
    ray.actors[0].dead = True
    held.set()
    assert 60 == len(collected(cluster, 60))
    assert 2 == len(ray.actors)


def test_a_cluster_that_does_not_get_on_is_given_up(cluster: Cluster, ray: MakeBelieveRay, work: Work) -> None:
    """A bundle that no node can open, or conductors that die one after another."""
    work.error = "No node can do that."
    ray.actors[-1].conductor.withdraw()  # the first data set ends, the next ones have that error
    with pytest.raises(ClusterUnavailable, match="No node can do that"):
        collected(cluster, 1)
    work.error = None

    def replaced() -> None:
        for _ in range(20):
            ray.actors[-1].dead = True
            cluster.collect(0.01)

    with pytest.raises(ClusterUnavailable, match="does not get on"):
        replaced()


def test_silence_is_not_waited_out_for_ever(ray: MakeBelieveRay, work: Work) -> None:
    """A data set from which nothing comes back is ended, and what was in it is looked at more closely."""
    now = [0.0]
    cluster = TestCluster(
        ray, cast("Plan", PlanOfTests()), [], Size(cpus=1, gpus=0), monotonic=lambda: now[0]
    )  # fmt: skip
    hold = threading.Event()
    work.before = lambda block: cast("None", hold.wait(10))
    cluster.give(photos(3))
    assert [] == cluster.collect(0.02)
    now[0] = 1_000.0
    assert [] == cluster.collect(0.02)
    hold.set()
    assert 3 == len(collected(cluster, 3))
    cluster.close()


def test_what_nobody_has_begun_can_be_taken_back(cluster: Cluster, work: Work) -> None:
    """The rest comes to its end."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(block: Block) -> None:
        begun.set()
        go_on.wait(10)

    work.before = hold
    cluster.give(photos(100))
    assert begun.wait(10)
    back = cluster.withdraw()
    go_on.set()
    assert 68 == len(back)
    assert {str(number) for number in range(100)} - set(back) == set(collected(cluster, 32))
    assert [] == cluster.collect(0.02)


def test_work_begins_when_somebody_asks_for_it(
    ray: MakeBelieveRay, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or after a while, for a cluster may have no node yet."""
    now = iter(float(second) for second in range(1_000))
    slow = TestCluster(ray, cast("Plan", PlanOfTests()), [], Size(cpus=1, gpus=0), monotonic=lambda: next(now))
    slow.warm(30.0)
    assert next(now) < 30
    ray.actors[0].conductor.withdraw()
    work.error = "Nobody comes."
    monkeypatch.setattr(Blocks, "asked", lambda self, wait_s: False)
    began = next(now)
    slow.warm(30.0)
    assert 30 <= next(now) - began
    ray.actors[0].dead = True
    slow.warm(30.0)


def test_a_ticket_keeps_its_block_until_it_is_answered() -> None:
    """So that a task which is done again works on the same photos."""
    blocks = Blocks()
    first, second = tuple(photos(2)), tuple(photos(1, start=2))
    blocks.give([first, second])
    assert [first, second, first] == [blocks.take(5), blocks.take(9), blocks.take(5)]
    assert None is blocks.take(10, wait_s=0.0)
    blocks.answered(["0"])
    assert first == blocks.take(5)
    blocks.answered(["1", "1", "nobody"])
    assert () == blocks.take(5)
    blocks.end()
    assert [(), second] == [blocks.take(10), blocks.take(9)]
