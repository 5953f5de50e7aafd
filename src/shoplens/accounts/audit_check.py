"""Check the chain of the audit log, and compare its end with one that was noted earlier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoplens.accounts.audit import BEGINNING, AuditEntry
from shoplens.errors import RequestInvalid

_DIGITS: Final = 64
_MOST_FAULTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry at some time: its number and its hash, written `12:3fa…`. 0 with BEGINNING: no entry yet."""

    seq: int
    hash: str

    @classmethod
    def read(cls, text: str) -> Head:
        """Raises RequestInvalid for what is not a head."""
        number, _, digits = text.strip().partition(":")
        if not number.isdecimal() or len(digits) != _DIGITS:
            raise RequestInvalid(
                f"{text[:80]!r} is not the end of a log. `shoplens audit verify` prints it as 12:3fa…."
            )
        return cls(seq=int(number), hash=digits)

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found: the end of the log, and a sentence for every fault, in the order of the rows."""

    head: Head
    faults: tuple[str, ...]


def verify(entries: Iterable[AuditEntry], *, known: Iterable[Head] = ()) -> Verification:
    """Recompute every hash, oldest first. `known` are ends that the log had earlier and that it must still contain."""
    wanted = {head.seq: head for head in known if head.seq}
    faults: list[str] = []
    last = Head(seq=0, hash=BEGINNING)
    for entry in entries:
        head = wanted.pop(entry.seq, None)
        if len(faults) < _MOST_FAULTS:
            faults.extend(_faults(entry, last))
            if head is not None and head.hash != entry.hash:
                faults.append(f"Entry {entry.seq} is not the one that was noted earlier; the log was written again.")
        last = Head(seq=entry.seq, hash=entry.hash)
    faults.extend(
        f"The log ends at entry {last.seq}, but it had an entry {head.seq}: entries were removed from the end."
        if head.seq > last.seq
        else f"Entry {head.seq}, which was noted earlier, is missing."
        for head in wanted.values()
    )
    return Verification(head=last, faults=tuple(faults))


def _faults(entry: AuditEntry, last: Head) -> list[str]:
    """What is wrong between an entry and the one before it."""
    found = []
    if entry.seq > last.seq + 1:
        missing = f"entry {last.seq + 1} is" if entry.seq == last.seq + 2 else f"{last.seq + 1} to {entry.seq - 1} are"
        found.append(f"Before entry {entry.seq}, {missing} missing.")
    elif entry.previous_hash != last.hash:
        found.append(
            f"Entry {entry.seq} does not follow entry {last.seq}: one of the two was changed, inserted or moved."
        )
    if entry.digest() != entry.hash:
        found.append(f"Entry {entry.seq} was changed after it was written.")
    return found


def read_head(file: Path) -> Head | None:
    """The end that the last verification noted in `file`; None where there is none. Raises RequestInvalid, OSError."""
    if not file.exists():
        return None
    return Head.read(file.read_text(encoding="utf-8"))


def write_head(file: Path, head: Head) -> None:
    """Note the end for the next verification. Raises OSError."""
    file.write_text(f"{head}\n", encoding="utf-8")
