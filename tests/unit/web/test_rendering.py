"""Filters for numbers, sizes and times, and the addresses of static files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shoplens.errors import DatabaseUnavailable, NotFound, QueueFull
from shoplens.web import rendering


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "100.0%"), (0.834, "83.4%"), (0.001, "0.1%"), (0.0004, "<0.1%"), (0.0, "0.0%")]
)
def test_small_shares_are_not_rounded_to_zero(share: float, words: str) -> None:
    """Only zero is shown as zero."""
    assert words == rendering.percent(share)


def test_bars_stay_within_their_track() -> None:
    """Also for scores of a model without a final activation."""
    assert ["0.00%", "50.00%", "100.00%"] == [rendering.bar_width(share) for share in (-3.0, 0.5, 17.0)]


@pytest.mark.parametrize(
    ("count", "words"),
    [(999, "999 Bytes"), (25_400, "25.4 kB"), (999_999, "1 MB"), (1_234_567, "1.23 MB"), (20_000_000, "20 MB")],
)
def test_sizes_are_short(count: int, words: str) -> None:
    """In decimal units."""
    assert words == rendering.size(count)


def test_a_run_that_a_service_asked_for_is_of_the_api() -> None:
    """Where the service has no name; people have one."""
    assert ["the API", "command line", "Ada"] == [rendering.requester(each) for each in ("http", "command line", "Ada")]


def test_instants_are_utc_whatever_zone_they_come_in() -> None:
    """A time without a zone is UTC already."""
    moment = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=13)))
    assert ["2026-01-31T12:00:00Z"] * 3 == [
        rendering.instant(each) for each in (moment, elsewhere, moment.replace(tzinfo=None))
    ]
    assert "2026-01-31T12:00:00.250Z" == rendering.instant(moment.replace(microsecond=250_000))


def test_static_addresses_carry_a_hash_of_the_content() -> None:
    """A file that is not there is an error of the page's author."""
    address = rendering.static_url("console.css")
    assert address.startswith("/static/console.css?v=")
    with pytest.raises(KeyError):
        rendering.static_url("nix.css")


def test_the_error_page_says_what_happened_and_where_to_go() -> None:
    """With the code for support, and with Retry-After where waiting helps."""
    missing = rendering.error_page(NotFound("There is no such page."), request_id="r1")
    full = rendering.error_page(QueueFull("full", retry_after_s=1.2))
    html = bytes(missing.body).decode()
    assert (404, 429) == (missing.status_code, full.status_code)
    assert "Page not found" in html
    assert "There is no such page." in html
    assert "not_found" in html
    assert 'href="/">Start page' in html
    assert "2" == full.headers["retry-after"]


def test_the_error_page_keeps_internal_details_for_the_log() -> None:
    """Paths and addresses of the server are not shown; the reference finds them in the log."""
    html = bytes(rendering.error_page(DatabaseUnavailable("/srv/shoplens.db: locked"), request_id="c08d").body).decode()
    assert "The database is unavailable. Reference: c08d." in html
    assert "/srv" not in html
