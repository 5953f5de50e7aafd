"""A shop whose colour model learns from people: the real pipeline, with a model that trains in a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.signing import Trust
from shoplens.db import Database
from shoplens.errors import ModelNotFound
from shoplens.images.picture import Limits
from shoplens.labels.service import LabelService, feedback_labels
from shoplens.predictions.entities import FeedbackValue, PredictionRecord
from shoplens.predictions.feedback import NewFeedback, give
from shoplens.predictions.repository import PredictionRepository
from shoplens.registry.finder import ModelFinder
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.registry.publishing import RegistryService
from shoplens.registry.shadow_repository import ShadowAnswer, ShadowRepository
from shoplens.retraining.entities import RetrainingRules, RetrainingRun, RetrainingState, ShadowRules
from shoplens.retraining.gate import GateRules
from shoplens.retraining.pipeline import Pipeline, PipelineParts
from shoplens.retraining.promotion import Promotion
from shoplens.retraining.samples import LabelledSample
from shoplens.retraining.service import RetrainingService
from shoplens.retraining.shadow_time import ShadowTimes
from shoplens.retraining.test_set import TestSample
from shoplens.retraining.trainers import Candidate, PhotoTrainer
from shoplens.storage import Store, open_store
from shoplens.training.train import train
from tests.conftest import jpeg_of
from tests.labelled_photos import people_label
from tests.samples import make_record, moment
from tests.unit.training.colours import COLOURS, fit_colours, tinted

if TYPE_CHECKING:
    from shoplens.training.progress import Callback

CHANNEL = "colours"
_seconds = count(1_000_000)

RULES = RetrainingRules(
    channel=CHANNEL, model="colours", recipe="head", base=None, test=None, promote="after_approval",
    shadow=ShadowRules(least_answers=20),
    test_share=0.4, new_class_samples=3,
    gate=GateRules(most_calibration_error=1.0, class_samples=5, slower=100.0, least_samples=15),
)  # fmt: skip


def photo(number: int, colour: str) -> bytes:
    """A JPEG of its own."""
    return jpeg_of(tinted(number, COLOURS[colour]), quality=95)


class ColourTrainer(PhotoTrainer):
    """As for photos, with a regression on the mean colour."""

    def fit(
        self,
        candidate: Candidate,
        samples: Sequence[LabelledSample],
        tests: Sequence[tuple[TestSample, LabelledSample]],
        callback: Callback,
    ) -> Bundle:
        import shoplens.training.train as module

        original = module.train
        module.train = partial(train, fit=fit_colours)
        try:
            return super().fit(candidate, samples, tests, callback)
        finally:
            module.train = original


@dataclass
class Stages:
    """A callback that collects the stages, and calls `at` with each."""

    at: Callable[[str], None] = lambda _name: None
    names: list[str] = field(default_factory=list)

    def on_stage(self, name: str) -> None:
        self.names.append(name)
        self.at(name)

    def on_samples(self, done: int, total: int) -> None: ...

    def on_progress(self, progress: Any) -> None: ...

    def on_report(self, report: Any) -> None: ...


class ColourShop:
    """Everything over one database and a folder."""

    def __init__(self, database: Database, folder: Path, *, store: Store | None = None) -> None:
        self.database = database
        self.folder = folder
        for name in ("store", "models"):
            (folder / name).mkdir(exist_ok=True)
        self.store = store or open_store(str(folder / "store"))
        self.registry = ObjectRegistry(open_store(str(folder / "registry")), "the registry", clock=self.now)
        self.finder = ModelFinder(folder / "models", registry=self.registry, shared=None, trust=Trust())
        self.publishing = RegistryService(
            self.registry, models_dir=folder / "models", trust=Trust(), database=database,
            audit=AuditLog(database, clock=self.now), clock=self.now,
        )  # fmt: skip
        self.labels = LabelService(database, self.store, sources=[feedback_labels(database)], clock=self.now)
        shadows = ShadowTimes(database, self.store, labels=self.labels.said)
        self.promotion = Promotion(database, self.registry, self.publishing, shadows, clock=self.now)
        self.service = RetrainingService(database, self.store, self.promotion, clock=self.now)
        self.later = 0.0
        self.parts = PipelineParts(
            database=database, store=self.store, labels=self.labels, registry=self.registry, promotion=self.promotion,
            find=self.find, trainer=ColourTrainer(self.store, threads=1, limits=Limits()), folder=folder / "work",
            clock=self.now, takeover_s=1.0,
        )  # fmt: skip

    def now(self) -> datetime:
        """A second later each time."""
        return moment(int(next(_seconds) + self.later))

    def find(self, name: str) -> Bundle | None:
        """What answers."""
        try:
            return self.finder.find(name)
        except ModelNotFound:
            return None

    def said(self, numbers: Iterable[int], *, shift: int = 0) -> list[str]:
        """People label photos; `shift` gives each the name of another colour."""
        names = sorted(COLOURS)
        photos = [(photo(number, names[number % 3]), names[(number + shift) % 3]) for number in numbers]
        return people_label(self.database, self.store, CHANNEL, photos)

    def corrected(self, ids: Sequence[str], label: str) -> None:
        """People say something else, later."""
        with self.database.transaction() as tx:
            for each in ids:
                new = NewFeedback(prediction_id=each, verdict=FeedbackValue.WRONG, label=label)
                give(tx, new, now=self.now())

    def retrain(self, *, rules: RetrainingRules = RULES, stages: Stages | None = None, **how: Any) -> RetrainingRun:
        """One retraining in this process."""
        return Pipeline(self.parts, rules).run(by=SYSTEM, callback=stages or Stages(), **how)

    def first(self, *, rules: RetrainingRules = RULES) -> RetrainingRun:
        """The first model of the channel, after a person's yes: there was nothing to compare it with."""
        waiting = self.retrain(rules=rules)
        assert RetrainingState.WAITING is waiting.state
        return self.service.approve(waiting.id, by=SYSTEM, why="It is the first one.").run

    def challenged(self, run: RetrainingRun, answers: int, *, failed: int = 0) -> list[PredictionRecord]:
        """Requests that the champion answered and the challenger of `run` was shown: they agree on all but each fourth;
        the champion always says blue. The last `failed` ones the challenger could not answer.
        """
        assert run.champion is not None
        version = run.champion.partition("@")[2]
        records = [
            make_record(
                int(next(_seconds)), label="blue", channel=CHANNEL, model=ModelRef(name="colours", version=version)
            )
            for _ in range(answers)
        ]
        with self.database.transaction() as tx:
            PredictionRepository(tx).add_many(records)
            for number, record in enumerate(records):
                label = None if number >= answers - failed else "red" if number % 4 == 0 else "blue"
                ShadowRepository(tx).add(
                    ShadowAnswer(
                        id=record.id, created_at=record.created_at, channel=CHANNEL, prediction_id=record.id,
                        model="colours", champion=version, challenger=run.candidate, champion_label="blue",
                        champion_score=0.9, challenger_label=label, challenger_score=None if label is None else 0.8,
                        agrees=label == "blue", failure_code="bundle_invalid" if label is None else None,
                    )
                )  # fmt: skip
        return records

    def champion(self) -> str | None:
        """Of the colour model."""
        return self.registry.aliases("colours").champion

    def with_promotion(self, promote: Any) -> RetrainingRules:
        """The rules with another way to the champion."""
        return replace(RULES, promote=promote)
