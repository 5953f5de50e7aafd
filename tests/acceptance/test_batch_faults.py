"""More than fifty kills at random moments, of nights and ingests, while photos arrive: all is done, nothing twice."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from shoplens.batch.entities import ItemState
from tests.acceptance.batch_shop import BatchShop, Forked, tiny_photo

Moment = tuple[str, float]
"""What a command says before the seconds are counted after which it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How many photos there are, how many of them at first, and how often what is killed."""

    photos: int
    at_first: int
    nights: int
    ingests: int
    real_nights: int
    at_work: int
    """How many kills have to meet a night at work, or the course was too easy to mean anything."""


LONG = Course(photos=600, at_first=200, nights=46, ingests=12, real_nights=6, at_work=10)
SHORT = Course(photos=200, at_first=100, nights=12, ingests=4, real_nights=1, at_work=2)
SETTINGS = {
    "SHOPLENS_BATCH__COMMIT_ITEMS": "6",
    "SHOPLENS_BATCH__TAKEOVER_S": "1.0",
    "SHOPLENS_BATCH__RETRY_S": "60",
}


@pytest.fixture
def chance(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """Another course each time; SHOPLENS_TEST_SEED repeats one."""
    seed = int(os.environ.get("SHOPLENS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        sys.stdout.write(f"\nSHOPLENS_TEST_SEED={seed}\n")
    return random.Random(seed)


def cargo(chance: random.Random, photos: int) -> dict[str, bytes]:
    """Photos, some of them twice under other names, some cut off, some no photos at all."""
    brought: dict[str, bytes] = {}
    for number in range(photos):
        data = tiny_photo(number)
        kind = chance.random()
        if kind < 0.06:
            data = data[: len(data) // 2]
        elif kind < 0.1:
            data = b"<html>%d</html>" % number
        brought[f"{1000 + number}_{number}.jpg"] = data
    for number in chance.sample(range(photos), photos // 24):
        brought[f"again_{number}.jpg"] = brought[f"{1000 + number}_{number}.jpg"]
    return brought


def moments(chance: random.Random, count: int, words: str) -> list[Moment]:
    """When to kill: very early, while it starts, or somewhere in its work, which begins with these words."""
    choices = (("", 0.05), ("", 0.4), (words, 0.04), (words, 0.15), (words, 0.3))
    return [(said, chance.uniform(0, longest_s)) for said, longest_s in chance.choices(choices, k=count)]


class Killer(threading.Thread):
    """Starts a command again and again and kills it each time; `at_work` counts the kills that met it at work."""

    def __init__(self, shop: BatchShop, command: tuple[str, ...], at: list[Moment]) -> None:
        super().__init__()
        self._run = Forked(f"{command[-1]}.log")
        self._shop, self._command, self._at = shop, command, at
        self.killed = 0
        self.at_work = 0

    def run(self) -> None:
        """Ends when it was killed often enough."""
        while self._at:
            words, seconds = self._at.pop()
            if self._run(self._shop, *self._command, kill_after_s=seconds, once_said=words) == -9:
                self.killed += 1
                self.at_work += bool(leased_or_moving(self._shop))
            else:
                self._at.append(("", seconds / 2))  # there was too little to do; so it has to be sooner
        self._run.close()


class Arrivals(threading.Thread):
    """Brings the cargo bit by bit while nights are killed; ingests are killed too, or come to their end."""

    def __init__(
        self, shop: BatchShop, cargo: dict[str, bytes], nights: Killer, chance: random.Random, *, kills: int
    ) -> None:
        super().__init__()
        self._kills = kills
        self._shop, self._nights, self._chance = shop, nights, chance
        self._left = list(cargo.items())
        self._run = Forked("ingest.log")
        self.killed = 0

    def run(self) -> None:
        """Ends when everything is in the drop folder and nobody kills nights any more."""
        while self._left or self._nights.is_alive():
            self.bring(self._chance.randint(5, 25) if self._nights.is_alive() else len(self._left))
            self.ingest(kill=self.killed < self._kills and self._chance.random() < 0.6)
        self._run.close()

    def bring(self, count: int) -> None:
        """So many files come into the drop folder."""
        for name, data in self._left[:count]:
            self._shop.bring(name, data)
        del self._left[:count]

    def ingest(self, *, kill: bool) -> None:
        """Once; killed at some moment of its start or its work."""
        ((words, seconds),) = moments(self._chance, 1, "trigger.started")
        status = self._run(self._shop, "batch", "ingest", kill_after_s=seconds if kill else None, once_said=words)
        self.killed += status == -9


def leased_or_moving(shop: BatchShop) -> int:
    """Items that a process had in its hands when it died."""
    return sum(item.state is ItemState.PROCESSING or item.target_key is not None for item in shop.items())


@pytest.mark.timeout(280)
def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path, chance: random.Random) -> None:
    """In the end every photo is in one place with one result, and the counts add up."""
    go_through(LONG, BatchShop(tmp_path, SETTINGS).set_up(), chance)


@pytest.mark.timeout(280)
def test_postgresql_loses_nothing_either(tmp_path: Path, chance: random.Random, postgres_database: str) -> None:
    """The same in short, with the rows on a server."""
    go_through(SHORT, BatchShop(tmp_path, SETTINGS, postgres_database).set_up(), chance)


def go_through(course: Course, shop: BatchShop, chance: random.Random) -> None:
    """Kill nights and ingests while photos arrive, then let everything come to its end, and audit."""
    brought = cargo(chance, course.photos)
    nights = Killer(shop, ("batch", "run"), moments(chance, course.nights, "run.started"))
    arrivals = Arrivals(shop, brought, nights, chance, kills=course.ingests)
    arrivals.bring(course.at_first)
    arrivals.ingest(kill=False)
    for each in (nights, arrivals):
        each.start()
    for each in (nights, arrivals):
        each.join()
    kill_real_nights(shop, chance, course.real_nights)
    finish(shop)
    assert course.nights == nights.killed
    assert [] == shop.faults(brought), shop.told()[-4_000:]
    assert "FAULT" not in shop.told()
    assert_the_counts_add_up(shop, brought)
    assert nights.at_work >= course.at_work, "the kills met no work; the course was too easy to mean anything"
    assert arrivals.killed >= course.ingests // 3


def kill_real_nights(shop: BatchShop, chance: random.Random, count: int) -> None:
    """As the scheduler starts them, with all their imports."""
    for _ in range(count):
        night = shop.start("batch", "run")
        time.sleep(chance.uniform(0.3, 2.5))
        night.kill()
        night.communicate()


def finish(shop: BatchShop) -> None:
    """What is left is brought in and worked through by commands that nobody kills."""
    run = Forked()
    try:
        assert [0, 0] == [run(shop, "batch", "ingest"), run(shop, "batch", "run")], shop.told()[-4_000:]
    finally:
        run.close()


def assert_the_counts_add_up(shop: BatchShop, brought: dict[str, bytes]) -> None:
    """All files that were brought are counted, each once."""
    counts = Counter(item.state for item in shop.items())
    assert len(brought) == counts.total()
    broken = sum(not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9") for data in set(brought.values()))
    assert broken == counts[ItemState.QUARANTINED]
    assert len(brought) - len(set(brought.values())) == counts[ItemState.DUPLICATE]
