"""A retraining lists wrong labels; a person keeps one and takes the other name for the next, with one click each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import SYSTEM
from shoplens.db import open_database, upgrade
from shoplens.images.picture import Limits
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.feedback import NewFeedback, give
from shoplens.retraining.errors import LabelNotChangeable, SuspectNotFound
from shoplens.retraining.label_errors import LabelErrorFinder
from shoplens.retraining.samples import BASE, LabelledSample
from shoplens.retraining.suspects import SuspectService
from tests.retraining_shop import ColourShop, ColourTrainer
from tests.unit.training.colours import COLOURS, mean_colours


class Trainer(ColourTrainer):
    """Finds label errors by the mean colour."""

    def features(self, samples: Sequence[LabelledSample]) -> Any:
        return mean_colours(self._samples(samples))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ColourShop]:
    """One whose retrainings look for label errors."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    upgrade(url)
    with closing(open_database(url)) as database:
        shop = ColourShop(database, tmp_path)
        trainer = Trainer(shop.store, threads=1, limits=Limits())
        finder = LabelErrorFinder(database, trainer, clock=shop.now)
        shop.parts = replace(shop.parts, trainer=trainer, watchers=[finder])
        yield shop


def test_wrong_labels_are_listed_and_answered(shop: ColourShop) -> None:
    """What was kept is not asked again; what was changed is in the next set; base data is changed in its files."""
    colours = sorted(COLOURS)
    ids = shop.said(range(60))
    wrong = ids[:3]
    for place, each in enumerate(wrong):
        shop.corrected([each], colours[(place + 1) % 3])
    shop.retrain(rules=shop.with_promotion("at_once"))

    def feedback(suspect: Any, by: Any) -> None:
        new = NewFeedback(prediction_id=suspect.sample_id, verdict=FeedbackValue.WRONG, label=suspect.suggested)
        with shop.database.transaction() as tx:
            give(tx, new, now=shop.now())

    suspects = SuspectService(
        shop.database, AuditLog(shop.database, clock=shop.now), relabel={"feedback": feedback}, clock=shop.now
    )
    found = suspects.open("colours", limit=50)
    assert set(wrong) == {each.sample_id for each in found}
    assert {"colours": len(found)} == suspects.count()
    by_id = {each.sample_id: each for each in found}
    for place, each in enumerate(wrong):
        assert (colours[(place + 1) % 3], colours[place]) == (by_id[each].label, by_id[each].suggested)
    kept, taken = by_id[wrong[0]], by_id[wrong[1]]
    assert "kept" == suspects.keep(kept.id, by=SYSTEM).outcome
    assert "changed" == suspects.take(taken.id, by=SYSTEM).outcome == suspects.take(taken.id, by=SYSTEM).outcome
    assert "kept" == suspects.keep(kept.id, by=SYSTEM).outcome
    shop.said(range(60, 63))
    shop.retrain()
    labels = {each.sample_id: each.label for each in shop.labels.labels(shop.labels.get("colours"))}
    assert colours[1] == labels[taken.sample_id]
    assert {wrong[2]} == {each.sample_id for each in suspects.open("colours", limit=50)}
    with pytest.raises(SuspectNotFound):
        suspects.get("nothing")
    with shop.database.transaction() as tx:
        tx.exec_driver_sql(f"UPDATE retraining_suspects SET source = '{BASE}'")
    with pytest.raises(LabelNotChangeable, match="own files"):
        suspects.take(suspects.open("colours", limit=1)[0].id, by=SYSTEM)
