"""Count what an ingest does, and say it: every file that was seen is counted once, and odd ones are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shoplens.batch.arrivals import Left, Why
from shoplens.batch.intake import Verdict

_MOST_NOTES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """What became of the files of one visit to a source.

    `taken` wait for the night; `quarantined` are empty or too large; `duplicates` have the content of another item;
    `known` had been taken before, under the same name and with the same content. `not_ready` and `unreadable` were
    left where they are for now, `refused` by the database. Each file is in exactly one of these.
    `not_removed` counts files that are ours and that the source would not let go. `byte_count` is of what was read.
    `notes` are sentences about what needs a person, at most 20 of them and then how many more there are.
    """

    source: str
    taken: int = 0
    duplicates: int = 0
    quarantined: int = 0
    known: int = 0
    not_ready: int = 0
    unreadable: int = 0
    refused: int = 0
    not_removed: int = 0
    byte_count: int = 0
    duration_s: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def seen(self) -> int:
        """Files that were looked at, sidecars and lists apart."""
        settled = self.taken + self.duplicates + self.quarantined + self.known
        return settled + self.not_ready + self.unreadable + self.refused

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers by name."""
        return {
            "taken": self.taken,
            "duplicates": self.duplicates,
            "quarantined": self.quarantined,
            "known": self.known,
            "not_ready": self.not_ready,
            "unreadable": self.unreadable,
            "refused": self.refused,
            "not_removed": self.not_removed,
        }

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "source": self.source,
            **self.counts,
            "byte_count": self.byte_count,
            "duration_s": round(self.duration_s, 3),
            "notes": list(self.notes),
        }


class Tally:
    """Counts for one visit."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._verdicts: Counter[Verdict] = Counter()
        self._left: Counter[Why] = Counter()
        self._not_removed = 0
        self._bytes = 0
        self._notes: list[str] = []
        self._unnamed = 0

    def settle(self, verdict: Verdict, *, byte_count: int) -> None:
        """A file was taken, or turned out to be known."""
        self._verdicts[verdict] += 1
        self._bytes += byte_count

    def leave(self, left: Left) -> None:
        """A file stays where it is. Only what will not pass by itself is named."""
        self._left[left.why] += 1
        if left.why is Why.UNREADABLE:
            self.note(f"{left.name} could not be read: {left.reason}.")

    def keep(self) -> None:
        """A file that is ours could not be removed."""
        self._not_removed += 1

    def note(self, sentence: str) -> None:
        """Something that a person should know."""
        if len(self._notes) < _MOST_NOTES:
            self._notes.append(sentence)
        else:
            self._unnamed += 1

    def summary(self, *, duration_s: float) -> IngestSummary:
        """As it stands."""
        return IngestSummary(
            source=self._source,
            taken=self._verdicts[Verdict.TAKEN],
            duplicates=self._verdicts[Verdict.DUPLICATE],
            quarantined=self._verdicts[Verdict.QUARANTINED],
            known=self._verdicts[Verdict.KNOWN],
            refused=self._verdicts[Verdict.REFUSED],
            not_ready=self._left[Why.NOT_READY],
            unreadable=self._left[Why.UNREADABLE],
            not_removed=self._not_removed,
            byte_count=self._bytes,
            duration_s=duration_s,
            notes=tuple(self._all_notes()),
        )

    def _all_notes(self) -> list[str]:
        notes = list(self._notes)
        if self._not_removed:
            notes.insert(
                0,
                f"{_files(self._not_removed)} could not be removed from the source. What was taken is not taken again. "
                "Let this user write there, or say --keep-source.",
            )
        return [*notes, f"{self._unnamed} more notes are left out."] if self._unnamed else notes


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
