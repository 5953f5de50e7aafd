"""A retraining that a server starts: it waits for its process, may be cancelled, and is one of its model at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shoplens.accounts.entities import SYSTEM
from shoplens.batch.entities import RunOwner
from shoplens.batch.process import RunLauncher, RunProcess
from shoplens.db import open_database, upgrade
from shoplens.errors import ExtraMissing, Misconfigured, RunLost
from shoplens.retraining.entities import CANCELLED, RetrainingRules, RetrainingRun, RetrainingState
from shoplens.retraining.errors import RetrainingNotOpen, RetrainingNotPossible, RetrainingRunning
from shoplens.retraining.pipeline import Pipeline
from shoplens.retraining.repository import RetrainingRepository
from shoplens.retraining.starting import NewRetrainings, RetrainingStarter
from tests.retraining_shop import RULES, ColourShop, Stages

PHOTOS = range(48)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ColourShop]:
    """With labels of people and without a model."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    upgrade(url)
    with closing(open_database(url)) as database:
        shop = ColourShop(database, tmp_path)
        shop.said(PHOTOS)
        yield shop


@pytest.fixture
def started_ids(tmp_path: Path) -> Path:
    """A file to which each process that is started writes the id of its retraining."""
    return tmp_path / "started"


@pytest.fixture
def starter(shop: ColourShop, started_ids: Path, tmp_path: Path) -> Iterator[RetrainingStarter]:
    """Its processes note their id and end at once, as those do that find no memory."""
    noting = f"import sys; open({str(started_ids)!r}, 'a').write(sys.argv[1] + ' ')"
    process = RunProcess(environment={}, logs=tmp_path / "logs", command=(sys.executable, "-c", noting))
    new = NewRetrainings(database=shop.database, registry=shop.registry, find=shop.find, clock=shop.now)
    launcher = RunLauncher(shop.database, process, runs=RetrainingRepository)
    starter = RetrainingStarter(new, launcher, rules_of=rules_of, require=require)
    yield starter
    starter.close()


def rules_of(channel: str) -> RetrainingRules:
    """One channel can be retrained."""
    if channel == "pinned":
        raise Misconfigured("channels.pinned.model names one version.")
    return RULES


def require(recipe: str) -> None:
    """Everything is installed."""
    assert RULES.recipe == recipe


def waited(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "It does not become true."
        time.sleep(0.02)


def ended(shop: ColourShop, run: RetrainingRun) -> RetrainingRun:
    """The retraining, worked on as the process of its id works on it."""
    return Pipeline(shop.parts, RULES).run(by=SYSTEM, callback=Stages(), run_id=run.id)


def test_a_started_retraining_waits_for_its_process(
    shop: ColourShop, starter: RetrainingStarter, started_ids: Path
) -> None:
    """The process gets its id, takes it at once, and its outcome is that of any other."""
    run = starter.start("colours", by="anna")
    assert (True, None, "anna", "1.0.0") == (run.active, run.owner, run.requested_by, run.candidate)
    waited(lambda: started_ids.exists() and run.id in started_ids.read_text())
    done = ended(shop, run)
    assert (run.id, RetrainingState.WAITING) == (done.id, done.state)
    with pytest.raises(RetrainingNotOpen, match="has ended already"):
        ended(shop, run)


def test_a_second_start_is_refused_or_goes_on(shop: ColourShop, starter: RetrainingStarter, started_ids: Path) -> None:
    """While a process works on it there is no other; where none does, the same retraining gets a new process."""
    run = starter.start("colours", by="anna")
    waited(lambda: started_ids.exists() and 1 == started_ids.read_text().count(run.id))
    waited(lambda: started_again(starter, run))
    waited(lambda: 2 <= started_ids.read_text().count(run.id))

    def meanwhile(name: str) -> None:
        if name.startswith("Reading"):
            with pytest.raises(RetrainingRunning):
                starter.start("colours", by="ben")

    stages = Stages(at=meanwhile)
    Pipeline(shop.parts, RULES).run(by=SYSTEM, callback=stages, run_id=run.id)
    assert any(name.startswith("Reading") for name in stages.names)


def started_again(starter: RetrainingStarter, run: RetrainingRun) -> bool:
    """Whether a second start gave the same retraining; not before the launcher saw the first process end."""
    try:
        return starter.start("colours", by="ben").id == run.id
    except RetrainingRunning:
        return False


def test_a_cancelled_retraining_stops_and_publishes_nothing(shop: ColourShop, starter: RetrainingStarter) -> None:
    """Its process ends at its next step, its folder goes, and the next start is a new one."""
    run = starter.start("colours", by="anna")

    def cancel(name: str) -> None:
        if name.startswith("Fetching"):
            shop.service.cancel(run.id, by=SYSTEM)

    with pytest.raises(RunLost):
        Pipeline(shop.parts, RULES).run(by=SYSTEM, callback=Stages(at=cancel), run_id=run.id)
    view = shop.service.get(run.id)
    assert (RetrainingState.FAILED, CANCELLED, "Cancelled by Shoplens.") == (
        view.run.state,
        view.run.failure_code,
        view.run.failure,
    )
    assert [] == list(shop.parts.folder.iterdir())
    assert [] == list(shop.registry.versions("colours"))
    with pytest.raises(RetrainingNotOpen):
        shop.service.cancel(run.id, by=SYSTEM)
    assert run.id != starter.start("colours", by="anna").id


def test_a_training_ends_when_it_is_cancelled(shop: ColourShop, starter: RetrainingStarter) -> None:
    """Not only between two stages: the trainer is interrupted at its next report."""
    run = starter.start("colours", by="anna")

    class Patient(Stages):
        def on_samples(self, done: int, total: int) -> None:
            if shop.service.get(run.id).run.active:
                shop.service.cancel(run.id, by=SYSTEM)
            time.sleep(0.5)  # the heartbeat finds out

    patient = Patient()
    with pytest.raises(RunLost, match="was cancelled"):
        Pipeline(shop.parts, RULES).run(by=SYSTEM, callback=patient, run_id=run.id)
    assert "Training" not in patient.names


def test_a_retraining_that_publishes_is_not_cancelled(shop: ColourShop, starter: RetrainingStarter) -> None:
    """Its model may be live in the next moment; it ends as it would have, and can be rejected then."""
    run = starter.start("colours", by="anna")
    refusals = []

    def cancel(name: str) -> None:
        if name.startswith("Publishing"):
            with pytest.raises(RetrainingNotOpen, match="is publishing its model"):
                shop.service.cancel(run.id, by=SYSTEM)
            refusals.append(name)

    ended = Pipeline(shop.parts, RULES).run(by=SYSTEM, callback=Stages(at=cancel), run_id=run.id)
    assert (1, RetrainingState.WAITING) == (len(refusals), ended.state)


def test_what_only_measures_does_not_go_on_with_what_publishes(shop: ColourShop, starter: RetrainingStarter) -> None:
    """Nor does the command line take a retraining that waits for its process, with other options."""
    run = starter.start("colours", by="anna")
    with pytest.raises(RetrainingRunning, match="has other options"):
        starter.start("colours", by="ben", dry_run=True)
    with pytest.raises(RetrainingRunning, match="has other options"):
        Pipeline(shop.parts, RULES).run(by=SYSTEM, callback=Stages(), dry_run=True)
    assert shop.service.get(run.id).run.active


def test_a_silent_owner_on_another_machine_counts_as_interrupted(shop: ColourShop, starter: RetrainingStarter) -> None:
    """Nothing else can be known of it; the process of the next start watches it before it takes over."""
    run = starter.start("colours", by="anna")
    owner = RunOwner(id="o" * 26, host="elsewhere", pid=7, process="other-machine/pid:[1]/7")
    with shop.database.transaction() as tx:
        RetrainingRepository(tx).take_over(run, owner, now=shop.now())
    assert not shop.service.get(run.id).interrupted
    shop.later = 3_600.0
    assert shop.service.get(run.id).interrupted
    waited(lambda: started_again(starter, run))


def test_a_channel_whose_model_cannot_be_retrained_says_why(
    shop: ColourShop, starter: RetrainingStarter, tmp_path: Path
) -> None:
    """By its settings, or by what is installed; no row is left."""
    assert ["colours"] == starter.possible(["colours", "pinned"])
    with pytest.raises(RetrainingNotPossible, match="names one version"):
        starter.start("pinned", by="anna")

    def missing(_recipe: str) -> None:
        raise ExtraMissing("The recipe needs scikit-learn.")

    new = NewRetrainings(database=shop.database, registry=shop.registry, find=shop.find, clock=shop.now)
    process = RunProcess(environment={}, logs=tmp_path / "logs")
    launcher = RunLauncher(shop.database, process, runs=RetrainingRepository)
    with pytest.raises(RetrainingNotPossible, match="scikit-learn"):
        RetrainingStarter(new, launcher, rules_of=rules_of, require=missing).start("colours", by="anna")
    assert [] == shop.service.all()
