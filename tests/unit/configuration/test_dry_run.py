"""What other thresholds would have made of the samples that were classified last."""

from __future__ import annotations

from pathlib import Path

from shoplens.bundles.manifest import ModelRef
from shoplens.configuration.dry_run import DryRunService
from shoplens.db import Database
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.policy import Outcome, Policy
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.serving.engine import LabelScore
from tests.samples import make_record, make_remark
from tests.unit.catalogue.products import ANNA, add, decision_service, product_service, suggested
from tests.unit.catalogue.products import CHANNEL as CATALOGUE

NOW = Policy(accept_at=0.8)
SCORES = (0.95, 0.9, 0.85, 0.7, 0.6)


def test_a_dry_run_counts_what_would_be_automatic_and_right(database: Database) -> None:
    """On the newest records of the channel, with the last word of people on each, without those of an older model."""
    records = [
        make_record(number, channel="returns", labels=(LabelScore("hat", score), LabelScore("cup", 0.01)))
        for number, score in enumerate(SCORES, start=10)
    ]
    older = make_record(1, channel="returns", model=ModelRef(name="efficientnet-lite0", version="0.9.0"))
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([*records, older, make_record(30, channel="look")])
        said = FeedbackRepository(tx)
        said.add(make_remark(records[0].id, 20, verdict=FeedbackValue.WRONG, label="cup"))
        said.add(make_remark(records[0].id, 21, verdict=FeedbackValue.RIGHT, label=None))
        said.add(make_remark(records[2].id, 20, verdict=FeedbackValue.WRONG, label="cup"))
        said.add(make_remark(records[4].id, 20, verdict=FeedbackValue.WRONG, label="cup"))

    result = DryRunService(database, answer_at={})("returns", NOW, Policy(accept_at=0.9), records=100)

    assert (5, 1, "efficientnet-lite0@1.0.0") == (result.examined, result.other_models, result.model)
    assert (3, 2, 2, 1) == (result.before.accept, result.before.review, result.before.checked, result.before.right)
    assert (2, 3, 1, 1) == (result.after.accept, result.after.review, result.after.checked, result.after.right)
    assert (0.6, 0.4) == (result.before.automatic, result.after.automatic)
    (moved,) = result.moved
    assert (records[2].id, False, Outcome.ACCEPT, Outcome.REVIEW) == (
        moved.record.id, moved.right, moved.before.outcome, moved.after.outcome
    )  # fmt: skip


def test_a_channel_without_records_has_an_empty_dry_run(database: Database) -> None:
    """No share is invented."""
    result = DryRunService(database, answer_at={})("returns", NOW, NOW)
    assert (0, None, None, ()) == (result.examined, result.after.automatic, result.after.share_right, result.moved)


def test_a_dry_run_of_a_catalogue_compares_the_stored_suggestions(database: Database, tmp_path: Path) -> None:
    """Of the newest model: what is sure enough, what people said of it, and what needs a person with any threshold."""
    products = product_service(database, tmp_path)
    for number, score in enumerate(SCORES):
        suggested(database, add(products, f"A-{number}", f"Apple {number}"), "apple", score)
    add(products, "A-9", "Without a suggestion")
    decisions = decision_service(database)
    decisions.decide(CATALOGUE, "A-0", by=ANNA)
    decisions.decide(CATALOGUE, "A-2", by=ANNA, category="pear")

    tries = DryRunService(database, answer_at={CATALOGUE: 0.65})
    result = tries(CATALOGUE, NOW, Policy(accept_at=0.9), records=100)

    assert (5, 0, ()) == (result.examined, result.other_models, result.moved)
    assert (3, 2, 2, 1) == (result.before.accept, result.before.review, result.before.checked, result.before.right)
    assert (2, 3, 1, 1) == (result.after.accept, result.after.review, result.after.checked, result.after.right)
    (moved,) = result.moved_products
    assert ("A-2", False, Outcome.ACCEPT, Outcome.REVIEW) == (
        moved.product.reference, moved.right, moved.before, moved.after
    )  # fmt: skip
    without = tries(CATALOGUE, NOW, Policy(accept_at=None), records=3)  # then it is that of an answer
    assert (3, 3 - 2, 2) == (without.examined, without.moves, without.after.accept)
