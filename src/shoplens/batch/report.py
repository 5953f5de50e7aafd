"""The report of a run: its facts from one consistent read of the database, as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from html import escape
from statistics import variance
from typing import Final

import humanize
import jinja2
from sqlalchemy import Connection

from shoplens.batch.browse import open_photo, rate_per_s
from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunCounts, RunState
from shoplens.batch.presenting import answer_words, duration
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import ImageNotKept, ItemNotFound, RequestInvalid, SampleError, StorageUnavailable
from shoplens.messages import DEFAULT, gettext, language, localised, long_day, marked, plain_time, whole_number
from shoplens.messages.page_texts import add_messages
from shoplens.predictions.entities import Answer
from shoplens.predictions.image_store import ImageSize, ImageStore
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger

REPORTS: Final = "returns/reports"
MOST_PICTURES: Final = 60
COMPARED_RUNS: Final = 10
"""Earlier finished runs that the shares of a run are compared with."""

LEAST_ITEMS: Final = 30
"""With fewer items in the run, or in the earlier runs together, nothing is highlighted."""

UNUSUAL_FROM: Final = 3.0
METHOD: Final = marked(
    "Highlighted: shares that differ from the average by more than %(errors)s standard errors (two-proportion z-test, "
    "from %(items)s items on; if the runs differ among themselves by more than chance, their own variance is used). "
    "The average is that of all items of the last %(runs)s finished runs."
)
MOST_TO_REVIEW: Final = 24
MOST_PER_REASON: Final = 12
MOST_SLOWEST: Final = 10
MOST_PROPOSED: Final = 20
REMOVED: Final = marked("Photo removed by retention")
_PICTURE: Final = re.compile(rb'<img src="data:image/jpeg;base64,[^"]*" alt="">')
_LANGUAGE: Final = re.compile(rb'<html lang="([a-z]{2})"')
_CLASSIFIED: Final = (ItemState.DONE, ItemState.NEEDS_REVIEW)
_LEAST_RUNS_FOR_VARIANCE: Final = 3
_MOST_CATEGORIES: Final = 40
_PICTURE_SIDE: Final = 128
_LONGEST_TEXT: Final = 160
_TRIES: Final = 5
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TotalRow:
    """A line of the reconciliation. `number` is signed; a total is shown even if it is 0."""

    name: str
    number: int
    words: str
    total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A segment of the bar at the top, as shares of its length from 0 to 1."""

    kind: str
    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """The reconciliation of a run: what became of everything that it accounts for.

    `planned` was counted by the run when it began; everything else is counted from the items now. `counts` are all
    items that the run accounts for, `own` those of them that it works on, by state.
    """

    planned: int
    counts: RunCounts
    own: RunCounts

    @property
    def received(self) -> int:
        """Everything that arrived, or was queued again, since the run before."""
        return self.counts.received

    @property
    def in_run(self) -> int:
        """Items that the run works on."""
        return self.own.received

    @property
    def unfinished(self) -> int:
        """Items of the run that are not processed."""
        return self.in_run - self.own.settled

    @property
    def refused(self) -> int:
        """Files that were quarantined when they arrived, whatever a person made of them since."""
        return self.counts.settled - self.own.settled

    @property
    def waiting(self) -> int:
        """Items that an active run has not taken yet."""
        return self.counts[ItemState.WAITING] - self.own[ItemState.WAITING]

    @property
    def missing(self) -> int:
        """Planned items that are not accounted for. Anything but 0 is a bug."""
        return max(0, self.planned - self.in_run - self.waiting)

    @property
    def settled(self) -> bool:
        """Whether every item is accounted for and processed."""
        return self.missing == self.unfinished == self.waiting == 0

    def rows(self) -> list[TotalRow]:
        """Line by line: what was received, what of it the run worked on, what became of it."""
        own = self.own
        return [
            TotalRow(
                "received", self.received, gettext("Received since the previous run, or queued again"), total=True
            ),
            TotalRow("duplicates", -self.counts[ItemState.DUPLICATE], gettext("Duplicates")),
            TotalRow("refused", -self.refused, gettext("Quarantined on arrival")),
            TotalRow("waiting", -self.waiting, gettext("Not taken yet")),
            TotalRow("in_run", self.in_run, gettext("Photos of this run"), total=True),
            TotalRow("done", own[ItemState.DONE], gettext("Done")),
            TotalRow("needs_review", own[ItemState.NEEDS_REVIEW], gettext("Needs review")),
            TotalRow("quarantined", own[ItemState.QUARANTINED], gettext("Quarantined by the run")),
            TotalRow("dismissed", own[ItemState.DISMISSED], gettext("Dismissed as not usable")),
            TotalRow("unfinished", self.unfinished, gettext("Not finished")),
            TotalRow("planned", self.planned, gettext("Photos planned when the run began"), total=True),
            TotalRow("missing", -self.missing, gettext("Missing")),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Quarantined items with the same reason; `shown` are the first of `count`, `retried` were queued again since."""

    code: str
    example: str
    count: int
    retried: int
    shown: Sequence[BatchItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """Everything that the report shows. `ended_at` and `per_minute` are None before an item was finished."""

    run: BatchRun
    written_at: datetime
    counts: RunCounts
    accounting: Accounting
    ended_at: datetime | None
    per_minute: float | None
    answers: Mapping[Answer, int]
    proposed: Sequence[tuple[str, int]]
    needs_review: Sequence[BatchItem]
    reasons: Sequence[Reason]
    mix: Sequence[CategoryShare]
    compared_runs: int
    slowest: Sequence[BatchItem]

    @property
    def total(self) -> int:
        """Everything that the run accounts for."""
        return self.counts.received

    @property
    def rest(self) -> int:
        """Items that wait or are being processed."""
        return self.total - self.counts.settled - self.counts[ItemState.DUPLICATE]

    @property
    def parts(self) -> list[Part]:
        """The segments of the bar."""
        numbers = {
            "done": self.counts[ItemState.DONE],
            "needs_review": self.counts[ItemState.NEEDS_REVIEW],
            "quarantined": self.counts[ItemState.QUARANTINED],
            "dismissed": self.counts[ItemState.DISMISSED],
            "duplicate": self.counts[ItemState.DUPLICATE],
            "rest": self.rest,
        }
        total, before, parts = self.total or 1, 0, []
        for kind, number in numbers.items():
            parts.append(Part(kind=kind, left=before / total, width=number / total))
            before += number
        return parts


def gather(tx: Connection, run: BatchRun, *, now: datetime) -> ReportFacts:
    """The facts of `run`, bounded for any number of items."""
    items, reviews = ItemRepository(tx), ReviewRepository(tx)
    within = items.range_of(run)
    counts = items.counts(run)
    own = RunCounts(by_state=items.count_own_states(run.id))
    accounting = Accounting(planned=run.planned, counts=counts, own=own)
    rate = rate_per_s(run, own.settled, now)
    before = RunRepository(tx).page(run.channel, limit=COMPARED_RUNS, before=run.id, state=RunState.FINISHED)
    earlier = [_categories(tx, each) for each in before]
    return ReportFacts(
        run=run,
        written_at=now,
        counts=counts,
        accounting=accounting,
        ended_at=run.finished_at or run.last_item_at,
        per_minute=None if rate is None else rate * 60,
        answers=reviews.count_answers(run.id),
        proposed=reviews.count_proposed(run.id, MOST_PROPOSED),
        needs_review=items.least_sure(run.id, MOST_TO_REVIEW),
        reasons=[
            Reason(
                code=each.code,
                example=each.example,
                count=each.count,
                retried=each.retried,
                shown=items.quarantined(within, each.code, MOST_PER_REASON),
            )
            for each in items.failures(within)
        ],
        mix=compare(_categories(tx, run), earlier),
        compared_runs=sum(1 for each in earlier if each),
        slowest=items.slowest(run.id, MOST_SLOWEST),
    )


def _categories(tx: Connection, run: BatchRun) -> Counter[str]:
    """The number of classified items of a run by label."""
    found: Counter[str] = Counter()
    for (state, label), count in ItemRepository(tx).count_labels(run.id).items():
        if state in _CLASSIFIED:
            found[label] += count
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShare:
    """A category in a run and on average; shares from 0 to 1. `z` is None if nothing can be compared."""

    label: str
    count: int
    share: float
    usual: float | None
    z: float | None

    @property
    def unusual(self) -> bool:
        """Whether the difference is larger than chance."""
        return self.z is not None and abs(self.z) > UNUSUAL_FROM


def compare(current: Mapping[str, int], earlier: Sequence[Mapping[str, int]]) -> list[CategoryShare]:
    """Every category of the run and of the earlier runs, the most frequent first. Counts by label in, shares out."""
    runs = [run for run in earlier if sum(run.values())]
    usual: Counter[str] = Counter()
    for run in runs:
        usual.update(run)
    labels = sorted({*current, *usual}, key=lambda label: (-current.get(label, 0), -usual[label], label))
    return [_share(label, current, runs, usual) for label in labels]


def _share(
    label: str, current: Mapping[str, int], runs: Sequence[Mapping[str, int]], usual: Mapping[str, int]
) -> CategoryShare:
    """The z-score is that of two proportions.

    The variance of another run's share about the mean of the earlier runs is a lower bound of the chance variance.
    """
    total, total_usual = sum(current.values()), sum(usual.values())
    count = current.get(label, 0)
    share = count / total if total else 0.0
    usual_share = usual[label] / total_usual if total_usual else None
    z = None
    if usual_share is not None and min(total, total_usual) >= LEAST_ITEMS:
        pooled = (count + usual[label]) / (total + total_usual)
        chance = pooled * (1 - pooled) * (1 / total + 1 / total_usual)
        totals = [(run.get(label, 0), sum(run.values())) for run in runs]
        shares = [part / whole for part, whole in totals if whole >= LEAST_ITEMS]
        if len(shares) >= _LEAST_RUNS_FOR_VARIANCE:
            chance = max(chance, variance(shares) * (1 + 1 / len(shares)))
        z = (share - usual_share) / math.sqrt(chance) if chance else 0.0
    return CategoryShare(label=label, count=count, share=share, usual=usual_share, z=z)


_REASONS: Final = {
    "image_missing": marked("Empty file"),
    "image_too_large": marked("File too large"),
    "image_too_many_pixels": marked("Too many pixels"),
    "image_too_small": marked("Image too small"),
    "image_unsupported": marked("Not a photo"),
    "image_needs_extra": marked("Format not installed"),
    "image_corrupt": marked("Damaged photo"),
    "image_decoder_failed": marked("The decoder failed"),
    "image_changed": marked("Photo changed in the store"),
    "image_gone": marked("Photo missing"),
    "internal_error": marked("Unexpected error"),
}
"""Headings of the reasons; other codes are shown as text."""


class WriteReport:
    """Renders and stores reports. Blocks. `version` is that of the program, `language_tag` the language of its texts.

    `public_url` is where people reach the server. Without it a file has no links: they would lead nowhere.
    `label_names` are what people call the labels of each channel.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        images: ImageStore,
        *,
        clock: Callable[[], datetime],
        public_url: str | None = None,
        version: str = "",
        language_tag: str = DEFAULT,
        label_names: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._label_names = label_names or {}
        self._public_url = public_url
        self._database = database
        self._store = store
        self._images = images
        self._clock = clock
        self._version = version
        self.language_tag = language_tag
        """In which the reports of this program are."""

    def render(self, run_id: str, *, console: str | None = None, server: str | None = None) -> str:
        """The page with the current data.

        Links lead to `console`, the address of the channel's pages; by default to those below `public_url`, else below
        `server`, the address that the reader reached. Raises RunNotFound, and RequestInvalid for an invalid address.
        """
        if console is not None and not console.startswith(("http://", "https://")):
            raise RequestInvalid(
                f"{console!r} is not an address of the console. It must start with http:// or https://."
            )
        token = language.set(self.language_tag)
        try:
            return self._rendered(run_id, console, server)
        finally:
            language.reset(token)

    def _rendered(self, run_id: str, console: str | None, server: str | None) -> str:
        with self._database.reading() as tx:
            facts = gather(tx, RunRepository(tx).get(run_id), now=self._clock())
        # All highlighted categories, and the most frequent of the others.
        unusual = [each.label for each in facts.mix if each.unusual][:_MOST_CATEGORIES]
        others = [each.label for each in facts.mix if not each.unusual][: _MOST_CATEGORIES - len(unusual)]
        return _environment().get_template("report.html").render(
            facts=facts, run=facts.run, counts=facts.counts, sums=facts.accounting, states=ItemState,
            mix=[each for each in facts.mix if each.label in {*unusual, *others}],
            categories_left_out=len(facts.mix) - len(unusual) - len(others),
            method=gettext(METHOD, errors=f"{UNUSUAL_FROM:g}", items=LEAST_ITEMS, runs=COMPARED_RUNS),
            picture=_Pictures(self._database, self._images),
            names=self._label_names.get(facts.run.channel, {}),
            console=self._console(facts.run.channel, console, server),
            version=self._version,
            language=self.language_tag,
        )  # fmt: skip

    def _console(self, channel: str, console: str | None, server: str | None) -> str | None:
        base = self._public_url or server
        if console is None and base is not None:
            console = f"{base.rstrip('/')}/console/batch/{channel}"
        return None if console is None else console.rstrip("/")

    def __call__(self, run_id: str) -> str:
        """Write the page to the store and return its key. Raises RunNotFound and StorageUnavailable."""
        key = f"{REPORTS}/{run_id}.html"
        for _ in range(_TRIES):
            seen = self._store.version(key)
            if self._store.put_if(key, self.render(run_id).encode(), seen=seen):
                break
            # Another process wrote it meanwhile, perhaps from older data: render it again.
        with self._database.transaction() as tx:
            if not RunRepository(tx).get(run_id).active:  # the process of an active run records it when the run ends
                RunRepository(tx).set_report(run_id, key)
        return key


def without_pictures(html: bytes) -> bytes:
    """A stored report without its photos, and otherwise as it was: each says that it was removed."""
    lang = _LANGUAGE.search(html)
    token = language.set(lang[1].decode() if lang else DEFAULT)
    try:
        instead = f'<span class="no-picture">{escape(gettext(REMOVED))}</span>'.encode()
    finally:
        language.reset(token)
    return _PICTURE.sub(lambda _: instead, html)


class _Pictures:
    """Small photos of items as `data:` addresses, up to the limit.

    An unavailable store leaves out the photos, not the report.
    """

    def __init__(self, database: Database, images: ImageStore) -> None:
        self._database = database
        self._images = images
        self._left = MOST_PICTURES

    def __call__(self, item: BatchItem) -> str | None:
        if not self._left:
            return None
        try:
            photo = open_photo(self._database, self._images, item.id, ImageSize.THUMBNAIL)
            data = self._images.thumbnail(photo.data, _PICTURE_SIDE)
        except (ImageNotKept, ItemNotFound, SampleError):
            return None
        except StorageUnavailable as error:
            _log.warning("report.pictures_left_out", reason=str(error))
            self._left = 0
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
    add_messages(environment)
    environment.filters.update(_FILTERS)
    return environment


def _short(text: str) -> str:
    """Bounds foreign text, without control characters such as those that change the reading direction."""
    shown = "".join(sign for sign in text if sign.isprintable())
    return shown if len(shown) <= _LONGEST_TEXT else f"{shown[: _LONGEST_TEXT - 1]}…"


_FILTERS: Final[dict[str, Callable[..., str]]] = {
    "answers": answer_words,
    "day": lambda when: long_day(when.astimezone(UTC)),
    "duration": duration,
    "instant": lambda when: f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    "moment": lambda when: plain_time(when.astimezone(UTC)),
    "figure": lambda value, form: localised(form.format(value)),
    "number": whole_number,
    "percent": lambda share: localised("<0.1%" if 0 < share < 0.001 else f"{share * 100:.1f}%"),
    "rate": lambda per_minute: localised(f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.1f}"),
    "reason_words": lambda code: gettext(_REASONS.get(code, "")) or code.replace("_", " ").capitalize(),
    "short": _short,
    "signed": lambda number: whole_number(number).replace("-", "−"),
    "size": lambda byte_count: localised(humanize.naturalsize(byte_count)),
    "width": lambda share: f"{min(max(share, 0.0), 1.0) * 100:.2f}%",
}
