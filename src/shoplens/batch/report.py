"""The report of a run: one self-contained HTML page, in the store or as a file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

import humanize
import jinja2
import structlog

from shoplens.batch.browse import open_photo
from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.report_facts import METHOD, CategoryShare, ReportFacts, gather
from shoplens.batch.repository import RunRepository
from shoplens.db import Database
from shoplens.errors import ImageNotKept, ItemNotFound, RequestInvalid, SampleError, StorageUnavailable
from shoplens.predictions.image_store import ImageSize, ImageStore
from shoplens.storage import Store

REPORTS: Final = "returns/reports"
_PICTURE_SIDE: Final = 128
_TRIES: Final = 5
_log: Final = structlog.get_logger(__name__)
MOST_PICTURES: Final = 60
_MOST_CATEGORIES: Final = 40
_LONGEST_TEXT: Final = 160

_REASONS: Final = {
    "image_missing": "Empty file",
    "image_too_large": "File too large",
    "image_too_many_pixels": "Too many pixels",
    "image_too_small": "Image too small",
    "image_unsupported": "Not a photo",
    "image_needs_extra": "Format not installed",
    "image_corrupt": "Damaged photo",
    "image_decoder_failed": "The decoder failed",
    "image_gone": "Photo missing",
    "internal_error": "Unexpected error",
}
"""Headings of the reasons; other codes are shown as text."""

Picture = Callable[[BatchItem], bytes | None]
"""A small JPEG of an item, or None."""


class WriteReport:
    """Renders and stores reports. Blocks. `version` is that of the program."""

    def __init__(
        self,
        database: Database,
        store: Store,
        shelf: ImageStore,
        *,
        clock: Callable[[], datetime],
        version: str = "",
    ) -> None:
        self._database = database
        self._store = store
        self._shelf = shelf
        self._clock = clock
        self._version = version

    def render(self, run_id: str, *, console: str | None = None) -> str:
        """The page with the current data; links lead to `console`, by default the pages of the channel.

        Raises RunNotFound, and RequestInvalid for an invalid address.
        """
        if console is not None and not console.startswith(("http://", "https://", "/", ".")):
            raise RequestInvalid(
                f"{console!r} is not an address of the console. It must start with http://, https://, / or a dot."
            )
        with self._database.reading() as tx:
            facts = gather(tx, RunRepository(tx).get(run_id), now=self._clock())
        return fill(
            facts,
            _Small(self._database, self._shelf),
            console=(f"/console/batch/{facts.run.channel}" if console is None else console).rstrip("/"),
            version=self._version,
        )

    def __call__(self, run_id: str) -> str:
        """Write the page to the store and return its key. Raises RunNotFound and StorageUnavailable."""
        key = f"{REPORTS}/{run_id}.html"
        for _ in range(_TRIES):
            seen = self._store.version(key)
            if self._store.put_if(key, self.render(run_id).encode(), seen=seen):
                break
            # Another process wrote it meanwhile, perhaps from older data: render it again.
        self._note(run_id, key)
        return key

    def _note(self, run_id: str, key: str) -> None:
        """The process of an active run records the report itself when the run ends."""
        with self._database.transaction() as tx:
            if not RunRepository(tx).get(run_id).active:
                RunRepository(tx).set_report(run_id, key)


class _Small:
    """Small images of items. An unavailable store leaves out the images, not the report."""

    def __init__(self, database: Database, shelf: ImageStore) -> None:
        self._database = database
        self._shelf = shelf
        self._away = False

    def __call__(self, item: BatchItem) -> bytes | None:
        if self._away:
            return None
        try:
            return self._shelf.thumbnail(
                open_photo(self._database, self._shelf, item.id, ImageSize.THUMBNAIL).data, _PICTURE_SIDE
            )
        except (ImageNotKept, ItemNotFound, SampleError):
            return None
        except StorageUnavailable as error:
            _log.warning("report.pictures_left_out", reason=str(error))
            self._away = True
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mix:
    """The categories that are shown, and how many are left out."""

    shown: Sequence[CategoryShare]
    more: int


def fill(facts: ReportFacts, picture: Picture, *, console: str, version: str) -> str:
    """The page, with at most `MOST_PICTURES` images. `console` has no slash at its end."""
    return (
        _environment()
        .get_template("report.html")
        .render(
            facts=facts,
            run=facts.run,
            counts=facts.counts,
            sums=facts.accounting,
            mix=_shown(facts.mix),
            method=METHOD,
            picture=_Pictures(picture),
            console=console,
            version=version,
            states=ItemState,
        )
    )


class _Pictures:
    """Images as `data:` addresses, up to the limit."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._left = MOST_PICTURES

    def __call__(self, item: BatchItem) -> str | None:
        if not self._left or (data := self._picture(item)) is None:
            return None
        self._left -= 1
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shoplens.batch", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        _count, _day, _duration, _instant, _moment, _percent, _rate, _reason_words, _short, _signed, _size, _width,
    )  # fmt: skip
    environment.filters.update({word.__name__.removeprefix("_"): word for word in words})
    return environment


def _shown(mix: Sequence[CategoryShare]) -> _Mix:
    """The highlighted ones, and the most frequent of the others."""
    marked = [each for each in mix if each.unusual]
    room = max(0, _MOST_CATEGORIES - len(marked))
    wanted = {each.label for each in [*marked[:_MOST_CATEGORIES], *[each for each in mix if not each.unusual][:room]]}
    shown = [each for each in mix if each.label in wanted]
    return _Mix(shown=shown, more=len(mix) - len(shown))


def _count(number: int, one: str, many: str | None = None) -> str:
    """1 is "1 item", 1234 is "1,234 items"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _percent(share: float) -> str:
    return "<0.1%" if 0 < share < 0.001 else f"{share * 100:.1f}%"


def _width(share: float) -> str:
    """The width of a bar."""
    return f"{min(max(share, 0.0), 1.0) * 100:.2f}%"


def _signed(number: int) -> str:
    return f"−{-number:,}" if number < 0 else f"{number:,}"


def _size(byte_count: int) -> str:
    return humanize.naturalsize(byte_count)


def _reason_words(code: str) -> str:
    """A heading for an error's code."""
    return _REASONS.get(code) or code.replace("_", " ").capitalize()


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def _duration(seconds: float) -> str:
    """3725 is "1 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _instant(when: datetime) -> str:
    """The `datetime` attribute of a <time>."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(when: datetime) -> str:
    moment = when.astimezone(UTC)
    return f"{moment.day} {moment:%B %Y}"


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _short(text: str) -> str:
    """Bounds foreign text, without control characters such as those that change the reading direction."""
    shown = "".join(sign for sign in text if sign.isprintable())
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[: _LONGEST_TEXT - 1]}…"
