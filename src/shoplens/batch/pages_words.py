"""Turn runs and returned items into the words and numbers that people read on the pages. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoplens.batch.browse import RunView
from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunState
from shoplens.batch.importer import ImportStatus
from shoplens.batch.status import OwnerState
from shoplens.errors import ShoplensError

STATE_WORDS: Final = {
    ItemState.WAITING: "Waiting",
    ItemState.PROCESSING: "In work",
    ItemState.DONE: "Done",
    ItemState.NEEDS_REVIEW: "Doubtful",
    ItemState.QUARANTINED: "Set aside",
    ItemState.DUPLICATE: "Duplicate",
}
RUN_WORDS: Final = {
    RunState.REQUESTED: "Starting",
    RunState.RUNNING: "Running",
    RunState.FINISHED: "Finished",
    RunState.FINISHED: "Failed",
}

_OTHER_KEYS: Final = "1234567890abcdefghilmnpqrstvwxz"
"""Without those that the gallery itself listens to: j k o u y."""
MOST_CHOICES: Final = len(_OTHER_KEYS)
_MOST_OF_MANY: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A category that a correction can pick, with the key that picks it."""

    label: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is amiss with a run, said plainly. `kind` is how loud: done, warn or error; `resumable`: a click helps."""

    kind: str
    sentence: str
    resumable: bool = False


def state_word(state: ItemState) -> str:
    """Where an item stands."""
    return STATE_WORDS[state]


def run_word(run: BatchRun) -> str:
    """Where a run stands."""
    return RUN_WORDS[run.state]


def count(number: int) -> str:
    """1204 is "1,204"."""
    return f"{number:,}"


def photos(number: int) -> str:
    """1 is "1 photo", 1204 is "1,204 photos"."""
    return f"{number:,} photo" if number == 1 else f"{number:,} photos"


def duration(seconds: float) -> str:
    """Rounded to what one wants to know: "40 s", "12 min", "2 h 5 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes and hours < 24 else f"{hours} h"


def rate(per_second: float) -> str:
    """In the unit that gives a number one can grasp."""
    if per_second >= 1:
        return f"{per_second:.0f} per second" if per_second >= 9.95 else f"{per_second:.1f} per second"
    return f"{per_second * 60:.0f} per minute" if per_second * 60 >= 1 else f"{per_second * 3600:.0f} per hour"


def took(run: BatchRun) -> str:
    """How long a run took; "" while it has no end."""
    if run.started_at is None or run.finished_at is None:
        return ""
    return duration(max(0.0, (run.finished_at - run.started_at).total_seconds()))


def share(part: int, whole: int) -> str:
    """A part as a percentage for drawing."""
    return f"{100 * part / whole:.3f}%" if whole else "0%"


def references(item: BatchItem) -> str:
    """What the shop calls it, in one line; the file's name where it has no other."""
    named = (("Order", item.references.order), ("item", item.references.item))
    words = ", ".join(f"{kind} {text}" for kind, text in named if text)
    return words[:1].upper() + words[1:] if words else item.source_name


def progress_words(view: RunView) -> dict[str, str]:
    """What changes while a run goes on, each under the name of its place on the page."""
    counts = {state.value: count(view.counts[state]) for state in ItemState}
    return {
        **counts,
        "state": run_word(view.run),
        "settled": count(view.settled),
        "planned": photos(view.run.planned),
        "percent": f"{100 * view.progress:.0f}%",
        "pace": pace(view),
    }


def pace(view: RunView) -> str:
    """Speed, time left and last sign of progress in one line."""
    parts = []
    if view.rate_per_s:
        parts.append(rate(view.rate_per_s))
    if view.run.active and view.seconds_left is not None:
        parts.append(f"about {duration(view.seconds_left)} left")
    if view.run.active and view.last_item_ago_s is not None:
        parts.append(f"last photo finished {duration(view.last_item_ago_s)} ago")
    if not view.run.active and took(view.run):
        parts.append(f"took {took(view.run)}")
    return " · ".join(parts)


def condition(run: BatchRun, owner: OwnerState, *, trouble: str | None, now: datetime) -> Condition | None:
    """What a person should know of a run that does not simply go on; None where all is well."""
    why = run.failure or trouble or ""
    if run.state is RunState.FINISHED:
        return Condition(kind="error", sentence=f"This run ended without success. {why}".strip())
    if not run.active:
        return None
    if owner is OwnerState.GONE:
        sentence = "The process that worked on this run is gone. Nothing is lost: it goes on where it stopped."
        return Condition(kind="error", sentence=f"{sentence} {why}".strip(), resumable=True)
    if owner is OwnerState.NOBODY and why:
        return Condition(kind="error", sentence=f"Nobody works on this run just now. {why}", resumable=True)
    if owner is OwnerState.SILENT:
        return Condition(kind="warn", sentence=_silent(run, now))
    return Condition(kind="warn", sentence=_stalled(run, now)) if run.stalled else None


def import_words(status: ImportStatus | None) -> str:
    """The running or last import in two or three words; "" before the first."""
    if status is None:
        return ""
    taken = status.summary.taken if status.summary else 0
    if status.running:
        return f"{count(taken)} so far …"
    return "Failed" if status.error else photos(taken)


def import_notice(status: ImportStatus) -> Condition:
    """What an import did."""
    if status.running:
        return Condition(kind="done", sentence="Photos are being imported.")
    if isinstance(status.error, ShoplensError):
        return Condition(kind="error", sentence=str(status.error))
    if status.error is not None:
        return Condition(kind="error", sentence="The import failed because of an internal error. See the log.")
    summary = status.summary
    if summary is None or summary.seen == 0:
        return Condition(kind="done", sentence="No new photos.")
    imported = f"{photos(summary.taken)} imported and ready to classify" if summary.taken else "No new photos"
    others = (
        (summary.duplicates, "duplicate" if summary.duplicates == 1 else "duplicates"),
        (summary.known, "already imported"),
        (summary.quarantined, "quarantined"),
        (summary.not_ready, "still being written (retry in a few seconds)"),
        (summary.unreadable + summary.refused, "could not be imported"),
    )
    sentence = ", ".join((imported, *(f"{count(number)} {words}" for number, words in others if number)))
    return Condition(kind="done", sentence=" ".join((f"{sentence}.", *summary.notes)))


def keyed(labels: Sequence[str]) -> list[Choice]:
    """A key for each label: its first letter where that is free, else another of its letters, else any.

    The same labels always get the same keys. Those beyond `MOST_CHOICES` are left out.
    """
    free = set(_OTHER_KEYS)
    chosen: dict[str, str] = {}
    for pick in (_first_letter, _any_letter, _any_key):
        for label in labels[:MOST_CHOICES]:
            key = None if label in chosen else pick(label, free)
            if key is not None:
                chosen[label] = key
                free.discard(key)
    return [Choice(label=label, key=chosen[label]) for label in labels[:MOST_CHOICES]]


def offered(labels: Sequence[str], counts: Mapping[tuple[ItemState, str], int]) -> list[str]:
    """The labels that are worth a key, in alphabetical order: all, or of very many those that occur most often."""
    if len(labels) <= MOST_CHOICES:
        return sorted(labels)
    totals: dict[str, int] = {}
    for (_, label), number in counts.items():
        totals[label] = totals.get(label, 0) + number
    most = sorted(totals, key=lambda label: (-totals[label], label))[:_MOST_OF_MANY]
    return sorted(most)


def _stalled(run: BatchRun, now: datetime) -> str:
    return (
        f"The process lives, but no photo has come to an end{_for(run.last_item_at or run.started_at, now)}. "
        "The log of the night says more."
    )


def _silent(run: BatchRun, now: datetime) -> str:
    where = f" on {run.host}" if run.host else ""
    return (
        f"The process{where} has given no sign of life{_for(run.heartbeat_at, now)}. "
        "Another start of a run takes over what is left."
    )


def _for(since: datetime | None, now: datetime) -> str:
    return f" for {duration(max(0.0, (now - since).total_seconds()))}" if since else ""


def _first_letter(label: str, free: set[str]) -> str | None:
    first = label[:1].lower()
    return first if first in free else None


def _any_letter(label: str, free: set[str]) -> str | None:
    return next((letter for letter in label.lower() if letter in free), None)


def _any_key(_: str, free: set[str]) -> str | None:
    return next((key for key in _OTHER_KEYS if key in free), None)
