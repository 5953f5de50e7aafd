"""What a place from which photos are brought in offers: folders of files that may be read whole and then removed.

`LocalSource` and `ObjectSource` are such places. Nothing that is offered is half written, and nothing that changed
since it was offered is ever read as if it had not, or removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Why(StrEnum):
    """Why a file is left where it is for now."""

    NOT_READY = "not_ready"
    """It was changed a moment ago, is open for writing, changed while it was read, or is gone."""
    UNREADABLE = "unreadable"
    """The system refuses it to this user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A file that is not taken now; `reason` is a clause for people."""

    name: str
    why: Why
    reason: str


class Arrival(Protocol):
    """One file, as it was when it was listed. `name` is its path in the source, readable and with slashes.

    `stamp` changes whenever the file does. `changed_ms` (since 1970) is when it last did, or came to its place.
    """

    name: str
    byte_count: int
    changed_ms: int
    stamp: str

    def read(self) -> bytes | Left:
        """All of it."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """All of it, a piece in memory at a time. Raises SourceUnavailable when it changed or cannot be read."""
        ...

    def remove(self) -> bool:
        """Remove it unless it changed. False where the source does not let itself be changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A photo with its sidecar, the file `photo.jpg.json` beside it, if there is one."""

    photo: Arrival
    sidecar: Arrival | None


class Folder(Protocol):
    """Files that lie together. Hidden and unfinished files, links and devices are never among them."""

    def offers(self) -> Iterator[Offer | Left]:
        """Everything that is no sidecar or list, one after the other."""
        ...

    def sidecars(self) -> Iterator[Arrival | Left]:
        """The `.json` and `.csv` files as they are now."""
        ...

    def present(self, names: Collection[str]) -> set[str]:
        """Those of these files (paths in the source) that are there now."""
        ...


class Source(Protocol):
    """A place with folders. Every verb raises SourceUnavailable when the place as a whole cannot be read."""

    place: str

    def folders(self) -> Iterator[Folder | Left]:
        """Every folder at any depth; one that cannot be read is `Left`."""
        ...
