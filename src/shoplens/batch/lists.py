"""What the lists of a folder tell about its photos, and whether they have told all: folder in, references out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from shoplens.batch.arrivals import Arrival, Folder, Left
from shoplens.batch.entities import References
from shoplens.batch.names import told_photo
from shoplens.batch.references import (
    LONGEST_LIST_BYTES,
    LONGEST_SIDECAR_BYTES,
    Told,
    read_list,
    read_sidecar,
)

_PAGE: Final = 500
Note = Callable[[str], None]
KnownNames = Callable[[Collection[str], datetime], set[str]]
"""Those of these names under which something was taken since then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderLists:
    """The lists of one folder. `by_name` is over the paths of photos in the source."""

    lists: tuple[tuple[Arrival, tuple[str, ...]], ...] = ()
    by_name: Mapping[str, References]


def read_lists(folder: Folder, note: Note) -> FolderLists:
    """Every list that is ready; a wrong one costs a note."""
    lists: list[tuple[Arrival, tuple[str, ...]]] = []
    by_name: dict[str, References] = {}
    for found in folder.sidecars():
        if isinstance(found, Left) or told_photo(found.name):
            continue
        told = _told(found, LONGEST_LIST_BYTES, read_list, note)
        if isinstance(told, Left):
            continue
        place = found.name[: found.name.rfind("/") + 1]
        named = {place + file: references for file, references in told.by_name.items()}
        if named:
            by_name |= named
            lists.append((found, tuple(named)))
    return FolderLists(lists=tuple(lists), by_name=by_name)


def read_own(sidecar: Arrival, note: Note) -> References | Left | None:
    """What `photo.jpg.json` says; None where it cannot be used, which costs a note; `Left` while it changes."""
    told = _told(sidecar, LONGEST_SIDECAR_BYTES, read_sidecar, note)
    return told if isinstance(told, Left) else next(iter(told.by_name.values()), None)


def finished_lists(folder: Folder, told: FolderLists, known_names: KnownNames) -> Iterator[Arrival]:
    """The lists all of whose photos were taken since the list came, and are gone from the folder."""
    for found, names in told.lists:
        since = datetime.fromtimestamp(found.changed_ms / 1000, UTC)
        if all(known_names(page, since) == set(page) and not folder.present(page) for page in _pages(names)):
            yield found


def _pages(names: tuple[str, ...]) -> Iterator[list[str]]:
    remaining = iter(names)
    while page := list(islice(remaining, _PAGE)):
        yield page


def _told(found: Arrival, longest_bytes: int, parse: Callable[[str, bytes], Told], note: Note) -> Told | Left:
    if found.byte_count > longest_bytes:
        note(f"{found.name} was not used: it has more than {longest_bytes / 1e6:g} MB.")
        return Told()
    data = found.read()
    if isinstance(data, Left):
        return data
    told = parse(found.name, data)
    if told.fault:
        note(f"{found.name} was not used: it {told.fault}.")
    return told
