"""Share bundles through a store that all machines reach: push one there, find the versions, bring one here verified.

<name>/<version>/<SHA-256 of a file>    its content: written once, by whoever comes first
<name>/<version>/checksums.json         the bundle's own list of its files, written last and only where there is none

So a bundle is there with its last object or not at all, and a version never changes. Decision 0013 says why.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from shoplens.bundles.bundle import Bundle, atomic_dir, open_bundle
from shoplens.bundles.checksums import CHECKSUMS, MAX_BYTES, MAX_FILES, Checksum, read_checksums
from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.errors import (
    BlobNotFound,
    BundleError,
    BundleIncomplete,
    BundleInvalid,
    BundleTampered,
    Misconfigured,
    ModelNotFound,
)
from shoplens.storage import Store

_NAME: Final = re.compile(NAME_PATTERN)
_PIECE_BYTES: Final = 1 << 20
_ABANDONED_AFTER_S: Final = 3_600


class SharedBundles:
    """The bundles in `store`, which is at `place`. Blocks. Every verb raises StorageUnavailable."""

    def __init__(self, store: Store, place: str) -> None:
        self.place = place
        self._store = store

    def published(self) -> list[ModelRef]:
        """All that are there whole, in no particular order."""
        return [ref for key in self._store.list("") if (ref := _ref_of(key))]

    def versions(self, name: str) -> set[str]:
        """Those of one name that are there whole."""
        if not _NAME.fullmatch(name):
            return set()
        return {ref.version for key in self._store.list(name) if (ref := _ref_of(key))}

    def push(self, bundle: Bundle) -> bool:
        """Let `bundle` appear there; False where it is already. Whatever is missing of it is added.

        Raises BundleInvalid where another bundle has its name and version, BundleTampered when a file changes.
        """
        listed = (bundle.root / CHECKSUMS).read_bytes()
        self._require_same(bundle.ref, listed)
        own = read_checksums(listed)
        for name, expected in own.items():
            key = _content_key(bundle.ref, expected)
            if not self._store.exists(key):
                self._store.put_pieces(key, _pieces(bundle.root / name, expected))
        if self._store.put_if(_marker(bundle.ref), listed, seen=None):
            return True
        try:
            self._require_same(bundle.ref, listed)
        except BundleInvalid:
            self._withdraw(bundle.ref, own)
            raise
        return False

    def fetch(self, ref: ModelRef, models_dir: Path) -> Bundle:
        """The bundle, verified, as `<models_dir>/<name>/<version>/`, where it appears whole or not at all.

        Several processes may do this at once. Raises ModelNotFound, BundleError for one that must not be served, and
        Misconfigured where `models_dir` cannot take it.
        """
        root = models_dir / ref.name / ref.version
        listed = self._listed(ref)
        if listed is None:
            raise ModelNotFound(f"There is no model {ref} at {self.place}.")
        try:
            _remove_abandoned(root)
            with atomic_dir(root) as draft:
                self._download(ref, listed, draft)
                _require_named(open_bundle(draft), ref)
        except BundleError as error:
            raise type(error)(f"The model {ref} at {self.place} is refused: {error}") from error
        except OSError as error:
            raise Misconfigured(f"The model {ref} cannot be put into {models_dir}: {error.strerror}.") from error
        return open_bundle(root)

    def _download(self, ref: ModelRef, listed: bytes, draft: Path) -> None:
        (draft / CHECKSUMS).write_bytes(listed)
        sums = read_checksums(listed)
        if len(sums) > MAX_FILES or sum(each.size for each in sums.values()) > MAX_BYTES:
            raise BundleInvalid(f"it holds more than {MAX_FILES} files or {MAX_BYTES:,} bytes.")
        for name, expected in sums.items():
            try:
                _write(draft / name, self._store.pieces(_content_key(ref, expected)), expected)
            except BlobNotFound as error:
                raise BundleIncomplete(f"{name} is missing there; push the model again.") from error

    def _require_same(self, ref: ModelRef, listed: bytes) -> None:
        there = self._listed(ref)
        if there is not None and there != listed:
            raise BundleInvalid(f"Another bundle is at {self.place} as {ref} already; give this one another version.")

    def _withdraw(self, ref: ModelRef, own: Mapping[str, Checksum]) -> None:
        """What was sent for a version that another bundle has got meanwhile."""
        theirs = {each.sha256 for each in read_checksums(self._listed(ref) or b"{}").values()}
        for expected in own.values():
            if expected.sha256 not in theirs:
                self._store.delete(_content_key(ref, expected))

    def _listed(self, ref: ModelRef) -> bytes | None:
        """The list of its files; a first piece is more than any honest one has."""
        try:
            return b"".join(islice(self._store.pieces(_marker(ref)), 1))
        except BlobNotFound:
            return None


def _marker(ref: ModelRef) -> str:
    return f"{ref.name}/{ref.version}/{CHECKSUMS}"


def _content_key(ref: ModelRef, expected: Checksum) -> str:
    return f"{ref.name}/{ref.version}/{expected.sha256}"


def _ref_of(key: str) -> ModelRef | None:
    """The bundle whose last object this is."""
    name, _, rest = key.partition("/")
    version, _, file = rest.partition("/")
    if file != CHECKSUMS or not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
        return None
    return ModelRef(name=name, version=version)


def _pieces(path: Path, expected: Checksum) -> Iterator[bytes]:
    """The content of a file. Raises BundleTampered at its end, so that nothing is kept under a name that is not its."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != expected.sha256:
        raise BundleTampered(f"{path.name} was changed after the bundle was made: its checksum differs.")


def _write(path: Path, pieces: Iterator[bytes], expected: Checksum) -> None:
    """Stops at the size that was announced: no disk is filled by what will be refused anyway."""
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            if file.tell() > expected.size:
                raise BundleTampered(f"{path.name} has more than the {expected.size} bytes that are recorded.")


def _require_named(bundle: Bundle, ref: ModelRef) -> None:
    if bundle.ref != ref:
        raise BundleTampered(f"it says of itself that it is {bundle.ref}.")


def _remove_abandoned(root: Path) -> None:
    """What downloads of this version left that were killed. Young ones may belong to a living process."""
    oldest_wanted = time.time() - _ABANDONED_AFTER_S
    for draft in root.parent.glob(f".{root.name}-*"):
        if draft.stat().st_mtime < oldest_wanted:
            shutil.rmtree(draft, ignore_errors=True)
