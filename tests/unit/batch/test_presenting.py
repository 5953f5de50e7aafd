"""Runs and items in the words of the pages, and the filter of a page."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shoplens.batch import presenting as words
from shoplens.batch.browse import RunView
from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState, References, RunCounts, RunState
from shoplens.batch.import_stats import ImportSummary
from shoplens.batch.importer import ImportStatus
from shoplens.batch.presenting import read_bar, read_cursor
from shoplens.batch.status import OwnerState
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import RequestInvalid, ShoplensError, SourceUnavailable
from tests.samples import NOON

RUN = BatchRun(
        channel="returns",
    id="0" * 26, created_at=NOON, requested_by="http", state=RunState.RUNNING, bound=10, planned=1_200,
    model=ModelRef(name="fruit", version="1.2.0"), owner="me", host="desk", pid=7, started_at=NOON,
    heartbeat_at=NOON, last_item_at=NOON + timedelta(seconds=20),
)  # fmt: skip
LATER = NOON + timedelta(minutes=5)
VIEW = RunView(
    run=RUN, counts=RunCounts(by_state={ItemState.DONE: 1_000, ItemState.NEEDS_REVIEW: 20}), labels={}, left=180,
    answers={},
    rate_per_s=31.4, seconds_left=5.7, last_item_ago_s=0.3,
)  # fmt: skip
ITEM = BatchItem(
    channel="returns",
    id="0" * 26,
    received_at=NOON,
    source_name="photo.jpg",
    sha256="0" * 64,
    byte_count=1,
    state=ItemState.DONE,
)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.01, "0.1 s"),
        (0.2, "0.2 s"),
        (1, "1 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3_000, "50 min"),
        (7_200, "2 h"),
        (7_500, "2 h 5 min"),
        (90_000, "25 h"),
    ],
)
def test_a_duration_is_rounded(seconds: float, expected: str) -> None:
    """Seconds up to 99, then minutes, then hours."""
    assert expected == words.duration(seconds)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(31.4, "31 per second"), (3.14, "3.1 per second"), (0.5, "30 per minute"), (0.01, "36 per hour")],
)
def test_a_rate_is_at_least_one_per_unit(rate: float, expected: str) -> None:
    """Per second, minute or hour."""
    assert expected == words.rate(rate)


def test_numbers_are_shown_with_their_nouns() -> None:
    """Singular and plural."""
    assert ("1 photo", "1,204 photos") == (words.photos(1), words.photos(1204))


def test_progress_is_one_line() -> None:
    """Speed, time left and when the last photo was finished; a finished run shows its duration."""
    shown = words.progress_words(VIEW)
    assert ("85%", "1,020", "1,200 photos", "Running") == tuple(
        shown[name] for name in ("percent", "settled", "planned", "state")
    )
    assert "31 per second · about 6 s left · last photo finished 0.3 s ago" == shown["pace"]
    ended = replace(RUN, state=RunState.FINISHED, finished_at=LATER)
    assert "31 per second · took 5 min" == words.pace(replace(VIEW, run=ended, seconds_left=None))


def test_a_run_that_proceeds_has_no_notice() -> None:
    """Nor has a finished one."""
    assert words.run_notice(RUN, OwnerState.ALIVE, trouble=None, now=LATER) is None
    waiting = replace(RUN, state=RunState.REQUESTED, owner=None)
    assert words.run_notice(waiting, OwnerState.NOBODY, trouble=None, now=LATER) is None
    ended = replace(RUN, state=RunState.FINISHED, stalled=True)
    assert words.run_notice(ended, OwnerState.NOBODY, trouble=None, now=LATER) is None


@pytest.mark.parametrize(
    ("run", "owner", "trouble", "sentence", "resumable"),
    [
        (RUN, OwnerState.GONE, None, "The worker stopped.", True),
        (replace(RUN, owner=None, failure="The disk is full."), OwnerState.NOBODY, None, "The disk is full.", True),
        (
            replace(RUN, owner=None),
            OwnerState.NOBODY,
            "Status 1.",
            "This run has no worker. Status 1.",
            True,
        ),
        (RUN, OwnerState.SILENT, None, "No heartbeat from desk for 5 min", False),
        (replace(RUN, stalled=True), OwnerState.ALIVE, None, "no photo finished for 5 min", False),
    ],
)
def test_a_run_that_is_interrupted_or_stalled_has_a_notice(
    run: BatchRun, owner: OwnerState, trouble: str | None, sentence: str, resumable: bool
) -> None:
    """With the reason, and whether a button resumes it."""
    shown = words.run_notice(run, owner, trouble=trouble, now=LATER)
    assert shown is not None
    assert sentence in shown.sentence
    assert resumable is shown.resumable


def test_an_item_is_named_by_its_references() -> None:
    """Without them by its file."""
    assert "photo.jpg" == words.references(ITEM)
    assert "Item 7" == words.references(replace(ITEM, references=References(item="7")))
    assert "Order 42, item 7" == words.references(replace(ITEM, references=References(item="7", order="42")))


def test_each_category_has_its_own_key() -> None:
    """Its first letter where that is free, else another of its letters, else any; never one of the gallery's own."""
    labels = ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"]
    keys = {choice.label: choice.key for choice in words.keyed(labels)}
    assert ("d", "h", "p", "t") == tuple(keys[label] for label in ("dress", "hat", "pants", "t-shirt"))
    assert len(labels) == len(set(keys.values()))
    assert set() == set("jknosuxy") & set(keys.values())
    assert keys == {choice.label: choice.key for choice in words.keyed(labels)}


def test_more_labels_than_keys_are_left_out() -> None:
    """Reviewers type them instead."""
    assert words.MOST_CHOICES == len(words.keyed([f"label {number}" for number in range(1_000)]))


def test_of_very_many_labels_the_frequent_ones_are_offered() -> None:
    """Of few, all."""
    many = [f"label {number:03}" for number in range(1_000)]
    counts = {
        (ItemState.DONE, "label 500"): 7,
        (ItemState.NEEDS_REVIEW, "label 500"): 1,
        (ItemState.DONE, "label 001"): 2,
    }
    assert ["label 001", "label 500"] == words.offered(many, counts)
    assert ["a", "b"] == words.offered(["b", "a"], {})


@pytest.mark.parametrize(
    ("status", "short", "long"),
    [
        (ImportStatus(running=True, started_at=NOON), "0 so far …", "being imported"),
        (ImportStatus(running=False, started_at=NOON, summary=ImportSummary(source="x")), "0 photos", "No new photos."),
        (
            ImportStatus(running=False, started_at=NOON, summary=ImportSummary(source="x", taken=3, duplicates=1)),
            "3 photos",
            "3 photos imported and ready to classify, 1 duplicate.",
        ),
        (
            ImportStatus(running=False, started_at=NOON, error=SourceUnavailable("There is no folder /srv/x.")),
            "Failed",
            "The source of the import is unavailable (source_unavailable). The log has the details.",
        ),
        (
            ImportStatus(running=False, started_at=NOON, error=ShoplensError("It was too much.")),
            "Failed",
            "It was too much (internal_error).",
        ),
        (ImportStatus(running=False, started_at=NOON, error=KeyError("x")), "Failed", "an internal error"),
    ],
)
def test_an_import_has_a_short_and_a_long_description(status: ImportStatus, short: str, long: str) -> None:
    """For a tile of the page, and for the notice after the request."""
    assert short == words.import_words(status)
    assert long in words.import_notice(status).sentence


def test_what_an_import_left_behind_is_a_warning() -> None:
    """Files that the account cannot read or remove are no finished import of nothing."""
    summary = ImportSummary(source="x", unreadable=2, not_removed=1, known=1, notes=("b.jpg could not be read.",))
    status = ImportStatus(running=False, started_at=NOON, summary=summary)
    notice = words.import_notice(status)
    assert ("warn", "0 photos, 3 left behind") == (notice.kind, words.import_words(status))
    assert (
        "No new photos, 1 already imported, 2 could not be read, 1 imported but not removed. b.jpg could not be read."
        == notice.sentence
    )


def test_before_the_first_import_there_is_no_description() -> None:
    """The page shows nothing."""
    assert "" == words.import_words(None)


RUN_ID = "01k9hzv3m5x4q8d0j7w2r6t9ab"


def view(needs_review: int, state: RunState = RunState.FINISHED) -> RunView:
    """A run with so many photos that need review."""
    run = BatchRun(
        channel="returns", id=RUN_ID, created_at=datetime.now(UTC), requested_by="x", state=state, bound=1, planned=1
    )
    return RunView(
        run=run, counts=RunCounts(by_state={ItemState.NEEDS_REVIEW: needs_review}), labels={}, left=0, rate_per_s=None,
    answers={},
        seconds_left=None, last_item_ago_s=None,
    )  # fmt: skip


def test_photos_that_need_review_are_shown_first() -> None:
    """Without any: done photos during the run, all photos after it. A state in the address takes precedence."""
    assert ItemFilter(run_id=RUN_ID, state=ItemState.DONE) == read_bar({}, view(0, RunState.RUNNING)).wanted
    assert ItemFilter(run_id=RUN_ID, state=ItemState.NEEDS_REVIEW) == read_bar({}, view(1)).wanted
    assert ItemFilter(run_id=RUN_ID) == read_bar({}, view(0)).wanted
    assert ItemFilter(run_id=RUN_ID) == read_bar({"state": "all"}, view(1)).wanted


def test_an_address_leads_back_to_the_same_photos() -> None:
    """With another state, another label, or none."""
    bar = read_bar({"state": "done", "label": "T-shirt & top", "text": "42"}, view(1))
    assert f"/console/batch/returns/{RUN_ID}?state=done&label=T-shirt+%26+top&text=42" == bar.address()
    assert f"/console/batch/returns/{RUN_ID}?state=all&text=42" == bar.address(state="all", label="")
    assert f"/console/batch/returns/{RUN_ID}?state=done&label=dress&text=42&before=7" == bar.address(
        label="dress", before=7
    )
    assert (True, False) == (bar.narrowed, read_bar({}, view(1)).narrowed)


@pytest.mark.parametrize("query", [{"state": "odd"}, {"label": "x" * 201}, {"text": "x" * 201}])
def test_invalid_filters_are_refused(query: dict[str, str]) -> None:
    """An unknown state, or a text that is too long."""
    with pytest.raises(RequestInvalid):
        read_bar(query, view(1))


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9223372036854775808", "١"])
def test_a_cursor_is_a_plain_number(text: str) -> None:
    """Within the range of the database's numbers."""
    with pytest.raises(RequestInvalid):
        read_cursor({"before": text}, "before")


def test_a_cursor_may_be_missing() -> None:
    """The page then has the newest photos."""
    assert (None, 17) == (read_cursor({}, "before"), read_cursor({"before": "17"}, "before"))
