"""The filter of the page Records as its form shows it: read from a query, and written into addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from shoplens.bundles.manifest import ModelRef
from shoplens.db.tables import is_id
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.policy import Outcome

_MAX_FILTER_LENGTH: Final = 200
_DATE_LENGTH: Final = len("2026-01-31")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterBar:
    """A filter as the form shows it. Dates are inclusive days in UTC; a script makes them local."""

    wanted: RecordFilter

    @property
    def active(self) -> bool:
        """Whether anything is filtered out."""
        return bool(self.parameters())

    @property
    def since_day(self) -> str:
        """The first day, as a date input wants it."""
        return f"{self.wanted.since:%Y-%m-%d}" if self.wanted.since else ""

    @property
    def until_day(self) -> str:
        """The last day that is still shown; none for an end at the beginning of the calendar."""
        until = self.wanted.until
        if until is None or until.date() == date.min:
            return ""
        return f"{until - timedelta(microseconds=1):%Y-%m-%d}"

    def parameters(self) -> dict[str, str]:
        """The filter as query parameters, without those that are not set."""
        wanted = self.wanted
        texts = {
            "channel": wanted.channel,
            "label": wanted.label,
            "decision": wanted.outcome.value if wanted.outcome else None,
            "since": _instant(wanted.since) if wanted.since else None,
            "until": _instant(wanted.until) if wanted.until else None,
            "text": wanted.text,
            "truth": wanted.truth,
            "model": str(wanted.model) if wanted.model else None,
        }
        return {name: text for name, text in texts.items() if text is not None}

    @property
    def without_truth(self) -> str:
        """The query string without what people said and of which model."""
        return FilterBar(wanted=replace(self.wanted, truth=None, model=None)).query()

    def query(self, **more: str) -> str:
        """The query string with `more` parameters after the filter's own; "" where there are none."""
        parameters = {**self.parameters(), **more}
        return f"?{urlencode(parameters)}" if parameters else ""


def read_filter(query: Mapping[str, str]) -> FilterBar:
    """The filter in a query; empty fields mean any. Raises RequestInvalid."""
    decision = _text(query, "decision")
    if decision is not None and decision not in set(Outcome):
        raise RequestInvalid(f'"{decision}" is not a decision. Use one of: {", ".join(Outcome)}.')
    truth = _text(query, "truth")
    return FilterBar(
        wanted=RecordFilter(
            channel=_text(query, "channel"),
            label=_text(query, "label"),
            outcome=Outcome(decision) if decision else None,
            since=_moment(_text(query, "since"), whole_day=timedelta()),
            until=_moment(_text(query, "until"), whole_day=timedelta(days=1)),
            text=_text(query, "text"),
            truth=truth,
            model=model_of(_text(query, "model"), truth),
        )
    )


def model_of(text: str | None, truth: str | None) -> ModelRef | None:
    """The model in a filter for what people said, as `clothing@1.0.1`. Raises RequestInvalid."""
    if text is None:
        return None
    name, at, version = text.partition("@")
    if not (name and at and version) or truth is None:
        raise RequestInvalid(
            "The filter `model` is a name and a version, such as clothing@1.0.1, together with `truth`, the label that "
            "people gave."
        )
    return ModelRef(name=name, version=version)


def read_cursor(query: Mapping[str, str], name: str) -> str | None:
    """The id in `before` or `after`. Raises RequestInvalid."""
    text = _text(query, name)
    if text is not None and not is_id(text):
        raise RequestInvalid("This link to a page of records is not valid. Start again with the newest records.")
    return text


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name, "").replace("\x00", "").strip()
    if len(text) > _MAX_FILTER_LENGTH:
        raise RequestInvalid(f"The filter {name!r} is longer than {_MAX_FILTER_LENGTH} characters.")
    return text or None


def _moment(text: str | None, *, whole_day: timedelta) -> datetime | None:
    """UTC. A bare date means its whole day, so that the end of a range lies a day later."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC) + (whole_day if len(text) == _DATE_LENGTH else timedelta())
    except (ValueError, OverflowError):
        raise RequestInvalid(f'"{text}" is not a date. Write dates as 2026-01-31.') from None


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")
