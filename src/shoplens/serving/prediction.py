"""A prediction: labels with scores, by one bundle version, for one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shoplens.bundles.manifest import ModelRef

RANKED_LABELS: Final = 20
"""How many labels a prediction carries at least, where the model has them. A softmax label below them scores
under 1 / 21, so thresholds from `LEAST_THRESHOLD` on are decided exactly."""

LEAST_THRESHOLD: Final = 0.05


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label and its score, between 0 and 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """`labels` is sorted by falling score and never empty; the labels that are left out score less."""

    model: ModelRef
    labels: tuple[LabelScore, ...]

    @property
    def top(self) -> LabelScore:
        """The best label."""
        return self.labels[0]

    def score_of(self, label: str) -> float:
        """The score of `label`; 0.0 where it is not among the ranked ones."""
        return next((entry.score for entry in self.labels if entry.label == label), 0.0)
