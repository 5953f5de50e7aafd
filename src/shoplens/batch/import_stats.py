"""Count the files of one import, and note what needs attention."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from shoplens.batch.item_writer import ImportOutcome
from shoplens.batch.sources import SkippedFile, SkipReason

_MOST_NAMES: Final = 5
_MAX_NOTES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What became of the files of one import. Each file is in one of the counts, except for `not_removed`.

    `taken` wait for a run; `quarantined` are empty or too large; `duplicates` have the content of another item;
    `known` were imported before, under the same name with the same content. `not_ready`, `unreadable` (also lines of a
    manifest) and `refused` (by the database) stay where they are. `not_removed` were imported but could not be removed
    from the source. `byte_count` is what was read. `notes` are at most 21 sentences about what needs attention.
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
    def counts(self) -> dict[str, int]:
        """The numbers of files by name."""
        return {name: getattr(self, name) for name in _COUNTS}

    @property
    def seen(self) -> int:
        """Files that were looked at, without sidecars and lists."""
        return sum(self.counts.values()) - self.not_removed

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "source": self.source,
            **self.counts,
            "byte_count": self.byte_count,
            "duration_s": round(self.duration_s, 3),
            "notes": list(self.notes),
        }


_COUNTS: Final = (
    "taken", "duplicates", "quarantined", "known", "not_ready", "unreadable", "refused", "not_removed",
)  # fmt: skip
OnProgress = Callable[[ImportSummary], None]


class ImportStats:
    """Counts the files of one import."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._began_s = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._byte_count = 0
        self._notes: list[str] = []
        self._omitted = 0
        self._left: list[str] = []

    def add(self, outcome: ImportOutcome, *, byte_count: int = 0) -> None:
        """A file of which `byte_count` bytes were read."""
        self._counts[outcome.value] += 1
        self._byte_count += byte_count

    def skip(self, skipped: SkippedFile) -> None:
        """A file that stays in the source. Only what needs attention is noted."""
        self._counts[skipped.reason.value] += 1
        if skipped.reason is SkipReason.UNREADABLE:
            self.note(f"{skipped.name} could not be read: {skipped.detail}.")

    def not_removed(self, name: str) -> None:
        """An imported file that could not be removed."""
        self._counts["not_removed"] += 1
        if len(self._left) < _MOST_NAMES:
            self._left.append(name)

    def note(self, sentence: str) -> None:
        """Something that needs attention. Thread-safe."""
        if len(self._notes) < _MAX_NOTES:
            self._notes.append(sentence)
        else:
            self._omitted += 1

    def summary(self) -> ImportSummary:
        """The counts so far."""
        notes = list(self._notes)
        if count := self._counts["not_removed"]:
            files = "1 file" if count == 1 else f"{count} files"
            names = ", ".join(self._left) + (", …" if count > len(self._left) else "")
            notes.insert(
                0,
                f"{files} could not be removed from the source: {names}. They will not be imported twice. "
                "Allow this user to write there, or use --keep-source.",
            )
        if self._omitted:
            notes.append(f"{self._omitted} more notes were omitted.")
        return ImportSummary(
            source=self._source,
            **{name: self._counts[name] for name in _COUNTS},
            byte_count=self._byte_count,
            duration_s=time.monotonic() - self._began_s,
            notes=tuple(notes),
        )
