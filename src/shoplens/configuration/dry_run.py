"""What other thresholds would do with the samples that a channel classified last, before they apply to new ones.

Nothing is classified again: the labels that each record keeps are decided by the policy in use and by the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from shoplens.catalogue.entities import Product
from shoplens.catalogue.numbers.repository import NumbersRepository
from shoplens.catalogue.suggest.service import COLD_START
from shoplens.db import Database
from shoplens.predictions.entities import Feedback, FeedbackValue, PredictionRecord, RecordFilter
from shoplens.predictions.policy import Decision, Outcome, Policy, decide
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.serving.engine import Prediction

MOST_RECORDS: Final = 10_000
EXAMPLES: Final = 12
_PAGE: Final = 500
JudgedProduct: TypeAlias = tuple[Product, bool | None]
"""A product with a suggestion, and whether the person who decided it agreed; None where nobody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A record with what a person said last of its best label; None where nobody did."""

    record: PredictionRecord
    right: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a policy makes of the records: how many it accepts, leaves to people and refuses.

    Of those that it accepts people looked at `checked`, and for `right` of these the label was right.
    """

    accept: int
    review: int
    reject: int
    checked: int
    right: int

    @property
    def total(self) -> int:
        """All records."""
        return self.accept + self.review + self.reject

    @property
    def automatic(self) -> float | None:
        """The share that needs no person; None without records."""
        return (self.accept + self.reject) / self.total if self.total else None

    @property
    def share_right(self) -> float | None:
        """Of what is accepted and was checked; None where nobody checked any of it."""
        return self.right / self.checked if self.checked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A record that the new policy would decide in another way."""

    record: PredictionRecord
    right: bool | None
    before: Decision
    after: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedProduct:
    """A product whose suggestion would need a person with the new threshold, or no longer would."""

    product: Product
    right: bool | None
    before: Outcome
    after: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The result on `examined` records of one model; `other_models` newer ones than the oldest of them are left out.

    `moved` are at most `EXAMPLES` of the `moves` records whose decision would change, newest first; for a channel with
    a catalogue side these are products, in `moved_products`.
    """

    examined: int
    other_models: int
    model: str | None
    before: Effect
    after: Effect
    moves: int
    moved: tuple[Moved, ...] = ()
    moved_products: tuple[MovedProduct, ...] = ()


class DryRunService:
    """Blocks; raises DatabaseUnavailable. `answer_at` is that of each channel with a catalogue side: its suggestions
    are compared in place of records.
    """

    def __init__(self, database: Database, *, answer_at: Mapping[str, float]) -> None:
        self._database = database
        self._answer_at = answer_at

    def __call__(self, channel: str, current: Policy, new: Policy, *, records: int = 1_000) -> DryRun:
        """Compare both policies on the newest records of a channel, at most `MOST_RECORDS`."""
        least = self._answer_at.get(channel)
        if least is not None:
            products = self._newest_products(channel, min(records, MOST_RECORDS))
            return compare_products(products, current.accept_at or least, new.accept_at or least)
        judged = [each for page in self._newest(channel, min(records, MOST_RECORDS)) for each in page]
        return compare(judged, current, new)

    def _newest_products(self, channel: str, most: int) -> list[JudgedProduct]:
        found: list[JudgedProduct] = []
        while len(found) < most:
            wanted = min(_PAGE, most - len(found))
            with self._database.reading() as tx:
                before = found[-1][0].id if found else None
                part = NumbersRepository(tx).newest_judged(channel, limit=wanted, before=before)
            found += part
            if len(part) < wanted:
                break
        return found

    def _newest(self, channel: str, most: int) -> Iterator[list[Judged]]:
        """In short transactions, so that nothing waits for a long one."""
        last: str | None = None
        while most > 0:
            wanted = min(_PAGE, most)
            with self._database.reading() as tx:
                found = PredictionRepository(tx).page(RecordFilter(channel=channel), limit=wanted, before=last)
                said = FeedbackRepository(tx).for_predictions([each.id for each in found])
            yield [Judged(record=each, right=_was_right(each, said.get(each.id, ()))) for each in found]
            if len(found) < wanted:
                return
            most -= wanted
            last = found[-1].id


def compare(judged: Sequence[Judged], current: Policy, new: Policy) -> DryRun:
    """Both policies on the same records, newest first. Only those of the newest model count: scores of another model
    mean something else.
    """
    model = judged[0].record.model if judged else None
    same = [each for each in judged if each.record.model == model]
    said = [each.right for each in same]
    before, after = [_decided(each, current) for each in same], [_decided(each, new) for each in same]
    moved = [
        Moved(record=each.record, right=each.right, before=old, after=now)
        for each, old, now in zip(same, before, after, strict=True)
        if old.outcome is not now.outcome
    ]
    return DryRun(
        examined=len(same),
        other_models=len(judged) - len(same),
        model=None if model is None else str(model),
        before=_effect(said, [each.outcome for each in before]),
        after=_effect(said, [each.outcome for each in after]),
        moves=len(moved),
        moved=tuple(moved[:EXAMPLES]),
    )


def compare_products(judged: Sequence[JudgedProduct], current: float, new: float) -> DryRun:
    """The same for suggestions of products: from which score on they need no person. What a cold start suggested, and
    what a model could not look at in whole, needs one with any threshold.
    """
    model = judged[0][0].model if judged else None
    same = [each for each in judged if each[0].model == model]

    def outcomes(accept_at: float) -> list[Outcome]:
        learned = model is not None and not model.startswith(f"{COLD_START}@")
        return [
            Outcome.ACCEPT
            if learned and product.failure_code is None and (product.score or 0.0) >= accept_at
            else Outcome.REVIEW
            for product, _ in same
        ]

    before, after = outcomes(current), outcomes(new)
    said = [right for _, right in same]
    moved = [
        MovedProduct(product=product, right=right, before=old, after=now)
        for (product, right), old, now in zip(same, before, after, strict=True)
        if old is not now
    ]
    return DryRun(
        examined=len(same),
        other_models=len(judged) - len(same),
        model=model,
        before=_effect(said, before),
        after=_effect(said, after),
        moves=len(moved),
        moved_products=tuple(moved[:EXAMPLES]),
    )


def _decided(judged: Judged, policy: Policy) -> Decision:
    """By the thresholds alone, without the chance of a random check."""
    return decide(Prediction(model=judged.record.model, labels=judged.record.labels), policy)


def _effect(said: Sequence[bool | None], outcomes: Sequence[Outcome]) -> Effect:
    checked = [
        right for right, outcome in zip(said, outcomes, strict=True) if outcome is Outcome.ACCEPT and right is not None
    ]
    return Effect(
        accept=outcomes.count(Outcome.ACCEPT),
        review=outcomes.count(Outcome.REVIEW),
        reject=outcomes.count(Outcome.REJECT),
        checked=len(checked),
        right=sum(checked),
    )


def _was_right(record: PredictionRecord, said: Sequence[Feedback]) -> bool | None:
    if not said:
        return None
    last = said[-1]
    return last.verdict is FeedbackValue.RIGHT or last.label == record.labels[0].label
