"""What a training is asked to do: sources and a plan, and a refusal of what cannot be done, before an hour of work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shoplens.bundles.manifest import NAME_PATTERN, Card, read_card, to_json
from shoplens.errors import BundleInvalid, Conflict, RequestInvalid
from shoplens.images.picture import Limits
from shoplens.training.card import Wording

_LEAST_HELD_OUT: Final = 0.01
_MOST_HELD_OUT: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the labelled photos are. Without `validation` a share is held out; `labels` names an archive's classes."""

    source: Path
    validation: Path | None = None
    test: Path | None = None
    labels: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to become of them. `fraction` is held out for validation; the bundle goes to `<into>/<name>/<version>`,
    what a resumption needs to `work_dir`; `fresh` forgets what is there. `threads` read, check and measure.
    """

    name: str
    version: str
    recipe: str
    wording: Wording
    into: Path
    work_dir: Path
    fraction: float = 0.15
    seed: int = 0
    epochs: int | None = None
    fresh: bool = False
    threads: int = 1
    limits: Limits = field(default_factory=Limits)

    @property
    def target(self) -> Path:
        """Where the bundle will be."""
        return self.into / self.name / self.version


def refuse_plan(plan: Plan) -> None:
    """Raises RequestInvalid for a plan that cannot be, Conflict where the bundle is there already."""
    for what, text in (("name", plan.name), ("version", plan.version)):
        if not re.fullmatch(NAME_PATTERN, text):
            raise RequestInvalid(f"{text!r} is no {what} of a model: small letters, digits, '.', '_' and '-' only.")
    if not _LEAST_HELD_OUT <= plan.fraction <= _MOST_HELD_OUT:
        raise RequestInvalid(f"The share held out must lie between {_LEAST_HELD_OUT} and {_MOST_HELD_OUT}.")
    if plan.epochs is not None and plan.epochs < 1:
        raise RequestInvalid("There must be at least one epoch.")
    if plan.target.exists():
        raise Conflict(f"{plan.name}@{plan.version} is there already; give this one another version.")
    try:
        read_card(to_json(draft_card(plan.wording)))
    except BundleInvalid as error:
        raise RequestInvalid(f"Title, licence or the name of the data cannot be kept: {error}") from error


def draft_card(wording: Wording) -> Card:
    """The person's part of the card, with the rest to come."""
    return Card(
        title=wording.title,
        description="Being measured.",
        task="Being measured.",
        data=wording.data_name,
        licence=wording.licence,
        source="Being measured.",
        date=wording.date,
        limits=(),
        metrics=(),
    )
