"""Read the filter bar: query text in, RecordFilter out, and back again into addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from shoplens.db.ids import is_id
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.policy import Outcome
from shoplens.web.presenting import instant

_DAY = timedelta(days=1)
_LENGTH_OF_DATE = 10
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterBar:
    """What is asked for, and how the form shows it. Dates are inclusive days in UTC; a script makes them local."""

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
        """The last day that is still shown."""
        return f"{self.wanted.until - timedelta(microseconds=1):%Y-%m-%d}" if self.wanted.until else ""

    def parameters(self) -> dict[str, str]:
        """The filter as query parameters, without those that are not set."""
        wanted = self.wanted
        texts = {
            "channel": wanted.channel,
            "label": wanted.label,
            "decision": wanted.outcome.value if wanted.outcome else None,
            "since": instant(wanted.since) if wanted.since else None,
            "until": instant(wanted.until) if wanted.until else None,
        }
        return {name: text for name, text in texts.items() if text is not None}

    def query(self, **more: str) -> str:
        """`?channel=look&…` with `more` parameters after the filter's own; "" where there are none."""
        parameters = {**self.parameters(), **more}
        return f"?{urlencode(parameters)}" if parameters else ""


def read_filter(query: Mapping[str, str]) -> FilterBar:
    """The filter in a query; empty fields mean any. Raises RequestInvalid."""
    return FilterBar(
        wanted=RecordFilter(
            channel=_text(query, "channel"),
            label=_text(query, "label"),
            outcome=_outcome(_text(query, "decision")),
            since=_moment(_text(query, "since"), whole_day=timedelta()),
            until=_moment(_text(query, "until"), whole_day=_DAY),
        )
    )


def read_cursor(query: Mapping[str, str], name: str) -> str | None:
    """The id in `before` or `after`. Raises RequestInvalid."""
    text = _text(query, name)
    if text is not None and not is_id(text):
        raise RequestInvalid("This address does not lead to a page of records. Start again with the newest ones.")
    return text


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name, "").replace("\x00", "").strip()
    if len(text) > _LONGEST:
        raise RequestInvalid(f"The filter {name!r} is longer than {_LONGEST} characters.")
    return text or None


def _outcome(text: str | None) -> Outcome | None:
    try:
        return Outcome(text) if text else None
    except ValueError:
        known = ", ".join(Outcome)
        raise RequestInvalid(f"There is no decision {text!r}; the decisions are: {known}.") from None


def _moment(text: str | None, *, whole_day: timedelta) -> datetime | None:
    """UTC. A bare date stands for its whole day, so the end of a range lies a day later."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC) + (whole_day if len(text) == _LENGTH_OF_DATE else timedelta())
    except (ValueError, OverflowError):
        raise RequestInvalid(f"{text!r} is not a date. Dates are written as 2026-01-31.") from None
