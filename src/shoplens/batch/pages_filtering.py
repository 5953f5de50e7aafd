"""Read which photos of a run are asked for: query text in, BatchBar out, and back again into addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from shoplens.batch.browse import RunView
from shoplens.batch.entities import ItemFilter, ItemState
from shoplens.errors import RequestInvalid

EVERYTHING: Final = "all"
_LONGEST: Final = 200
_LARGEST_CURSOR: Final = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBar:
    """What is asked for. Addresses name the state always, since the state that is shown first depends on the run."""

    wanted: ItemFilter

    @property
    def narrowed(self) -> bool:
        """Whether more than the state is asked for."""
        return self.wanted.label is not None or self.wanted.text is not None

    def address(self, *, state: str | None = None, label: str | None = None, **more: str | int) -> str:
        """The address of the same with another state or label ("" takes the label away), from its first page on."""
        wanted = self.wanted
        if label is not None:
            wanted = replace(wanted, label=label or None)
        parameters = {
            "state": state or (wanted.state.value if wanted.state else EVERYTHING),
            "label": wanted.label,
            "text": wanted.text,
            **more,
        }
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        return f"/console/batch/returns/{wanted.run_id}?{query}"


def read_bar(query: Mapping[str, str], view: RunView) -> BatchBar:
    """The filter in a query; without a state, doubtful photos come first where there are any. Raises RequestInvalid."""
    given = _text(query, "state")
    state = _first(view) if given is None else _state(given)
    wanted = ItemFilter(run_id=view.run.id, state=state, label=_text(query, "label"), text=_text(query, "text"))
    return BatchBar(wanted=wanted)


def read_place(query: Mapping[str, str], name: str) -> int | None:
    """The number in `before` or `after`. Raises RequestInvalid."""
    text = _text(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < _LARGEST_CURSOR):
        raise RequestInvalid("This address does not lead to a page of photos. Start again with the newest ones.")
    return int(text)


def _first(view: RunView) -> ItemState | None:
    """Else what is done while the run goes on, and everything once it is over."""
    if view.counts[ItemState.NEEDS_REVIEW]:
        return ItemState.NEEDS_REVIEW
    return ItemState.DONE if view.run.active else None


def _state(text: str) -> ItemState | None:
    if text == EVERYTHING:
        return None
    try:
        return ItemState(text)
    except ValueError:
        known = ", ".join((*ItemState, EVERYTHING))
        raise RequestInvalid(f"No photo is {text!r}; what they can be is: {known}.") from None


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name, "").replace("\x00", "").strip()
    if len(text) > _LONGEST:
        raise RequestInvalid(f"The filter {name!r} is longer than {_LONGEST} characters.")
    return text or None
