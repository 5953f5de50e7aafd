"""The form of a channel's thresholds: what is typed into it, and the thresholds that it means."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from shoplens.advice import meant
from shoplens.configuration.entities import (
    ACCEPT_AT,
    STEPS,
    AppliedThresholds,
    Thresholds,
    label_of,
    thresholds_of,
)
from shoplens.configuration.errors import ThresholdsInvalid
from shoplens.messages import gettext
from shoplens.predictions.policy import Policy
from shoplens.setting_sources import Source, SourceKind

RECORDS: Final = (200, 1_000, 5_000, 10_000)
"""Between how many records for a dry run a person chooses."""
NEW_LABEL: Final = "new_label"
MOST_FIELDS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRow:
    """A field of the form: the threshold `name`, what is typed, and where the value in use comes from."""

    name: str
    label: str
    step: str
    typed: str
    source: Source
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is in the form. `based_on` is the version that it was filled from."""

    channel: str
    fields: Mapping[str, str]
    based_on: int
    records: int = RECORDS[1]
    note: str = ""

    @property
    def values(self) -> Thresholds:
        """The thresholds that are meant. Raises ThresholdsInvalid for what is no number."""
        values = {name: _number(name, text) for name, text in self.fields.items() if not name.startswith(NEW_LABEL)}
        label = self.fields.get(NEW_LABEL, "").strip()
        steps = {step: _number(step, self.fields.get(f"{NEW_LABEL}.{step}", "")) for step in STEPS}
        if not label and any(value is not None for value in steps.values()):
            raise ThresholdsInvalid("Name the label of the new threshold.")
        if label:
            values |= {f"labels.{label}.{step}": value for step, value in steps.items()}
        return values


def draft_in_use(applied: AppliedThresholds) -> Draft:
    """The form with what applies."""
    fields = {name: _text(value) for name, value in thresholds_of(applied.policy).items()}
    return Draft(channel=applied.channel.name, fields=fields, based_on=applied.version)


def read_draft(form: Mapping[str, object], applied: AppliedThresholds) -> Draft:
    """What was sent: fields of thresholds have their names. What is not sent stays as it is."""
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    fields = {name: value[:40] for name, value in texts.items() if name == ACCEPT_AT or name.startswith("labels.")}
    fields |= {name: value[:200] for name, value in texts.items() if name.startswith(NEW_LABEL)}
    records = texts.get("records", "")
    return Draft(
        channel=applied.channel.name,
        fields={**draft_in_use(applied).fields, **fields},
        based_on=int(texts["based_on"]) if texts.get("based_on", "").isdecimal() else applied.version,
        records=int(records) if records.isdecimal() and int(records) in RECORDS else RECORDS[1],
        note=texts.get("note", "")[:2_000],
    )


def rows_of(draft: Draft, applied: AppliedThresholds) -> list[ThresholdRow]:
    """The fields of the form, that of the best label first."""
    rows = []
    for name, typed in draft.fields.items():
        if name.startswith(NEW_LABEL):
            continue
        label, step = ("", ACCEPT_AT) if name == ACCEPT_AT else label_of(name)
        source = applied.channel.source_of(name)
        if name in applied.edited and not source.is_fixed:
            source = Source(kind=SourceKind.PAGE, where=applied.created_by or "")
        rows.append(ThresholdRow(name=name, label=label, step=step, typed=typed, source=source, fixed=source.is_fixed))
    return rows


def checked_values(draft: Draft, policy: Policy, *, labels: Collection[str]) -> Thresholds:
    """The thresholds that are meant; a label for which `policy` has none must be one of `labels`, those of the model.

    Raises ThresholdsInvalid.
    """
    values = draft.values
    known = {rule.label for rule in policy.rules}
    for name, value in values.items():
        if name != ACCEPT_AT and value is not None and (label := label_of(name)[0]) not in known.union(labels):
            raise ThresholdsInvalid(f"The model has no label {label!r}{meant(label, labels)}.")
    return values


def _number(name: str, text: str) -> float | None:
    cleaned = text.strip().replace(",", ".")
    if not cleaned:
        return None
    try:
        value = float(cleaned.removesuffix("%"))
    except ValueError:
        value = math.nan
    if 2 <= value <= 100:
        percent, share = f"{value:g}%", f"{value / 100:g}"
        raise ThresholdsInvalid(
            gettext(
                "%(name)s: thresholds are numbers from 0 to 1. For %(percent)s write %(share)s.",
                name=name,
                percent=percent,
                share=share,
            )
        )
    if math.isnan(value) or cleaned.endswith("%"):
        raise ThresholdsInvalid(gettext("%(name)s: write a number from 0 to 1, or leave it empty.", name=name))
    return value


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
