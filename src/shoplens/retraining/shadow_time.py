"""The shadow time of a challenger: what it answered beside the champion on real requests, and whether that is enough.

The gate compares both models on the test set. Here they are compared on what arrived since: whether the challenger
answers at all, how often it says the same, and, of the samples that people labelled meanwhile, how many each has right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from shoplens.db import Database
from shoplens.errors import BlobNotFound
from shoplens.labels.entities import Label
from shoplens.messages import marked
from shoplens.registry.shadow_repository import ShadowAnswer, ShadowRepository
from shoplens.retraining.entities import RetrainingRun, ShadowRules
from shoplens.retraining.gate import Check, mcnemar
from shoplens.retraining.report import read_report, write_report
from shoplens.storage import Store

ENOUGH: Final = "shadow_answers"
FAILURES: Final = "shadow_failures"
AGREEMENT: Final = "shadow_agreement"
LABELS: Final = "shadow_labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowFigures:
    """How a challenger did. `failed` counts samples that it could not answer, which are not among `answers`.

    Of the `labelled` samples, whose right label people said, `only_challenger` and `only_champion` count those on which
    only one of the two is right, `both` those on which both are.
    """

    answers: int
    agreed: int
    failed: int
    labelled: int = 0
    both: int = 0
    only_challenger: int = 0
    only_champion: int = 0

    @property
    def figures(self) -> dict[str, float]:
        """For the history of the registry."""
        known = {
            "shadow answers": self.answers,
            "shadow agreement": round(self.agreed / max(1, self.answers), 6),
            "shadow failures": self.failed,
            "shadow labelled": self.labelled,
            "shadow right": self.both + self.only_challenger,
            "shadow right before": self.both + self.only_champion,
        }
        return {name: float(value) for name, value in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowResult:
    """What a shadow time showed."""

    figures: ShadowFigures
    checks: tuple[Check, ...]

    @property
    def failed(self) -> frozenset[str]:
        """The codes of the checks that do not hold."""
        return frozenset(check.code for check in self.checks if not check.passed)

    @property
    def sentence(self) -> str:
        """All checks, for people to read."""
        return " ".join(check.sentence for check in self.checks)


def count(answers: Iterable[ShadowAnswer], labels: Iterable[Label]) -> ShadowFigures:
    """The figures of the answers of one pair of versions; `labels` may be of any samples."""
    found = {(each.prediction_id or each.photo_id or each.product_id or each.id): each for each in answers}
    answered = [each for each in found.values() if each.challenger_label is not None]
    labelled = both = only_challenger = only_champion = 0
    for label in labels:
        answer = found.get(label.sample_id)
        if answer is None or answer.challenger_label is None:
            continue
        new, old = answer.challenger_label == label.label, answer.champion_label == label.label
        labelled += 1
        both += new and old
        only_challenger += new and not old
        only_champion += old and not new
    return ShadowFigures(
        answers=len(answered),
        agreed=sum(each.agrees for each in answered),
        failed=len(found) - len(answered),
        labelled=labelled,
        both=both,
        only_challenger=only_challenger,
        only_champion=only_champion,
    )


def judge_shadow(figures: ShadowFigures, rules: ShadowRules) -> ShadowResult:
    """Whether a challenger with these figures may become champion.

    With the labels of people it must not be worse: McNemar's exact test, one-sided, as in the gate.
    """
    asked = figures.answers + figures.failed
    failing, agreeing = figures.failed / max(1, asked), figures.agreed / max(1, figures.answers)
    p_worse = mcnemar(figures.only_champion, figures.only_challenger)
    right, before = figures.both + figures.only_challenger, figures.both + figures.only_champion
    labelled = marked(
        f"Of {figures.labelled:,} samples that people labelled it has {right:,} right, the champion {before:,} "
        f"(McNemar p = {p_worse:.2g} that it is not worse)."
        if figures.labelled
        else "People labelled none of these samples."
    )
    return ShadowResult(
        figures=figures,
        checks=(
            Check(
                code=ENOUGH,
                passed=asked >= rules.least_answers,
                sentence=f"Beside the champion it was asked {asked:,} times; at least {rules.least_answers:,} are "
                "needed.",
            ),
            Check(
                code=FAILURES,
                passed=failing <= rules.most_failures,
                sentence=f"It could not answer {figures.failed:,} ({failing:.1%}); at most {rules.most_failures:.1%} "
                "is allowed.",
            ),
            Check(
                code=AGREEMENT,
                passed=agreeing >= rules.least_agreement or not figures.answers,
                sentence=f"It agrees with the champion on {agreeing:.1%} of its answers; at least "
                f"{rules.least_agreement:.1%} is asked for.",
            ),
            Check(code=LABELS, passed=p_worse >= 1 - rules.confidence, sentence=labelled),
        ),
    )


class ShadowTimes:
    """Judges shadow times. `labels` gives the labels of people of a channel. Blocks."""

    def __init__(self, database: Database, store: Store, *, labels: Callable[[str], Iterator[Label]]) -> None:
        self._database = database
        self._store = store
        self._labels = labels

    def judge(self, run: RetrainingRun, rules: ShadowRules) -> ShadowResult:
        """What the challenger of a run answered until now. It is written into the report of the run.

        Raises DatabaseUnavailable and StorageUnavailable.
        """
        champion = "" if run.champion is None else run.champion.partition("@")[2]
        with self._database.reading() as tx:
            answers = ShadowRepository(tx).of_pair(run.model, champion, run.candidate)
        channels = sorted({each.channel for each in answers})
        result = judge_shadow(count(answers, self._labels_of(channels)), rules)
        if run.report_key is not None:
            try:
                report = read_report(self._store, run.report_key)
            except BlobNotFound:
                return result
            write_report(self._store, run, replace(report, shadow=result.checks))
        return result

    def _labels_of(self, channels: Sequence[str]) -> Iterator[Label]:
        for channel in channels:
            yield from self._labels(channel)
