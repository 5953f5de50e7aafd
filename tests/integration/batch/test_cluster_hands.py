"""A night whose photos are worked on elsewhere, by a make-believe cluster over a real database and a real store."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.batch import cluster as hands_module
from shoplens.batch.cluster.plan import ClusterOutcome, ClusterPhoto
from shoplens.batch.cluster_executor import ClusterCrew, Joined, share_marker
from shoplens.batch.entities import ItemState
from shoplens.batch.night import Night
from shoplens.db import Database
from shoplens.errors import ClusterUnavailable, ImageCorrupt, ShoplensError, StorageUnavailable
from shoplens.images.picture import ImageFacts
from shoplens.serving.engine import ClassifyResult
from shoplens.serving.prediction import LabelScore, Prediction
from tests.unit.batch.batch_house import MODEL, RULES, House, open_house


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """An empty one."""
    return open_house(database, tmp_path)


class MakeBelieveCluster:
    """Answers each photo by `answer`, a few at a time; `hold` keeps it from beginning any."""

    def __init__(self, answer: Callable[[ClusterPhoto], ClusterOutcome]) -> None:
        self.answer = answer
        self.waiting: list[ClusterPhoto] = []
        self.most_waiting = 0
        self.left = False
        self.hold = threading.Event()
        self.hold.set()
        self.given = threading.Event()
        self._changed = threading.Lock()

    def give(self, photos: Sequence[ClusterPhoto]) -> None:
        with self._changed:
            self.waiting.extend(photos)
            self.most_waiting = max(self.most_waiting, len(self.waiting))
        self.given.set()

    def collect(self, wait_s: float) -> list[ClusterOutcome]:
        if not self.hold.wait(0.01):
            return []
        with self._changed:
            done, self.waiting = self.waiting[:5], self.waiting[5:]
        return [self.answer(photo) for photo in done]

    def withdraw(self) -> list[str]:
        with self._changed:
            back, self.waiting = self.waiting[2:], self.waiting[:2]
        self.hold.set()
        return [photo.id for photo in back]


def answered(photo: ClusterPhoto) -> ClusterOutcome:
    """A shirt."""
    facts = ImageFacts(format="jpeg", width=8, height=6, byte_count=1, sha256=photo.sha256, phash="00ff00ff00ff00ff")
    labels = (LabelScore("shirt", 0.9), LabelScore("other", 0.1))
    answer = ClassifyResult(
        prediction=Prediction(model=MODEL, labels=labels), image=facts, thumbnail=None,
        queue_s=0.0, pixels_s=0.001, inference_s=0.002,
    )  # fmt: skip
    return ClusterOutcome(id=photo.id, outcome=answer)


def night_on(house: House, cluster: MakeBelieveCluster, *, photos: int = 8) -> Night:
    """A night that joins it."""

    @contextmanager
    def join() -> Iterator[Joined]:
        yield Joined(cluster=cluster, model=MODEL, photos=photos)
        cluster.left = True

    night = house.night(RULES)
    night._parts = replace(night._parts, open_crew=lambda: ClusterCrew(join()))
    return night


async def test_a_night_is_worked_through_and_never_more_is_given_than_agreed(house: House) -> None:
    """The driver's memory holds what is under way, and two commits."""
    house.bring(*["shirt 0.9"] * 90)
    cluster = MakeBelieveCluster(answered)
    await night_on(house, cluster)(requested_by="test")
    assert (Counter({ItemState.DONE: 90}), []) == (house.states(), house.faults())
    assert cluster.most_waiting <= 8 + 2 * RULES.bounds.batch
    assert cluster.left


async def test_failures_become_what_they_are_in_any_night(house: House) -> None:
    """To quarantine with reason and thumbnail, or to another try."""
    bad, again, *_ = house.bring(*["shirt 0.9"] * 12)
    seen: Counter[str] = Counter()

    def answer(photo: ClusterPhoto) -> ClusterOutcome:
        seen[photo.id] += 1
        if photo.id == bad.id:
            return ClusterOutcome(id=photo.id, outcome=ImageCorrupt("It is cut."), salvaged=b"small")
        if photo.id == again.id and seen[photo.id] < 3:
            return ClusterOutcome(id=photo.id, outcome=ShoplensError("A fault."), salvaged=b"unseen")
        return answered(photo)

    await night_on(house, MakeBelieveCluster(answer))(requested_by="test")
    item = house.item(bad.id)
    assert (ItemState.QUARANTINED, "image_corrupt", "It is cut.") == (item.state, item.failure_code, item.failure)
    assert b"small" == house.store.get(item.thumbnail_key or "")
    assert (ItemState.DONE, 3, None) == (
        house.item(again.id).state, house.item(again.id).attempts, house.item(again.id).thumbnail_key,
    )  # fmt: skip
    assert [] == house.faults()


async def test_a_node_without_the_store_costs_no_photo_a_try(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it could not read is given to the cluster again; if that never helps, the night ends with its reason."""
    monkeypatch.setattr(hands_module, "_AGAIN_AFTER_S", 0.01)
    house.bring(*["shirt 0.9"] * 6)
    seen: Counter[str] = Counter()

    def answer(photo: ClusterPhoto) -> ClusterOutcome:
        seen[photo.id] += 1
        cut_off = StorageUnavailable("The node b cannot read photos.")
        return answered(photo) if seen[photo.id] > 3 else ClusterOutcome(id=photo.id, outcome=cut_off, away=True)

    await night_on(house, MakeBelieveCluster(answer))(requested_by="test")
    assert {(ItemState.DONE, 1)} == {(item.state, item.attempts) for item in house.items()}
    house.bring("shirt 0.9")
    never = MakeBelieveCluster(
        lambda photo: ClusterOutcome(id=photo.id, outcome=StorageUnavailable("The node b is blind."), away=True)
    )
    with pytest.raises(StorageUnavailable, match="The node b is blind"):
        await night_on(house, never)(requested_by="test")
    assert (ItemState.WAITING, 0) == (house.items()[-1].state, house.items()[-1].attempts)


async def test_a_stop_takes_back_what_was_not_begun(house: House) -> None:
    """What was is committed; the next night does the rest."""
    house.bring(*["shirt 0.9"] * 30)
    cluster = MakeBelieveCluster(answered)
    cluster.hold.clear()
    night = night_on(house, cluster)
    at_work = asyncio.create_task(night(requested_by="test"))
    await asyncio.to_thread(cluster.given.wait, 10)
    night.stop()
    await at_work
    assert Counter({ItemState.DONE: 2, ItemState.WAITING: 28}) == house.states()
    await night_on(house, MakeBelieveCluster(answered))(requested_by="test")
    assert (Counter({ItemState.DONE: 30}), []) == (house.states(), house.faults())


async def test_a_cluster_that_is_lost_ends_the_night_and_the_next_goes_on(house: House) -> None:
    """With its reason; nothing stays leased."""
    house.bring(*["shirt 0.9"] * 20)
    seen: list[str] = []

    def answer(photo: ClusterPhoto) -> ClusterOutcome:
        seen.append(photo.id)
        if len(seen) > 9:
            raise ClusterUnavailable("The cluster is lost.")
        return answered(photo)

    with pytest.raises(ClusterUnavailable, match="is lost"):
        await night_on(house, MakeBelieveCluster(answer))(requested_by="test")
    assert {ItemState.DONE, ItemState.WAITING} == set(house.states())
    await night_on(house, MakeBelieveCluster(answered))(requested_by="test")
    assert (Counter({ItemState.DONE: 20}), []) == (house.states(), house.faults())


def test_a_new_mark_replaces_those_of_killed_drivers(house: House) -> None:
    """They are a few bytes, but for ever."""
    for name in ("a", "b"):
        key = share_marker(house.store, folder="health/nights", name=name)
    assert (["health/nights/b"], b"b") == (list(house.store.list("health/nights")), house.store.get(key))
