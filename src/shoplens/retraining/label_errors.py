"""Find labels that are probably wrong: confident learning over probabilities that no sample had a part in.

Method: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021). Each sample
gets probabilities from a regression that was fitted on other groups of samples. A class's threshold is the mean
probability of that class among the samples that have its label; so a class that is hard for the model is not suspected
as a whole. A sample is suspect if another class is above its own threshold and more probable than the given label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import ShoplensError
from shoplens.retraining.entities import RetrainingRun, Suspect
from shoplens.retraining.repository import SuspectRepository
from shoplens.retraining.samples import TEST, LabelledSample
from shoplens.retraining.trainers import Trainer
from shoplens.telemetry.logs import get_logger

if TYPE_CHECKING:
    from shoplens.bundles.bundle import Bundle
    from shoplens.retraining.pipeline import Prepared
    from shoplens.retraining.report import Report

FOLDS: Final = 5
MOST: Final = 500
"""Suspects that are kept of one run."""
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A sample by its number, the class that is suggested, and by how much it is more probable than the given one."""

    index: int
    suggested: int
    score: float


def doubts(probabilities: NDArray[np.floating[Any]], labels: Sequence[int]) -> list[Doubt]:
    """The samples whose label is probably wrong, the most suspicious first.

    `probabilities` is (n, classes), from models that never saw the sample; `labels` has the class of each.
    """
    given = np.asarray(labels, np.int64)
    rows, classes = np.arange(len(given)), probabilities.shape[1]
    own = probabilities[rows, given]
    counts = np.bincount(given, minlength=classes)
    thresholds = np.bincount(given, own, minlength=classes) / np.maximum(counts, 1)
    thresholds[counts == 0] = 2.0  # no sample has this label, so nothing is known of it
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = confident.argmax(axis=1)
    margins = probabilities[rows, best] - own
    found = (confident[rows, best] >= 0) & (best != given) & (margins > 0)
    order = np.argsort(-margins, kind="stable")
    return [Doubt(index=int(i), suggested=int(best[i]), score=float(margins[i])) for i in order if found[i]]


def out_of_fold(features: Any, labels: Sequence[int], groups: Sequence[int], *, seed: int = 0) -> NDArray[np.float64]:
    """(n, classes) probabilities of a regression that was fitted without the sample and its near-duplicates.

    Classes that are in no other fold get 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    given, classes = np.asarray(labels, np.int64), int(max(labels)) + 1
    found = np.zeros((len(given), classes))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1, "blas"):
        for train, held in folds.split(features, given, groups):
            if len(np.unique(given[train])) < 2:
                continue
            penalty = 1 / (0.01 * len(train))
            model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(C=penalty, max_iter=200))
            model.fit(features[train], given[train])
            found[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return found


class LabelErrorFinder:
    """Lists labels in question after a model was judged. What goes wrong here never stops a retraining."""

    def __init__(self, database: Database, trainer: Trainer, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._trainer = trainer
        self._clock = clock

    def judged(self, run: RetrainingRun, prepared: Prepared, bundle: Bundle, report: Report) -> RetrainingRun:
        """Store the suspects of this run in place of those that nobody answered."""
        del bundle, report
        if run.dry_run:
            return run
        samples = [*prepared.training, *(fetched for _, fetched in prepared.tests)]
        try:
            self._store(run, samples)
        except (ShoplensError, ValueError) as error:
            _log.warning("retraining.labels_not_examined", run=run.id, reason=str(error))
        return run

    def _store(self, run: RetrainingRun, samples: Sequence[LabelledSample]) -> None:
        from shoplens.labels.groups import Groups

        classes = sorted({sample.label for sample in samples})
        number = {label: index for index, label in enumerate(classes)}
        labels = [number[sample.label] for sample in samples]
        groups = Groups()
        for sample in samples:
            groups.add(sha256=sample.sha256, phash=sample.phash, title=sample.designation)
        features = self._trainer.features(samples)
        found = doubts(out_of_fold(features, labels, groups.leaders()), labels)
        with self._database.reading() as tx:
            kept = SuspectRepository(tx).kept(run.channel)
        suspects: list[Suspect] = []
        for doubt in found:
            sample = samples[doubt.index]
            if (sample.source, sample.sample_id, sample.label) not in kept and sample.source != TEST:
                suspects.append(self._suspect(run, len(suspects), sample, classes[doubt.suggested], doubt.score))
        with self._database.transaction() as tx:
            SuspectRepository(tx).replace_open(run, suspects[:MOST])

    def _suspect(self, run: RetrainingRun, rank: int, sample: LabelledSample, suggested: str, score: float) -> Suspect:
        return Suspect(
            id=new_id(self._clock()),
            run_id=run.id,
            channel=run.channel,
            rank=rank,
            source=sample.source,
            sample_id=sample.sample_id,
            label=sample.label,
            suggested=suggested,
            score=round(score, 4),
            image_key=sample.image_key,
            image_sha256=sample.sha256,
            text=sample.designation,
        )
