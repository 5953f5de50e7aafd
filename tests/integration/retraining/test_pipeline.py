"""A retraining from the labels of people to the champion: real files, database and registry, and a small real model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from shoplens.accounts.entities import SYSTEM
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database, open_database, upgrade
from shoplens.errors import ChannelNotFound, StorageUnavailable
from shoplens.labels.errors import NothingLabelled
from shoplens.registry.entities import Aliases
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.retraining.entities import RetrainingRules, RetrainingRun, RetrainingState, Stage
from shoplens.retraining.errors import NothingToLearn, RetrainingNotOpen, RetrainingOutdated, RetrainingRunning
from shoplens.retraining.promotion import FIRST_MODEL, Promotion
from shoplens.retraining.shadow_job import ShadowJob
from shoplens.retraining.shadow_time import ShadowTimes
from shoplens.storage import open_store
from tests.registry_bundles import damage
from tests.retraining_shop import ColourShop, Stages
from tests.unit.training.colours import COLOURS

PHOTOS = range(48)
"""Each has a colour in turn."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An empty SQLite database."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    upgrade(url)
    return url


@pytest.fixture
def shop(url: str, tmp_path: Path) -> Iterator[ColourShop]:
    """An empty one."""
    with closing(open_database(url)) as database:
        yield ColourShop(database, tmp_path)


def with_champion(shop: ColourShop) -> RetrainingRun:
    """A shop whose first model learned from wrong labels, which people have corrected since."""
    ids = shop.said(PHOTOS, shift=1)
    first = shop.first(rules=shop.with_promotion("at_once"))
    for place, colour in enumerate(sorted(COLOURS)):
        shop.corrected(ids[place::3], colour)
    return first


def test_the_first_model_of_a_channel_waits_for_a_person(shop: ColourShop) -> None:
    """There is nothing to compare it with: neither `at_once` nor `after_shadow` lets it go live, and it says so."""
    shop.said(PHOTOS)
    for promote in ("after_shadow", "at_once"):
        waiting = shop.retrain(rules=shop.with_promotion(promote))
        assert (RetrainingState.WAITING, None) == (waiting.state, shop.champion())
        report = shop.service.report(waiting.id)
        assert report is not None
        assert [FIRST_MODEL] == list(report.notes)
    (entry, *_) = reversed(shop.registry.history("colours"))
    assert ("challenger", waiting.candidate) == (entry.alias, entry.after)
    assert FIRST_MODEL in entry.why


def test_a_model_that_learned_from_corrections_replaces_the_one_before_it(database: Database, tmp_path: Path) -> None:
    """The first one waits for a yes; the next one is better, waits for a yes, and is champion then."""
    shop = ColourShop(database, tmp_path)
    first = with_champion(shop)
    assert (None, "1.0.0", 48) == (first.champion, first.candidate, first.labels)
    assert "1.0.0" == shop.champion()
    second = shop.retrain()
    assert (RetrainingState.WAITING, True, "colours@1.0.0") == (second.state, second.passed, second.champion)
    assert second.accuracy is not None
    assert second.accuracy_before is not None
    assert second.accuracy > 0.9
    assert second.accuracy_before < 0.2
    assert ("1.0.0", "1.1.0") == (shop.champion(), shop.registry.aliases("colours").challenger)
    report = shop.service.report(second.id)
    assert report is not None
    assert second.test_samples == report.gate.samples == len(report.became_right)
    assert {"blue", "green", "red"} == {each.label for each in report.gate.classes}
    example = report.became_right[0]
    assert shop.store.exists(example.image_key or "")
    assert example == shop.service.example(second.id, example.sha256)
    approved = shop.service.approve(second.id, by=SYSTEM, why="The figures are good.")
    assert (RetrainingState.PROMOTED, "The figures are good.") == (approved.run.state, approved.run.decided_why)
    assert "1.1.0" == shop.champion()
    assert approved == shop.service.approve(second.id, by=SYSTEM, why="again")
    with pytest.raises(RetrainingNotOpen):
        shop.service.reject(second.id, by=SYSTEM, why="")
    assert [] == list(shop.parts.folder.iterdir())


def test_the_same_labels_again_are_no_better_and_are_refused(shop: ColourShop) -> None:
    """Equal models never pass; nothing is published."""
    shop.said(PHOTOS)
    shop.first()
    again = shop.retrain(rules=shop.with_promotion("at_once"))
    assert (RetrainingState.REFUSED, False, "1.1.0") == (again.state, again.passed, again.candidate)
    assert ["1.0.0"] == [each.ref.version for each in shop.registry.versions("colours")]
    assert "1.2.0" == shop.retrain(dry_run=True).candidate


def test_a_dry_run_publishes_nothing_and_a_rejected_model_goes(shop: ColourShop) -> None:
    """A dry run is measured all the same."""
    with_champion(shop)
    tried = shop.retrain(dry_run=True)
    assert (RetrainingState.MEASURED, True) == (tried.state, tried.passed)
    assert ["1.0.0"] == [each.ref.version for each in shop.registry.versions("colours")]
    waiting = shop.retrain()
    rejected = shop.service.reject(waiting.id, by=SYSTEM, why="Not now.").run
    assert (RetrainingState.REJECTED, None) == (rejected.state, shop.registry.aliases("colours").challenger)
    assert "1.0.0" == shop.champion()


def settled(shop: ColourShop, run: RetrainingRun, **rules: Any) -> tuple[RetrainingState, set[str]]:
    """The state after the end of the shadow time, and the checks of the report that failed."""
    wanted = shop.with_promotion("after_shadow")
    shop.promotion.settle(replace(wanted, shadow=replace(wanted.shadow, **rules)), by=SYSTEM)
    report = shop.service.report(run.id)
    assert report is not None
    return shop.service.get(run.id).run.state, {check.code for check in report.shadow if not check.passed}


def shadowing(shop: ColourShop) -> RetrainingRun:
    """A challenger that passed the gate."""
    with_champion(shop)
    run = shop.retrain(rules=shop.with_promotion("after_shadow"))
    assert RetrainingState.SHADOWING is run.state
    return run


def test_a_challenger_goes_live_after_its_shadow_time_if_its_answers_allow_it(shop: ColourShop) -> None:
    """Too early, too few answers: it goes on. Enough: it is champion, and the history has the figures."""
    run = shadowing(shop)
    records = shop.challenged(run, 19)
    assert (RetrainingState.SHADOWING, set()) == settled(shop, run, least_answers=1)
    shop.later += 73 * 3_600
    assert (RetrainingState.SHADOWING, {"shadow_answers"}) == settled(shop, run)
    assert "1.0.0" == shop.champion()
    shop.challenged(run, 21)
    shop.corrected([records[0].id], "red")
    assert (RetrainingState.PROMOTED, set()) == settled(shop, run)
    assert run.candidate == shop.champion()
    entry = next(each for each in reversed(shop.registry.history("colours")) if each.alias == "champion")
    assert "72 h as challenger are over. Beside the champion it was asked 40 times" in entry.why
    assert "Of 1 samples that people labelled it has 1 right, the champion 0" in entry.why
    assert (40.0, 1.0, 0.0) == (
        entry.figures["shadow answers"],
        entry.figures["shadow right"],
        entry.figures["shadow right before"],
    )
    assert 0.7 < entry.figures["shadow agreement"] < 0.8


def test_a_shadow_time_ends_by_itself_and_once_for_all_servers(shop: ColourShop) -> None:
    """Not before its last hour, and not by a server whose channel has other settings meanwhile."""
    run = shadowing(shop)
    shop.challenged(run, 120)
    rules = shop.with_promotion("after_shadow")
    servers = [ShadowJob(shop.database, shop.promotion, rules_of=lambda _: rules, clock=shop.now) for _ in range(2)]
    assert [[], []] == [server.run_if_due() for server in servers]
    shop.later += 73 * 3_600
    other = ShadowJob(shop.database, shop.promotion, rules_of=no_channel, clock=shop.now)
    assert ([], "1.0.0") == (other.run_if_due(), shop.champion())
    with ThreadPoolExecutor(2) as threads:
        ended = [found for server in threads.map(ShadowJob.run_if_due, servers) for found in server]
    assert [(run.id, RetrainingState.PROMOTED)] == [(each.id, each.state) for each in ended]
    promoted = [each.alias for each in shop.registry.history("colours") if each.after == run.candidate]
    assert ["challenger", "champion"] == promoted
    assert [[], []] == [server.run_if_due() for server in servers]


def test_a_model_that_a_person_promotes_while_its_shadow_time_ends_is_promoted_once(shop: ColourShop) -> None:
    """The one who comes second finds what was wanted; the run is not rejected."""
    run = shadowing(shop)
    shop.challenged(run, 120)
    shop.later += 73 * 3_600
    registry = Overtaken(open_store(str(shop.folder / "registry")), "the registry", clock=shop.now)
    registry.overtake = lambda: shop.service.approve(run.id, by=SYSTEM, why="A person was faster.")
    shadows = ShadowTimes(shop.database, shop.store, labels=shop.labels.said)
    late = Promotion(shop.database, registry, shop.publishing, shadows, clock=shop.now)
    (ended,) = late.settle(shop.with_promotion("after_shadow"), by=SYSTEM)
    assert (RetrainingState.PROMOTED, "A person was faster.") == (ended.state, ended.decided_why)
    assert run.candidate == shop.champion()


def no_channel(name: str) -> RetrainingRules:
    """The settings lost it."""
    raise ChannelNotFound(name)


class Overtaken(ObjectRegistry):
    """Somebody else changes it after it was read for the first time."""

    overtake: Callable[[], object] | None = None

    def aliases(self, name: str, seen: Aliases | None = None) -> Aliases:
        found = super().aliases(name, seen)
        overtake, self.overtake = self.overtake, None
        if overtake is not None:
            overtake()
        return found


def test_a_challenger_that_fails_or_differs_often_waits_for_a_person(shop: ColourShop) -> None:
    """Neither proves that it is worse; the run says why, and a person decides."""
    run = shadowing(shop)
    shop.challenged(run, 40, failed=2)
    shop.later += 73 * 3_600
    failed = {"shadow_failures", "shadow_agreement"}
    assert (RetrainingState.WAITING, failed) == settled(shop, run, least_agreement=0.9)
    waiting = shop.service.get(run.id).run
    assert "It could not answer 2 (5.0%)" in (waiting.decided_why or "")
    assert (None, "1.0.0") == (waiting.decided_by, shop.champion())
    shop.service.approve(run.id, by=SYSTEM, why="The two were broken files.")
    assert run.candidate == shop.champion()


def test_a_challenger_that_is_worse_by_peoples_labels_is_rejected(shop: ColourShop) -> None:
    """People said of samples on which it differed that the champion was right."""
    run = shadowing(shop)
    records = shop.challenged(run, 40)
    shop.corrected([each.id for each in records[::4]], "blue")
    shop.later += 73 * 3_600
    assert (RetrainingState.REJECTED, {"shadow_labels"}) == settled(shop, run)
    rejected = shop.service.get(run.id).run
    assert "Of 10 samples that people labelled it has 0 right, the champion 10" in (rejected.decided_why or "")
    assert ("1.0.0", None) == (shop.champion(), shop.registry.aliases("colours").challenger)


def test_what_was_compared_with_another_champion_is_never_promoted(shop: ColourShop) -> None:
    """Neither after a shadow time nor by a person."""
    run = shadowing(shop)
    shop.challenged(run, 40)
    shop.service.approve(run.id, by=SYSTEM, why="At once.")
    shop.publishing.roll_back("colours", SYSTEM, why="It was slow.")
    waiting = shop.retrain()
    assert RetrainingState.WAITING is waiting.state
    aliases = shop.registry.aliases("colours")
    shop.publishing.set_alias("colours", "champion", "1.1.0", SYSTEM, why="It was not.", expected=aliases)
    with pytest.raises(RetrainingOutdated, match="Retrain the channel again"):
        shop.service.approve(waiting.id, by=SYSTEM, why="")


def test_of_two_at_once_one_retrains_and_the_other_says_who_does(shop: ColourShop) -> None:
    """One retraining of a model at a time."""
    shop.said(PHOTOS)
    reached, go_on, ended = threading.Event(), threading.Event(), []

    def wait(name: str) -> None:
        if name.startswith("Fetching"):
            reached.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=lambda: ended.append(shop.retrain(stages=Stages(wait))))
    thread.start()
    try:
        assert reached.wait(60)
        with pytest.raises(RetrainingRunning, match=f"Process {os.getpid()} on"):
            shop.retrain()
    finally:
        go_on.set()
        thread.join()
    assert [RetrainingState.WAITING] == [run.state for run in ended]
    assert 1 == len(shop.service.all())


def test_what_cannot_be_learned_is_said_and_listed(shop: ColourShop) -> None:
    """No label; a class of the present model without photos; and a store that is away is no failure of the run."""
    with pytest.raises(NothingLabelled):
        shop.retrain()
    assert (RetrainingState.FAILED, "nothing_labelled") == (
        shop.service.all()[0].run.state,
        shop.service.all()[0].run.failure_code,
    )
    ids = shop.said(PHOTOS)
    shop.first()

    def away(name: str) -> None:
        if name.startswith("Comparing"):
            raise StorageUnavailable("The store does not answer.")

    with pytest.raises(StorageUnavailable):
        shop.retrain(stages=Stages(away))
    assert shop.service.all()[0].run.state is RetrainingState.RUNNING
    shop.corrected([each for number, each in enumerate(ids) if number % 3 == 0], "red")
    assert RetrainingState.REFUSED is shop.retrain().state, "it is continued with the labels that it began with"
    with pytest.raises(NothingToLearn, match="blue"):
        shop.retrain()


def test_what_another_machine_published_before_it_ended_is_adopted(
    shop: ColourShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is finished and no second one is left; one that was damaged since is replaced by the next."""
    shop.said(PHOTOS)

    def away(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("The store does not answer.")

    def ended_after_publish() -> None:
        with monkeypatch.context() as patched, pytest.raises(StorageUnavailable):
            patched.setattr(shop.registry, "set_alias", away)
            shop.retrain()
        assert Stage.PUBLISHING is shop.service.all()[0].run.stage
        shutil.rmtree(shop.parts.folder)  # the next one runs on another machine

    ended_after_publish()
    (published,) = shop.registry.versions("colours")
    adopted = shop.retrain()
    assert (RetrainingState.WAITING, "1.0.0") == (adopted.state, adopted.candidate)
    assert [published] == shop.registry.versions("colours")
    assert "1.0.0" == shop.registry.aliases("colours").challenger

    shop.service.reject(adopted.id, by=SYSTEM, why="Once more.")
    ended_after_publish()
    damage(open_store(str(shop.folder / "registry")), ModelRef(name="colours", version="1.1.0"))
    assert "1.2.0" == shop.retrain().candidate


def test_killed_at_any_moment_it_continues_and_there_is_one_champion(url: str, tmp_path: Path) -> None:
    """kill -9 at each stage, before and after each write to the registry, each time in the same run."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.dying_retraining", url, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert 0 == found.returncode, found.stderr.decode()[-3_000:]
    outcome = orjson.loads(found.stdout.splitlines()[-1])
    assert outcome["points"] == outcome["killed"]
    assert 2 == outcome["runs"]
    assert [Stage.DONE.value, RetrainingState.PROMOTED.value] == [outcome["stage"], outcome["state"]]
    assert ["1.0.0", "1.1.0"] == outcome["versions"]
    assert [[None, "1.0.0"], ["1.0.0", "1.1.0"]] == outcome["champions"]
    assert ["interrupted"] * len(outcome["points"]) == outcome["listed"]
