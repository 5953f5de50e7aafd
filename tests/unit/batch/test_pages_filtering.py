"""Which photos of a run are asked for, from addresses and back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shoplens.batch.browse import RunView
from shoplens.batch.entities import BatchRun, ItemFilter, ItemState, RunCounts, RunState
from shoplens.batch.pages_filtering import read_bar, read_place
from shoplens.errors import RequestInvalid

RUN = "01k9hzv3m5x4q8d0j7w2r6t9ab"


def view(doubtful: int, state: RunState = RunState.FINISHED) -> RunView:
    """A run with so many doubtful photos."""
    run = BatchRun(
        channel="returns", id=RUN, created_at=datetime.now(UTC), requested_by="x", state=state, bound=1, planned=1
    )
    return RunView(
        run=run, counts=RunCounts(by_state={ItemState.NEEDS_REVIEW: doubtful}), labels={}, left=0, rate_per_s=None,
        seconds_left=None, last_item_ago_s=None,
    )  # fmt: skip


def test_doubtful_photos_come_first_where_there_are_any() -> None:
    """Else all of them, or while the run goes on those that are done; and what is asked for in any case."""
    assert ItemFilter(run_id=RUN, state=ItemState.DONE) == read_bar({}, view(0, RunState.RUNNING)).wanted
    assert ItemFilter(run_id=RUN, state=ItemState.NEEDS_REVIEW) == read_bar({}, view(1)).wanted
    assert ItemFilter(run_id=RUN) == read_bar({}, view(0)).wanted
    assert ItemFilter(run_id=RUN) == read_bar({"state": "all"}, view(1)).wanted


def test_an_address_leads_back_to_the_same_photos() -> None:
    """With another state, another label, or none."""
    bar = read_bar({"state": "done", "label": "T-shirt & top", "text": "42"}, view(1))
    assert f"/console/batch/returns/{RUN}?state=done&label=T-shirt+%26+top&text=42" == bar.address()
    assert f"/console/batch/returns/{RUN}?state=all&text=42" == bar.address(state="all", label="")
    assert f"/console/batch/returns/{RUN}?state=done&label=dress&text=42&before=7" == bar.address(
        label="dress", before=7
    )
    assert (True, False) == (bar.narrowed, read_bar({}, view(1)).narrowed)


@pytest.mark.parametrize("query", [{"state": "odd"}, {"label": "x" * 201}, {"text": "x" * 201}])
def test_what_cannot_be_asked_for_is_refused(query: dict[str, str]) -> None:
    """With a sentence for whoever typed the address."""
    with pytest.raises(RequestInvalid):
        read_bar(query, view(1))


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9223372036854775808", "١"])
def test_a_place_is_a_plain_number(text: str) -> None:
    """Of those that the database counts with."""
    with pytest.raises(RequestInvalid):
        read_place({"before": text}, "before")


def test_a_place_may_be_missing() -> None:
    """Then the newest come."""
    assert (None, 17) == (read_place({}, "before"), read_place({"before": "17"}, "before"))
