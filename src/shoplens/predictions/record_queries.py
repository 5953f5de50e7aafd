"""Which rows a filter means, as SQL that needs no sorting: RecordFilter in, selects out. Pure: no connection.

Rows are asked for in the order of their ids. An index gives that order only within one value of every column that
precedes the id in it, so a filter that leaves such a column open becomes one index range per value, merged by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

from sqlalchemy import ColumnElement, CompoundSelect, Select, func, literal, select, union_all

from shoplens.db.ids import make_id
from shoplens.db.tables import predictions
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.policy import Outcome

MOST_CHANNELS: Final = 100
"""With more channels than this, open ones are not merged but filtered: SQLite joins at most 500 selects."""

_LAST_MS: Final = (1 << 48) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_ENTROPY: Final = bytes(10)


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids from `least` on (inclusive), above `above` and below `below` (both exclusive); None is open."""

    least: str | None = None
    above: str | None = None
    below: str | None = None


def id_range(wanted: RecordFilter, *, before: str | None, after: str | None) -> IdRange:
    """Times as ids, which begin with their millisecond; together with a page's place."""
    ends = [end for end in (before, _first_id(wanted.until)) if end is not None]
    return IdRange(least=_first_id(wanted.since), above=after, below=min(ends, default=None))


def rows(wanted: RecordFilter, ids: IdRange, channels: Sequence[str]) -> Select[Any] | CompoundSelect[Any]:
    """All columns of the rows that `wanted` means. `channels` are all that exist; only an open channel needs them."""
    branches = _branches(wanted, channels)
    return _joined([select(predictions).where(*branch, *_within(ids)) for branch in branches])


def needs_channels(wanted: RecordFilter) -> bool:
    """Whether `rows` has to know which channels exist."""
    return wanted.channel is None and (wanted.label is not None or wanted.outcome is not None)


def distinct(column: ColumnElement[str]) -> Select[tuple[str]]:
    """The different values of an index's first column by leaps from one to the next, instead of reading every row."""
    leaps = select(func.min(column).label("value")).cte("leaps", recursive=True)
    following = select(func.min(column)).where(column > leaps.c.value).scalar_subquery()
    leaps = leaps.union_all(select(following).where(leaps.c.value.is_not(None)))
    return select(leaps.c.value).where(leaps.c.value.is_not(None))


def _branches(wanted: RecordFilter, channels: Sequence[str]) -> list[list[ColumnElement[bool]]]:
    """One set of equalities per index range to read."""
    label = [] if wanted.label is None else [predictions.c.top_label == wanted.label]
    outcome = [] if wanted.outcome is None else [predictions.c.outcome == wanted.outcome.value]
    if wanted.channel is None and (not (label or outcome) or len(channels) > MOST_CHANNELS):
        return [[*label, *outcome]]
    wanted_channels = channels if wanted.channel is None else [wanted.channel]
    wanted_outcomes = list(Outcome) if wanted.outcome is None else [wanted.outcome]
    return [
        [*label, predictions.c.channel == channel, predictions.c.outcome == one.value]
        for channel, one in product(wanted_channels, wanted_outcomes)
    ]


def _within(ids: IdRange) -> list[ColumnElement[bool]]:
    column = predictions.c.id
    bounds = [
        None if ids.least is None else column >= ids.least,
        None if ids.above is None else column > ids.above,
        None if ids.below is None else column < ids.below,
    ]
    return [bound for bound in bounds if bound is not None]


def _joined(selects: list[Select[Any]]) -> Select[Any] | CompoundSelect[Any]:
    if not selects:
        return select(predictions).where(literal(False))
    return selects[0] if len(selects) == 1 else union_all(*selects)


def _first_id(moment: datetime | None) -> str | None:
    """The least id of the millisecond of `moment`."""
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since_epoch = aware - _EPOCH
    unix_ms = (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + since_epoch.microseconds // 1000
    return make_id(min(max(unix_ms, 0), _LAST_MS), _NO_ENTROPY)
