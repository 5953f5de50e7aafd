"""Runs and items in the words of pages and commands, and the filter in the address of a page. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from shoplens.batch.browse import RunView
from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState, RunState
from shoplens.batch.import_stats import ImportSummary
from shoplens.batch.importer import ImportStatus
from shoplens.batch.status import OwnerState, RunStatus
from shoplens.errors import RequestInvalid, ShoplensError
from shoplens.messages import gettext, localised, marked, ngettext, whole_number
from shoplens.predictions.entities import Answer

STATE_WORDS: Final = {
    ItemState.WAITING: marked("Waiting"),
    ItemState.PROCESSING: marked("Processing"),
    ItemState.DONE: marked("Done"),
    ItemState.NEEDS_REVIEW: marked("Needs review"),
    ItemState.QUARANTINED: marked("Quarantined"),
    ItemState.DUPLICATE: marked("Duplicate"),
    ItemState.DISMISSED: marked("Dismissed"),
}
RUN_WORDS: Final = {
    RunState.REQUESTED: marked("Starting"),
    RunState.RUNNING: marked("Running"),
    RunState.FINISHED: marked("Finished"),
}

ANSWER_WORDS: Final = {
    Answer.CONFIRMED: marked("Confirmed"),
    Answer.CORRECTED: marked("Corrected"),
    Answer.NONE_OF_THESE: marked("None of these"),
    Answer.NOT_USABLE: marked("Not usable"),
}

_SAID_WORDS: Final = {
    Answer.CONFIRMED: marked("confirmed"),
    Answer.CORRECTED: marked("corrected"),
    Answer.NONE_OF_THESE: marked("none of these"),
    Answer.NOT_USABLE: marked("not usable"),
}

ALL_STATES: Final = "all"
LEAST_SURE: Final = "least-sure"
REQUESTERS: Final = (marked("command line"), marked("page"))
"""Who asks for a run where no name is given; templates show them in the language of the page."""
_LONGEST_FILTER: Final = 200
_LARGEST_CURSOR: Final = 1 << 63
_OTHER_KEYS: Final = "14567890abcdefghilmpqrtvw"
"""Without the keys of the gallery itself: 2 3 j k n o s u x y z."""
MOST_CHOICES: Final = len(_OTHER_KEYS)
_MOST_OF_MANY: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A category that a reviewer can choose, with its key."""

    label: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A sentence above the content. `kind` is done, warn or error; `resumable`: a button resumes the run."""

    kind: str
    sentence: str
    resumable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemBar:
    """The filter of a run's page. Addresses always name the state, since the default state depends on the run."""

    channel: str
    wanted: ItemFilter
    least_sure: bool = False
    """Whether what the model is least sure of comes first: for items that need review."""

    @property
    def narrowed(self) -> bool:
        """Whether there is a filter besides the state."""
        return self.wanted.label is not None or self.wanted.text is not None

    def address(self, *, state: str | None = None, label: str | None = None, **more: str | int) -> str:
        """The address of the first page with another state or label ("" removes the label)."""
        wanted = self.wanted
        if label is not None:
            wanted = replace(wanted, label=label or None)
        parameters = {
            "state": state or (wanted.state.value if wanted.state else ALL_STATES),
            "label": wanted.label,
            "text": wanted.text,
            "skipped": "1" if wanted.skipped else None,
            "sort": LEAST_SURE if self.least_sure else None,
            **more,
        }
        query = urlencode({name: value for name, value in parameters.items() if value is not None})
        return f"/console/batch/{self.channel}/{wanted.run_id}?{query}"


def read_bar(query: Mapping[str, str], view: RunView) -> ItemBar:
    """The filter in a query. Without a state: needs review if there are such items, else done while the run is active,
    else all. Raises RequestInvalid.
    """
    text = _text(query, "state")
    if text is None:
        state = ItemState.DONE if view.run.active else None
        if view.counts[ItemState.NEEDS_REVIEW]:
            state = ItemState.NEEDS_REVIEW
    elif text == ALL_STATES:
        state = None
    elif text in set(ItemState):
        state = ItemState(text)
    else:
        known = ", ".join((*ItemState, ALL_STATES))
        raise RequestInvalid(f"{text!r} is not a state. States: {known}.")
    wanted = ItemFilter(
        run_id=view.run.id,
        state=state,
        label=_text(query, "label"),
        text=_text(query, "text"),
        skipped=state is ItemState.NEEDS_REVIEW and _text(query, "skipped") is not None,
    )
    least_sure = wanted.state is ItemState.NEEDS_REVIEW and _text(query, "sort") == LEAST_SURE
    return ItemBar(channel=view.run.channel, wanted=wanted, least_sure=least_sure)


def read_cursor(query: Mapping[str, str], name: str) -> int | None:
    """The number in `before` or `after`. Raises RequestInvalid."""
    text = _text(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < _LARGEST_CURSOR):
        raise RequestInvalid("This page of photos does not exist. Start again with the newest ones.")
    return int(text)


def read_score_cursor(query: Mapping[str, str]) -> tuple[float, int] | None:
    """Score and number of the last item that was shown, as in `0.4312~88`. Raises RequestInvalid."""
    text = _text(query, "surer")
    if text is None:
        return None
    score, _, seq = text.partition("~")
    try:
        found = float(score), int(seq)
    except ValueError:
        found = math.nan, 0
    if not (math.isfinite(found[0]) and 0 <= found[1] < _LARGEST_CURSOR):
        raise RequestInvalid("This page of photos does not exist. Start again with the least sure ones.")
    return found


def _text(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name, "").replace("\x00", "").strip()
    if len(text) > _LONGEST_FILTER:
        raise RequestInvalid(f"The filter {name!r} is longer than {_LONGEST_FILTER} characters.")
    return text or None


def answer_word(item: BatchItem) -> str:
    """What a person said of an item; "" if nobody did."""
    return "" if item.answer is None else gettext(ANSWER_WORDS[item.answer])


def state_word(state: ItemState) -> str:
    """The state of an item."""
    return gettext(STATE_WORDS[state])


def run_word(run: BatchRun) -> str:
    """The state of a run."""
    return gettext("Cancelled") if run.cancelled else gettext(RUN_WORDS[run.state])


def count(number: int) -> str:
    """1204 is "1,204"."""
    return whole_number(number)


def need_you(number: int) -> str:
    """What waits for people: "1 photo needs you", "1,204 photos need you"."""
    return ngettext("%(number)s photo needs you", "%(number)s photos need you", number)


def photos(number: int) -> str:
    """1 is "1 photo", 1204 is "1,204 photos"."""
    return ngettext("%(number)s photo", "%(number)s photos", number)


def duration(seconds: float) -> str:
    """Rounded: "0.4 s", "40 s", "12 min", "2 h 5 min"."""
    if seconds < 0.95:
        return localised(f"{max(seconds, 0.1):.1f} s")
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes and hours < 24 else f"{hours} h"


def rate(per_second: float) -> str:
    """Per second, minute or hour, so that the number is at least 1."""
    if per_second >= 1:
        figure = localised(f"{per_second:.0f}" if per_second >= 9.95 else f"{per_second:.1f}")
        return gettext("%(number)s per second", number=figure)
    if per_second * 60 >= 1:
        return gettext("%(number)s per minute", number=f"{per_second * 60:.0f}")
    return gettext("%(number)s per hour", number=f"{per_second * 3600:.0f}")


def time_left(moment: datetime) -> str:
    """How long until a moment, like "in 5 h"."""
    minutes = max(1, math.ceil((moment - datetime.now(UTC)).total_seconds() / 60))
    if minutes < 90:
        return gettext("in %(minutes)s min", minutes=minutes)
    if minutes < 48 * 60:
        return gettext("in %(hours)s h", hours=round(minutes / 60))
    return gettext("in %(days)s days", days=round(minutes / 1440))


def took(run: BatchRun) -> str:
    """How long a run took; "" for an active run."""
    if run.started_at is None or run.finished_at is None:
        return ""
    return duration(max(0.0, (run.finished_at - run.started_at).total_seconds()))


def share(part: int, whole: int) -> str:
    """A part as a percentage, for a bar."""
    return f"{100 * part / whole:.3f}%" if whole else "0%"


def references(item: BatchItem) -> str:
    """Order and item number in one line; without them the name of the file."""
    named = ((gettext("Order"), item.references.order), (gettext("item"), item.references.item))
    words = ", ".join(f"{kind} {text}" for kind, text in named if text)
    return words[:1].upper() + words[1:] if words else item.source_name


def progress_words(view: RunView) -> dict[str, str]:
    """The texts that change during a run, by their place on the page."""
    counts = {state.value: count(view.counts[state]) for state in ItemState}
    return {
        **counts,
        "received": count(view.counts.received),
        "reviewed": gettext("Reviewed: %(answer_words)s", answer_words=answer_words(view.answers))
        if view.answers
        else "",
        "state": run_word(view.run),
        "settled": count(view.settled),
        "planned": photos(view.run.planned),
        "percent": localised(f"{100 * view.progress:.0f}%"),
        "pace": pace(view),
    }


def pace(view: RunView) -> str:
    """Rate, time left and age of the last result in one line."""
    parts = []
    if view.rate_per_s:
        parts.append(rate(view.rate_per_s))
    if view.run.active and view.seconds_left is not None:
        parts.append(gettext("about %(duration)s left", duration=duration(view.seconds_left)))
    if view.run.active and view.last_item_ago_s is not None:
        parts.append(gettext("last photo finished %(duration)s ago", duration=duration(view.last_item_ago_s)))
    if not view.run.active and took(view.run):
        parts.append(gettext("took %(duration)s", duration=took(view.run)))
    return " · ".join(parts)


def run_notice(run: BatchRun, owner: OwnerState, *, trouble: str | None, now: datetime) -> Notice | None:
    """What is wrong with an active run; None for a run that proceeds or is finished. `trouble` is of a failed start."""
    why = run.failure or trouble or ""
    if not run.active:
        return None
    if owner is OwnerState.GONE:
        sentence = gettext("The worker stopped. No data was lost; resume to continue.")
        return Notice(kind="error", sentence=f"{sentence} {why}".strip(), resumable=True)
    if owner is OwnerState.NOBODY and why:
        return Notice(kind="error", sentence=gettext("This run has no worker. %(why)s", why=why), resumable=True)
    if owner is OwnerState.SILENT:
        host = gettext(" from %(host)s", host=run.host) if run.host else ""
        sentence = gettext(
            "No heartbeat%(host)s%(since)s. Start a run to take over.", host=host, since=_for(run.heartbeat_at, now)
        )
        return Notice(kind="warn", sentence=sentence)
    if run.stalled:
        stalled = _for(run.last_item_at or run.started_at, now)
        return Notice(
            kind="warn",
            sentence=gettext(
                "The run is stalled: no photo finished%(stalled)s. See the log of the run.", stalled=stalled
            ),
        )
    return None


def _for(since: datetime | None, now: datetime) -> str:
    return gettext(" for %(duration)s", duration=duration(max(0.0, (now - since).total_seconds()))) if since else ""


def left_behind(summary: ImportSummary) -> int:
    """Files that need somebody's attention: not readable, refused by the database, or not removable."""
    return summary.unreadable + summary.refused + summary.not_removed


def import_words(status: ImportStatus | None) -> str:
    """The running or last import in two or three words; "" before the first."""
    if status is None:
        return ""
    taken = status.summary.taken if status.summary else 0
    if status.running:
        return gettext("%(count)s so far …", count=count(taken))
    if status.error:
        return gettext("Failed")
    left = left_behind(status.summary) if status.summary else 0
    return (
        gettext("%(photos)s, %(count)s left behind", photos=photos(taken), count=count(left)) if left else photos(taken)
    )


def import_notice(status: ImportStatus) -> Notice:
    """The outcome of an import."""
    if status.running:
        return Notice(kind="done", sentence=gettext("Photos are being imported."))
    if isinstance(status.error, ShoplensError):
        return Notice(kind="error", sentence=status.error.notice)
    if status.error is not None:
        return Notice(kind="error", sentence=gettext("The import failed because of an internal error. See the log."))
    summary = status.summary
    if summary is None or summary.seen == 0:
        return Notice(kind="done", sentence=gettext("No new photos."))
    imported = (
        gettext("%(photos)s imported and ready to classify", photos=photos(summary.taken))
        if summary.taken
        else gettext("No new photos")
    )
    others = (
        (summary.duplicates, ngettext("duplicate", "duplicates", summary.duplicates)),
        (summary.known, gettext("already imported")),
        (summary.quarantined, gettext("quarantined")),
        (summary.not_ready, gettext("still being written (retry in a few seconds)")),
        (summary.unreadable, gettext("could not be read")),
        (summary.refused, gettext("refused by the database")),
        (summary.not_removed, gettext("imported but not removed")),
    )
    sentence = ", ".join((imported, *(f"{count(number)} {words}" for number, words in others if number)))
    return Notice(kind="warn" if left_behind(summary) else "done", sentence=" ".join((f"{sentence}.", *summary.notes)))


def keyed(labels: Sequence[str]) -> list[Choice]:
    """A key for each label: its first letter if it is free, else another of its letters, else any.

    The same labels always get the same keys. Labels beyond `MOST_CHOICES` are left out.
    """
    free = dict.fromkeys(_OTHER_KEYS)
    chosen: dict[str, str] = {}
    for candidates in (lambda label: label[:1].lower(), str.lower, lambda _: _OTHER_KEYS):
        for label in labels[:MOST_CHOICES]:
            key = None if label in chosen else next((each for each in candidates(label) if each in free), None)
            if key is not None:
                chosen[label] = key
                del free[key]
    return [Choice(label=label, key=chosen[label]) for label in labels[:MOST_CHOICES]]


def offered(labels: Sequence[str], counts: Mapping[tuple[ItemState, str], int]) -> list[str]:
    """The labels that get a key, in alphabetical order: all, or the most frequent ones of very many."""
    if len(labels) <= MOST_CHOICES:
        return sorted(labels)
    return sorted([label for label, _ in categories(counts, None)[:_MOST_OF_MANY]])


def categories(counts: Mapping[tuple[ItemState, str], int], state: ItemState | None) -> list[tuple[str, int]]:
    """The categories that occur in a state (None: in any), the most frequent first, with their counts."""
    totals: dict[str, int] = {}
    for (of, label), number in counts.items():
        if state is None or of is state:
            totals[label] = totals.get(label, 0) + number
    return sorted(totals.items(), key=lambda entry: (-entry[1], entry[0]))


# On the command line


def status_sentences(status: RunStatus) -> Iterator[str]:
    """The status of a channel, the most important facts first."""
    run = status.run
    if run is None:
        yield f"No runs yet. {items_wait(status.waiting)}."
        return
    yield f"Run {run.id}: {_owner_words(status, run) if run.active else run.state.value}."
    if run.active:
        yield f"{status.processed}/{run.planned} processed."
    yield f"{count_words(status)}."
    if status.answers:
        yield f"Reviewed: {answer_words(status.answers)}."
    if status.last_item_ago_s is not None:
        yield f"Last item finished {duration(status.last_item_ago_s)} ago."
    if run.active and status.per_second and status.seconds_left is not None:
        yield f"{status.per_second:.1f} items/s, about {duration(status.seconds_left)} left."
    if run.failure:
        yield f"The last attempt was interrupted: {run.failure}"
    if not run.active and status.waiting:
        yield f"{items_wait(status.waiting)} for the next run."


def _owner_words(status: RunStatus, run: BatchRun) -> str:
    process = f"process {run.pid} on {run.host}"
    match status.owner:
        case OwnerState.NOBODY:
            return "no process works on it; the next `shoplens batch run` resumes it"
        case OwnerState.GONE:
            return f"{process} has ended; the next `shoplens batch run` resumes it"
        case OwnerState.SILENT:
            ago = duration(status.last_sign_ago_s or 0.0)
            return f"no heartbeat from {process} for {ago}; the next `shoplens batch run` takes it over"
        case OwnerState.ALIVE:
            return f"{process} works on it" + (", but it is STALLED: no item finishes" if run.stalled else "")


def count_words(status: RunStatus) -> str:
    """What became of everything that a run accounts for, like "Received 92: 53 done, 39 need review"."""
    counts = status.counts
    phrases = (
        (ItemState.WAITING, "waiting"),
        (ItemState.PROCESSING, "processing"),
        (ItemState.DONE, "done"),
        (ItemState.NEEDS_REVIEW, "needs review" if counts[ItemState.NEEDS_REVIEW] == 1 else "need review"),
        (ItemState.QUARANTINED, "quarantined"),
        (ItemState.DISMISSED, "dismissed"),
        (ItemState.DUPLICATE, "duplicate" if counts[ItemState.DUPLICATE] == 1 else "duplicates"),
    )
    parts = ", ".join(f"{counts[state]} {words}" for state, words in phrases if counts[state])
    return f"Received {counts.received}: {parts}" if parts else "No photos"


def items_wait(number: int) -> str:
    """Like "1 item waits"."""
    return "1 item waits" if number == 1 else f"{count(number)} items wait"


def answer_words(answers: Mapping[Answer, int]) -> str:
    """What people said, like "3 confirmed, 1 none of these"."""
    return ", ".join(
        f"{whole_number(answers[each])} {gettext(_SAID_WORDS[each])}" for each in Answer if answers.get(each)
    )
