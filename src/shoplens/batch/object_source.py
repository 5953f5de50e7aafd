"""A prefix of an object store as a source. Objects appear there whole, so none is ever half written."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from shoplens.batch.arrivals import Arrival, Left, Offer, Why
from shoplens.batch.names import is_ignored, is_sidecar, may_have_sidecar, readable
from shoplens.errors import BlobNotFound, SourceUnavailable
from shoplens.storage import ForeignObject, ObjectPrefix


class ObjectSource:
    """Everything below a prefix."""

    def __init__(self, objects: ObjectPrefix) -> None:
        self.place = objects.place
        self._objects = objects

    def folders(self) -> Iterator[ObjectFolder | Left]:
        """As `Source.folders`: one for everything, since a listing does not come by folders."""
        yield ObjectFolder(self._objects)


class ObjectFolder:
    """A `Folder`. Keeps the sidecars' names in memory, not the photos'."""

    def __init__(self, objects: ObjectPrefix) -> None:
        self._objects = objects

    def offers(self) -> Iterator[Offer | Left]:
        """As `Folder.offers`."""
        sidecars = {found.name: found for found in self._listed() if found.reachable and is_sidecar(found.name)}
        for found in self._listed():
            if not found.reachable:
                yield _unreachable(found)
            elif not is_sidecar(found.name):
                told_by = sidecars.get(f"{found.name}.json") if may_have_sidecar(found.name) else None
                yield Offer(photo=self._arrival(found), sidecar=self._arrival(told_by) if told_by else None)

    def sidecars(self) -> Iterator[Arrival | Left]:
        """As `Folder.sidecars`."""
        return (self._arrival(found) for found in self._listed() if found.reachable and is_sidecar(found.name))

    def present(self, names: Collection[str]) -> set[str]:
        """As `Folder.present`."""
        wanted = set(names)
        return {name for found in self._listed() if (name := readable(found.name)) in wanted}

    def _listed(self) -> Iterator[ForeignObject]:
        for found in self._objects.list():
            ignored = any(map(is_ignored, found.name.split("/"))) or _stands_for_a_folder(found)
            if not (found.reachable and ignored):
                yield found

    def _arrival(self, found: ForeignObject) -> ObjectArrival:
        return ObjectArrival(self._objects, found)


def _unreachable(found: ForeignObject) -> Left:
    return Left(name=readable(found.name), why=Why.UNREADABLE, reason="its name cannot be asked for; rename it")


def _stands_for_a_folder(found: ForeignObject) -> bool:
    """Consoles of object stores make such an object for a folder that somebody wants to see."""
    return found.byte_count == 0 and "." not in found.name.rsplit("/", 1)[-1]


class ObjectArrival:
    """An `Arrival`."""

    __slots__ = ("_found", "_objects", "byte_count", "changed_ms", "name", "stamp")

    def __init__(self, objects: ObjectPrefix, found: ForeignObject) -> None:
        self.name = readable(found.name)
        self.byte_count = found.byte_count
        self.changed_ms = max(0, int(found.modified_at.timestamp() * 1000))
        self.stamp = found.version
        self._objects = objects
        self._found = found

    def read(self) -> bytes | Left:
        """As `Arrival.read`."""
        try:
            now, data = self._objects.get(self._found.name)
        except BlobNotFound:
            return Left(name=self.name, why=Why.NOT_READY, reason="it is gone")
        if now.version != self.stamp or len(data) != self.byte_count:
            return Left(name=self.name, why=Why.NOT_READY, reason="it is being changed")
        return data

    def pieces(self) -> Iterator[bytes]:
        """As `Arrival.pieces`."""
        try:
            yield from self._objects.pieces(self._found.name)
            unchanged = self._objects.look(self._found.name).version == self.stamp
        except BlobNotFound as error:
            raise SourceUnavailable(f"{self.name} cannot be taken now: it is gone.") from error
        if not unchanged:
            raise SourceUnavailable(f"{self.name} cannot be taken now: it is being changed.")

    def remove(self) -> bool:
        """As `Arrival.remove`."""
        try:
            self._objects.delete_unchanged(self._found)
        except SourceUnavailable:
            return False
        return True
