"""The filter bar reads what people and links write, and writes addresses that lead back to the same."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import clean_file_name
from shoplens.predictions.filter_bar import read_cursor, read_filter
from shoplens.predictions.policy import Outcome


def test_empty_fields_mean_any() -> None:
    """A form sends all of its fields."""
    bar = read_filter({"channel": "", "label": "  ", "decision": "", "since": "", "until": ""})
    assert not bar.active
    assert "" == bar.query()


def test_a_day_lasts_until_its_end() -> None:
    """Without a script both ends are days in UTC, and the last one is included."""
    bar = read_filter({"since": "2026-01-30", "until": "2026-01-31"})
    assert (datetime(2026, 1, 30, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)) == (bar.wanted.since, bar.wanted.until)
    assert ("2026-01-30", "2026-01-31") == (bar.since_day, bar.until_day)


def test_instants_are_taken_as_they_are() -> None:
    """Scripts and links say the exact moment, in any zone."""
    bar = read_filter({"since": "2026-01-30T11:00:00.000Z", "until": "2026-01-31T12:00:00+13:00"})
    assert datetime(2026, 1, 30, 11, tzinfo=UTC) == bar.wanted.since
    assert datetime(2026, 1, 30, 23, tzinfo=UTC) == bar.wanted.until


def test_an_address_leads_back_to_the_same_filter() -> None:
    """Also with characters that mean something in addresses, and with a cursor."""
    bar = read_filter(
        {
            "truth": "d&e",
            "model": "clothing@1.0.1",
            "channel": "look",
            "label": "a&b=c #1 ü",
            "decision": "review",
            "since": "2026-01-30",
            "until": "2026-01-31",
        }
    )
    again = read_filter(dict(parse_qsl(bar.query(before="x")[1:])))
    assert bar == again
    assert Outcome.REVIEW == again.wanted.outcome
    assert bar.query(before="x").endswith("&before=x")
    assert not {"truth", "model"} & dict(parse_qsl(bar.without_truth[1:])).keys()


@pytest.mark.parametrize(
    "query",
    [
        {"decision": "perhaps"},
        {"since": "yesterday"},
        {"until": "9999-12-31"},
        {"until": "2026-02-30"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"label": "x" * 201},
        {"model": "clothing@1.0.1"},
        {"truth": "dress", "model": "clothing"},
    ],
)
def test_invalid_filters_are_refused_with_a_reason(query: dict[str, str]) -> None:
    """And never with a crash."""
    with pytest.raises(RequestInvalid, match=r"\.$|characters"):
        read_filter(query)


def test_cursors_are_ids() -> None:
    """Anything else cannot come from one of our pages."""
    assert read_cursor({}, "before") is None
    assert "0" * 26 == read_cursor({"before": "0" * 26}, "before")
    with pytest.raises(RequestInvalid):
        read_cursor({"before": "' or 1"}, "before")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("IMG_2031.jpg", "IMG_2031.jpg"),
        ("2026/05/coat 055.jpg", "coat 055.jpg"),
        ("C:\\fakepath\\coat.jpg", "coat.jpg"),
        ("a\x00\u202egpj.exe\ud800", "agpj.exe"),
        ("Ma\u0308ntel.jpg", "M\u00e4ntel.jpg"),
        ("x" * 300, "x" * 255),
        ("folder/", None),
        ("", None),
        (None, None),
    ],
)
def test_a_file_name_is_stored_as_people_read_it(sent: str | None, stored: str | None) -> None:
    """No folders, nothing invisible, bounded."""
    assert stored == clean_file_name(sent)
