"""What a channel decided in production and what people said of it, of whichever job. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoplens.monitoring.accuracy.estimates import Stratum


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Production:
    """The decisions of one job in one channel and time, by one model where a model decided alone.

    `checked` are automatic decisions that were made while random checks were, `reviewed` the samples that a threshold
    sent to a person. `unchecked` were decided while nobody checked, `rejected` were refused by a threshold: nothing is
    known of these. `by_state` has the automatic decisions of `checked` apart, by what they were.
    """

    model: str
    checked: Stratum
    reviewed: Stratum
    checks: int
    unchecked: int
    rejected: int = 0
    by_state: Mapping[str, Stratum] = field(default_factory=dict)
