"""More than fifty kills of runs and imports at random moments while photos arrive: each photo is processed once."""

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
"""Words in the log of a command, and the seconds after them at which it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """How many photos there are, how many of them at first, and how many processes are killed."""

    photos: int
    at_first: int
    runs: int
    imports: int
    real_runs: int
    at_work: int
    """How many kills have to hit a run at work, or the campaign was too easy. More than half of them do."""


LONG = Campaign(photos=400, at_first=150, runs=30, imports=9, real_runs=2, at_work=2)
SHORT = Campaign(photos=150, at_first=75, runs=9, imports=3, real_runs=1, at_work=1)
SETTINGS = {
    "SHOPLENS_BATCH__COMMIT_ITEMS": "6",
    "SHOPLENS_BATCH__TAKEOVER_S": "1.0",
    "SHOPLENS_BATCH__RETRY_S": "60",
}


@pytest.fixture
def chance(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """SHOPLENS_TEST_SEED makes another sequence."""
    seed = int(os.environ.get("SHOPLENS_TEST_SEED") or 1)
    with capsys.disabled():
        sys.stdout.write(f"\nSHOPLENS_TEST_SEED={seed}\n")
    return random.Random(seed)


def cargo(chance: random.Random, photos: int) -> dict[str, bytes]:
    """Photos, some of them twice under other names, some truncated, some of them no photos."""
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
    """When to kill: very early, during the start, or during the work, which begins with these words in the log."""
    choices = (("", 0.05), ("", 0.4), (words, 0.04), (words, 0.15), (words, 0.3))
    return [(said, chance.uniform(0, longest_s)) for said, longest_s in chance.choices(choices, k=count)]


class Killer(threading.Thread):
    """Starts a command repeatedly and kills it each time; `at_work` counts the kills that hit it at work."""

    def __init__(self, shop: BatchShop, command: tuple[str, ...], at: list[Moment]) -> None:
        super().__init__()
        self._run = Forked(f"{command[-1]}.log")
        self._shop, self._command, self._at = shop, command, at
        self.killed = 0
        self.at_work = 0

    def run(self) -> None:
        """Returns when it was killed often enough."""
        while self._at:
            words, seconds = self._at.pop()
            if self._run(self._shop, *self._command, kill_after_s=seconds, once_said=words) == -9:
                self.killed += 1
                self.at_work += bool(leased_or_moving(self._shop))
            else:
                self._at.append(("", seconds / 2))  # it finished first, so kill it sooner
        self._run.close()


class Arrivals(threading.Thread):
    """Adds files bit by bit while runs are killed; some of its imports are killed too."""

    def __init__(
        self, shop: BatchShop, cargo: dict[str, bytes], runs: Killer, chance: random.Random, *, kills: int
    ) -> None:
        super().__init__()
        self._kills = kills
        self._shop, self._runs, self._chance = shop, runs, chance
        self._left = list(cargo.items())
        self._run = Forked("ingest.log")
        self.killed = 0

    def run(self) -> None:
        """Returns when everything is in the drop folder and no more runs are killed."""
        while self._left or self._runs.is_alive():
            self.bring(self._chance.randint(5, 25) if self._runs.is_alive() else len(self._left))
            self.ingest(kill=self.killed < self._kills and self._chance.random() < 0.6)
        self._run.close()

    def bring(self, count: int) -> None:
        """Put this many files into the drop folder."""
        for name, data in self._left[:count]:
            self._shop.bring(name, data)
        del self._left[:count]

    def ingest(self, *, kill: bool) -> None:
        """One import, killed at a random moment if `kill`."""
        ((words, seconds),) = moments(self._chance, 1, "trigger.started")
        status = self._run(self._shop, "batch", "ingest", kill_after_s=seconds if kill else None, once_said=words)
        self.killed += status == -9


def leased_or_moving(shop: BatchShop) -> int:
    """Items that a process had leased, or was moving, when it died."""
    return sum(item.state is ItemState.PROCESSING or item.target_key is not None for item in shop.items())


def test_nothing_is_lost_and_nothing_is_processed_twice(tmp_path: Path, chance: random.Random) -> None:
    """At the end every photo is in one place with one result, and the counts add up."""
    run_campaign(LONG, BatchShop(tmp_path, SETTINGS).set_up(), chance)


def test_postgresql_loses_nothing_either(tmp_path: Path, chance: random.Random, postgres_database: str) -> None:
    """A shorter campaign with the rows on a server."""
    run_campaign(SHORT, BatchShop(tmp_path, SETTINGS, postgres_database).set_up(), chance)


def run_campaign(campaign: Campaign, shop: BatchShop, chance: random.Random) -> None:
    """Kill runs and imports while photos arrive, then let everything finish, and check."""
    brought = cargo(chance, campaign.photos)
    runs = Killer(shop, ("batch", "run"), moments(chance, campaign.runs, "run.started"))
    arrivals = Arrivals(shop, brought, runs, chance, kills=campaign.imports)
    arrivals.bring(campaign.at_first)
    arrivals.ingest(kill=False)
    for each in (runs, arrivals):
        each.start()
    for each in (runs, arrivals):
        each.join()
    kill_real_runs(shop, chance, campaign.real_runs)
    finish(shop)
    assert campaign.runs == runs.killed
    assert [] == shop.faults(brought), shop.output()[-4_000:]
    assert "FAULT" not in shop.output()
    assert_the_counts_add_up(shop, brought)
    assert runs.at_work >= campaign.at_work, "the kills hit no work; the campaign was too easy"
    assert arrivals.killed >= campaign.imports // 3


def kill_real_runs(shop: BatchShop, chance: random.Random, count: int) -> None:
    """Processes as a scheduler starts them, with all their imports of modules."""
    for _ in range(count):
        process = shop.start("batch", "run")
        time.sleep(chance.uniform(0.3, 2.5))
        process.kill()
        process.communicate()


def finish(shop: BatchShop) -> None:
    """One import and one run that are not killed."""
    run = Forked()
    try:
        assert [0, 0] == [run(shop, "batch", "ingest"), run(shop, "batch", "run")], shop.output()[-4_000:]
    finally:
        run.close()


def assert_the_counts_add_up(shop: BatchShop, brought: dict[str, bytes]) -> None:
    """Each file is counted once."""
    counts = Counter(item.state for item in shop.items())
    assert len(brought) == counts.total()
    broken = sum(not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9") for data in set(brought.values()))
    assert broken == counts[ItemState.QUARANTINED]
    assert len(brought) - len(set(brought.values())) == counts[ItemState.DUPLICATE]
