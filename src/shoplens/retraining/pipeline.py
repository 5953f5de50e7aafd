"""The use case `shoplens retrain`: label set, training, gate, publication. It may be killed at any moment.

Each stage can be repeated and leaves its outcome in the row of the run, in the folder of the run, or in the registry:

labels      the label set that is used: a version, which never changes
data        the test set that is used: a version; photos as files
training    checkpoints, then the complete bundle, which gets its name last
judging     the gate's result and the report
publishing  the bundle in the registry, complete or not at all; then an alias, by one conditional write

A run whose process ended is listed as interrupted. The next start continues it with the same label set and test set.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from shoplens.accounts.entities import SYSTEM, Principal
from shoplens.batch.entities import RunOwner
from shoplens.batch.process import WatchTime, process_ended, this_process
from shoplens.bundles.bundle import Bundle, open_bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.signing import Trust, sign_bundle
from shoplens.db import Database
from shoplens.errors import BundleError, DatabaseUnavailable, RecordRefused, RunLost, ShoplensError, Unavailable
from shoplens.labels.service import LabelService
from shoplens.messages import marked
from shoplens.registry.registry import Registry
from shoplens.retraining.entities import RetrainingRules, RetrainingRun, RetrainingState, Stage
from shoplens.retraining.errors import (
    NothingToLearn,
    RetrainingNotFound,
    RetrainingNotOpen,
    RetrainingOutdated,
    RetrainingRunning,
)
from shoplens.retraining.gate import Answers, GateResult, judge
from shoplens.retraining.promotion import FIRST_MODEL, Promotion, is_of
from shoplens.retraining.report import Report, report_of, write_report
from shoplens.retraining.repository import RetrainingRepository
from shoplens.retraining.samples import BASE, OWN, TEST, Gathered, LabelledSample, gather, of_people
from shoplens.retraining.starting import NewRetrainings, next_version
from shoplens.retraining.test_set import TestSample, TestSet, TestSets, grown
from shoplens.retraining.trainers import Candidate, Trainer
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger

if TYPE_CHECKING:
    from shoplens.training.check import DataReport
    from shoplens.training.progress import Callback, TrainProgress

_TRIES: Final = 5
_log: Final = get_logger(__name__)

AnySample = TypeVar("AnySample", LabelledSample, TestSample)
Tests = Sequence[tuple[TestSample, LabelledSample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a run trains and tests on."""

    training: tuple[LabelledSample, ...]
    tests: tuple[tuple[TestSample, LabelledSample], ...]
    left_out: dict[str, int]


class Watcher(Protocol):
    """Is told what a run found, before it is published: a tracker, the finder of label errors. May be told twice."""

    def judged(self, run: RetrainingRun, prepared: Prepared, bundle: Bundle, report: Report) -> RetrainingRun:
        """The run, with what the watcher knows of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineParts:
    """What a retraining needs. `find` gives the bundle that answers now; None where there is none yet."""

    database: Database
    store: Store
    labels: LabelService
    registry: Registry
    promotion: Promotion
    find: Callable[[str], Bundle | None]
    trainer: Trainer
    folder: Path
    clock: Callable[[], datetime]
    watchers: Sequence[Watcher] = ()
    takeover_s: float = 15.0


class Pipeline:
    """Retrains the model of one channel. Blocks."""

    def __init__(self, parts: PipelineParts, rules: RetrainingRules, *, watch: WatchTime | None = None) -> None:
        self._parts = parts
        self._rules = rules
        self._watch = watch or WatchTime()
        self._tests = TestSets(parts.store)
        self._promotion = parts.promotion
        self._new = NewRetrainings(database=parts.database, registry=parts.registry, find=parts.find, clock=parts.clock)

    def run(
        self, *, by: Principal, callback: Callback, dry_run: bool = False, run_id: str | None = None
    ) -> RetrainingRun:
        """Retrain, or continue a retraining that was interrupted with the same options; how it ended.

        With `run_id` only that retraining. Raises RetrainingNotOpen if it is over, RetrainingRunning, RunLost if it was
        cancelled, NothingLabelled, NothingToLearn, DatasetInvalid, ExtraMissing, TrainingDiverged, and Unavailable,
        after which the run is continued by the next start.
        """
        self._promotion.settle(self._rules, by=by if run_id is None else SYSTEM)
        self._clear_folders()
        run = self._claim(by, dry_run=dry_run, run_id=run_id)
        try:
            with self._beating(run) as lost:
                return self._finish(run, by=by, callback=_UntilLost(callback, run, lost))
        except RunLost:
            self._clear_folders()
            raise
        except Unavailable:
            raise
        except ShoplensError as error:
            with self._parts.database.reading() as tx:
                now = RetrainingRepository(tx).get(run.id)
            failed = replace(now, state=RetrainingState.FAILED, failure_code=error.code, failure=str(error))
            self._end(replace(failed, owner=run.owner))
            raise

    # Who works on it

    def _claim(self, by: Principal, *, dry_run: bool, run_id: str | None) -> RetrainingRun:
        """A new run, or one that was interrupted. Raises RetrainingRunning and RetrainingNotOpen."""
        me = this_process(int(self._parts.clock().timestamp() * 1000))
        for _ in range(_TRIES):
            with self._parts.database.reading() as tx:
                earlier = RetrainingRepository(tx).active(self._rules.model)
            if run_id is not None and (earlier is None or earlier.id != run_id):
                raise RetrainingNotOpen(f"The retraining {run_id} has ended already.")
            if earlier is None:
                with suppress(RecordRefused):  # another process was faster
                    return self._new.add(self._rules, by=by.name, dry_run=dry_run, owner=me)
                continue
            if earlier.owner is None and not self._is_same(earlier, dry_run=dry_run):
                raise RetrainingRunning(
                    f"The retraining {earlier.id} of the model {earlier.model} is not over, and has other options. "
                    "Continue or cancel it first."
                )
            taken = self._take_over(earlier, me)
            if self._is_same(taken, dry_run=dry_run):
                _log.info("retraining.resumed", run=taken.id, channel=taken.channel, stage=taken.stage.value)
                return taken
            failure = marked("It was interrupted, and the next retraining began with other options.")
            self._end(replace(taken, state=RetrainingState.FAILED, failure_code="interrupted", failure=failure))
        raise RetrainingRunning(f"Another process retrains the model {self._rules.model}.")

    def _take_over(self, run: RetrainingRun, me: RunOwner) -> RetrainingRun:
        """Watch an owner that is not known to have ended. Raises RetrainingRunning as soon as it moves."""
        who = marked(f"Process {run.pid} on {run.host} retrains the model {run.model} (channel {run.channel})")
        busy = RetrainingRunning(f"{who}, since {run.created_at:%Y-%m-%d %H:%M} UTC. Wait until it ends.")
        if run.owner is None:
            busy = RetrainingRunning(f"Another process retrains the model {run.model}.")
        until = self._watch.monotonic() + self._parts.takeover_s
        while run.owner is not None and not process_ended(run.pid, run.process) and self._watch.monotonic() < until:
            self._watch.sleep(self._parts.takeover_s / 20)
            with self._parts.database.reading() as tx:
                now = RetrainingRepository(tx).get(run.id)
            if (now.owner, now.heartbeat, now.state) != (run.owner, run.heartbeat, run.state):
                raise busy
        try:
            with self._parts.database.transaction() as tx:
                RetrainingRepository(tx).take_over(run, me, now=self._parts.clock())
                return RetrainingRepository(tx).get(run.id)
        except RunLost as error:
            raise busy from error

    def _is_same(self, run: RetrainingRun, *, dry_run: bool) -> bool:
        rules = self._rules
        wanted = (rules.channel, rules.recipe, rules.base, rules.test, rules.promote, dry_run)
        return wanted == (run.channel, run.recipe, run.base, run.test, run.promote, run.dry_run)

    @contextmanager
    def _beating(self, run: RetrainingRun) -> Iterator[threading.Event]:
        """Show every few seconds that this process is alive; the event is set once the run is not this process's.

        A database that is away for a while does no harm.
        """
        stop, lost = threading.Event(), threading.Event()

        def beat() -> None:
            while not stop.wait(self._parts.takeover_s / 5):
                try:
                    with self._parts.database.transaction() as tx:
                        RetrainingRepository(tx).beat(run.id, run.owner or "", now=self._parts.clock())
                except DatabaseUnavailable:
                    continue
                except RunLost:
                    lost.set()
                    return

        thread = threading.Thread(target=beat, name="retraining-heartbeat", daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            stop.set()
            thread.join()

    def _advance(self, run: RetrainingRun) -> RetrainingRun:
        """Commit the progress. Raises RunLost."""
        with self._parts.database.transaction() as tx:
            RetrainingRepository(tx).advance(run)
        return run

    def _end(self, run: RetrainingRun) -> RetrainingRun:
        ended = self._advance(replace(run, stage=Stage.DONE, finished_at=self._parts.clock()))
        shutil.rmtree(self._folder(run), ignore_errors=True)
        _log.info("retraining.ended", run=run.id, channel=run.channel, state=run.state.value, reason=run.failure)
        return ended

    def _folder(self, run: RetrainingRun) -> Path:
        return self._parts.folder / run.id

    def _clear_folders(self) -> None:
        """Remove what cancelled retrainings left behind."""
        for folder in self._parts.folder.glob("*/"):
            try:
                with self._parts.database.reading() as tx:
                    over = not RetrainingRepository(tx).get(folder.name).active
            except RetrainingNotFound:
                continue  # it is not ours, or of another database
            if over:
                shutil.rmtree(folder, ignore_errors=True)

    # The stages

    def _finish(self, run: RetrainingRun, *, by: Principal, callback: Callback) -> RetrainingRun:
        champion = None if run.champion is None else self._parts.find(run.champion)
        callback.on_stage("Collecting what people said")
        run = self._with_labels(run, by)
        run, prepared = self._prepare(run, champion, callback)
        if run.stage is Stage.PUBLISHING and not self._candidate(run).bundle.is_dir() and not self._adopt(run):
            # What was published with this version may not be what is trained here again.
            run = replace(run, candidate=next_version([*self._new.published(run.model), run.candidate]))
        run = self._advance(replace(run, stage=Stage.TRAINING))
        bundle = self._fit(run, prepared, callback)
        while True:
            run = self._advance(replace(run, stage=Stage.JUDGING))
            callback.on_stage(f"Comparing {bundle.ref} with {run.champion or 'nothing: it is the first one'}")
            run, result = self._judge(run, prepared, bundle, champion)
            if run.dry_run or not result.passed:
                state = RetrainingState.MEASURED if run.dry_run else RetrainingState.REFUSED
                return self._end(replace(run, state=state))
            run = self._advance(replace(run, stage=Stage.PUBLISHING))
            callback.on_stage(f"Publishing {bundle.ref}")
            try:
                return self._end(self._promotion.publish(run, bundle, result.figures, by=by))
            except RetrainingOutdated:
                champion = self._parts.find(run.model)
                run = replace(run, champion=str(champion.ref) if champion else None)

    def _adopt(self, run: RetrainingRun) -> bool:
        """Get the bundle that this run published from another machine before it was interrupted there, if it did."""
        versions = self._parts.registry.versions(run.model)
        if not any(each.ref.version == run.candidate and is_of(each, run) for each in versions):
            return False
        ref = ModelRef(name=run.model, version=run.candidate)
        try:
            self._parts.registry.fetch(ref, self._candidate(run).bundle.parents[1], Trust())
        except BundleError as error:
            _log.warning("retraining.not_adopted", run=run.id, model=str(ref), code=error.code, reason=str(error))
            return False
        _log.info("retraining.adopted", run=run.id, model=str(ref))
        return True

    def _with_labels(self, run: RetrainingRun, by: Principal) -> RetrainingRun:
        if run.label_set is not None:
            return run
        built = self._parts.labels.build(run.channel, by=by)
        return self._advance(
            replace(run, label_set=built.version, label_digest=built.digest, labels=built.labels, stage=Stage.DATA)
        )

    def _prepare(
        self, run: RetrainingRun, champion: Bundle | None, callback: Callback
    ) -> tuple[RetrainingRun, Prepared]:
        trainer, labels = self._parts.trainer, self._parts.labels
        known = trainer.known(champion) if champion else []
        people = of_people(labels.labels(labels.get(run.channel, run.label_set)))
        callback.on_stage("Reading the shop's own data")
        own = [*(trainer.read(run.test, TEST) if run.test else []), *(trainer.read(run.base, BASE) if run.base else [])]
        own = _renamed(own, trainer.current([each.label for each in own]))
        gathered = gather(people, own, known=known, new_class_samples=self._rules.new_class_samples)
        run, tested, training = self._with_test_set(run, gathered)
        callback.on_stage("Fetching the photos")
        folder = self._folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        present = {sample.name: sample for sample in gathered.samples}
        wanted = [_as_labelled(each, present.get(each.name)) for each in tested.samples]
        fetched, missing = trainer.fetch([*training, *wanted], folder)
        by_name = {sample.name: sample for sample in fetched}
        frozen = _renamed(tested.samples, trainer.current([each.label for each in tested.samples]))
        tests = tuple((each, by_name[each.name]) for each in frozen if each.name in by_name)
        prepared = Prepared(
            training=tuple(by_name[sample.name] for sample in training if sample.name in by_name),
            tests=tests,
            left_out={**gathered.left_out, **missing},
        )
        trainer.check(prepared.training, known)
        if not tests:
            raise NothingToLearn("No sample of the test set is left: there are too few labels to test a model with.")
        return self._advance(replace(run, test_samples=len(tests))), prepared

    def _with_test_set(
        self, run: RetrainingRun, gathered: Gathered
    ) -> tuple[RetrainingRun, TestSet, tuple[LabelledSample, ...]]:
        """The test set of this run, which is made or grows once, and what may train."""
        how: dict[str, Any] = {
            "share": self._rules.test_share, "base_tests": run.champion is None, "now": self._parts.clock(),
        }  # fmt: skip
        if run.test_set is not None:
            frozen = self._tests.get(run.channel, run.test_set)
            return run, frozen, grown(run.channel, frozen, gathered, **how)[1]
        while True:
            before = self._tests.newest(run.channel)
            after, training = grown(run.channel, before, gathered, **how)
            if after is not before:
                after = self._with_copies(after, gathered)
                if self._tests.add(after) != after:
                    continue  # another process was faster: grow on what it made
            run = self._advance(replace(run, test_set=after.version, test_digest=after.digest))
            return run, after, training

    def _with_copies(self, made: TestSet, gathered: Gathered) -> TestSet:
        own = {sample.name: sample for sample in gathered.samples if sample.source in OWN}

        def kept(tested: TestSample) -> TestSample:
            if tested.image_key is not None or tested.name not in own or own[tested.name].path is None:
                return tested
            return replace(tested, image_key=self._tests.keep_photo(made.channel, own[tested.name]))

        return replace(made, samples=tuple(map(kept, made.samples)))

    def _candidate(self, run: RetrainingRun) -> Candidate:
        return Candidate(
            name=run.model,
            version=run.candidate,
            recipe=run.recipe,
            data_name=f"Labels of people of the channel {run.channel}, set {run.label_set}"
            + (", with base data." if run.base else "."),
            date=run.created_at,
            folder=self._folder(run),
        )

    def _fit(self, run: RetrainingRun, prepared: Prepared, callback: Callback) -> Bundle:
        bundle = self._parts.trainer.fit(self._candidate(run), prepared.training, prepared.tests, callback)
        if self._rules.sign_with is not None and bundle.signed_by is None:
            sign_bundle(bundle, Path(self._rules.sign_with))
            bundle = open_bundle(bundle.root)
        return bundle

    def _judge(
        self, run: RetrainingRun, prepared: Prepared, bundle: Bundle, champion: Bundle | None
    ) -> tuple[RetrainingRun, GateResult]:
        truth = [tested.label for tested, _ in prepared.tests]
        new = self._parts.trainer.answers(bundle, prepared.tests)
        old = self._parts.trainer.present(champion, prepared.training, prepared.tests) if champion else None
        result = judge(truth, new, old, self._rules.gate)
        report = report_of(
            run,
            gate=result,
            tests=prepared.tests,
            new=new,
            old=old,
            trained_on=len(prepared.training),
            left_out=prepared.left_out,
            notes=_notes(champion, old),
        )
        run = replace(
            run,
            passed=result.passed,
            accuracy=result.after,
            accuracy_before=result.before,
            report_key=write_report(self._parts.store, run, report),
        )
        for watcher in self._parts.watchers:
            run = watcher.judged(run, prepared, bundle, report)
        return self._advance(run), result


@dataclass(frozen=True, slots=True)
class _UntilLost:
    """Passes on what it is told. Raises RunLost once another process took the run over, or somebody cancelled it."""

    callback: Callback
    run: RetrainingRun
    lost: threading.Event

    def on_stage(self, name: str) -> None:
        self._check()
        self.callback.on_stage(name)

    def on_samples(self, done: int, total: int) -> None:
        self._check()
        self.callback.on_samples(done, total)

    def on_progress(self, progress: TrainProgress) -> None:
        self._check()
        self.callback.on_progress(progress)

    def on_report(self, report: DataReport) -> None:
        self._check()
        self.callback.on_report(report)

    def _check(self) -> None:
        if self.lost.is_set():
            raise RunLost(f"The retraining {self.run.id} was cancelled, or another process took it over.")


def _renamed(samples: Sequence[AnySample], labels: Sequence[str]) -> list[AnySample]:
    """The samples with these labels."""
    return [replace(each, label=label) for each, label in zip(samples, labels, strict=True)]


def _notes(champion: Bundle | None, old: Answers | None) -> list[str]:
    """What people must know of the comparison."""
    if champion is None:
        return [FIRST_MODEL]
    if old is not None and old.model != str(champion.ref):
        return [
            f"{champion.ref} does not know the categories, so it was compared with what answers today: {old.model}."
        ]
    return []


def _as_labelled(tested: TestSample, present: LabelledSample | None) -> LabelledSample:
    """A test sample as it can be fetched: photos of people where they are now, those of base data from their copy."""
    if present is not None and tested.source not in OWN:
        return replace(present, label=tested.label)
    return LabelledSample(
        source=tested.source,
        sample_id=tested.sample_id,
        label=tested.label,
        sha256=tested.sha256,
        phash=tested.phash,
        image_key=tested.image_key,
        designation=tested.designation,
        description=tested.description,
    )
