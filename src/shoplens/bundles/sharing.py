"""Share bundles through a store that all machines reach: push, list and fetch.

<name>/<version>/<SHA-256 of a file>    the content of a file
<name>/<version>/checksums.json         the bundle's list of files; written last, and only if it does not exist

So a bundle is complete or invisible, and a version never changes. Decision 0013 has the reasons.
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
    """The bundles in `store`. `place` is its address for messages. Blocks. All methods raise StorageUnavailable."""

    def __init__(self, store: Store, place: str) -> None:
        self.place = place
        self._store = store

    def published(self) -> list[ModelRef]:
        """All complete bundles, in no particular order."""
        return [ref for key in self._store.list("") if (ref := _ref_of(key))]

    def versions(self, name: str) -> set[str]:
        """The complete versions of one name."""
        if not _NAME.fullmatch(name):
            return set()
        return {ref.version for key in self._store.list(name) if (ref := _ref_of(key))}

    def push(self, bundle: Bundle) -> bool:
        """Publish `bundle`, or complete an interrupted push. Returns False if it was published already.

        Raises BundleInvalid if another bundle has its name and version, BundleTampered if a file changes meanwhile.
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
        """Download the bundle, verify it, and install it as `<models_dir>/<name>/<version>/`.

        Several processes may do this at once. Raises ModelNotFound, BundleError if the verification fails, and
        Misconfigured if `models_dir` cannot be written.
        """
        root = models_dir / ref.name / ref.version
        listed = self._listed(ref)
        if listed is None:
            raise ModelNotFound(f"There is no model {ref} at {self.place}.")
        try:
            _remove_abandoned(root)
            with atomic_dir(root) as draft:
                self._download(ref, listed, draft)
                bundle = open_bundle(draft)
                if bundle.ref != ref:
                    raise BundleTampered(f"it contains the model {bundle.ref}.")
        except BundleError as error:
            raise type(error)(f"The model {ref} at {self.place} is refused: {error}") from error
        except OSError as error:
            raise Misconfigured(f"The model {ref} cannot be written to {models_dir}: {error.strerror}.") from error
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
                raise BundleIncomplete(f"{name} is missing; push the model again.") from error

    def _require_same(self, ref: ModelRef, listed: bytes) -> None:
        there = self._listed(ref)
        if there is not None and there != listed:
            raise BundleInvalid(f"Another bundle is published as {ref} at {self.place}. Give this one another version.")

    def _withdraw(self, ref: ModelRef, own: Mapping[str, Checksum]) -> None:
        """Delete the uploaded files of a bundle whose version was taken by another push meanwhile."""
        theirs = {each.sha256 for each in read_checksums(self._listed(ref) or b"{}").values()}
        for expected in own.values():
            if expected.sha256 not in theirs:
                self._store.delete(_content_key(ref, expected))

    def _listed(self, ref: ModelRef) -> bytes | None:
        """The bundle's list of files, None if it is not published. The first piece is larger than any valid list."""
        try:
            return b"".join(islice(self._store.pieces(_marker(ref)), 1))
        except BlobNotFound:
            return None


def _marker(ref: ModelRef) -> str:
    return f"{ref.name}/{ref.version}/{CHECKSUMS}"


def _content_key(ref: ModelRef, expected: Checksum) -> str:
    return f"{ref.name}/{ref.version}/{expected.sha256}"


def _ref_of(key: str) -> ModelRef | None:
    """The bundle whose list of files has this key; None for other keys."""
    name, _, rest = key.partition("/")
    version, _, file = rest.partition("/")
    if file != CHECKSUMS or not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
        return None
    return ModelRef(name=name, version=version)


def _pieces(path: Path, expected: Checksum) -> Iterator[bytes]:
    """The content of a file. Raises BundleTampered at its end, so that nothing is stored under a wrong SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != expected.sha256:
        raise BundleTampered(f"{path.name} was changed after the bundle was made: its checksum differs.")


def _write(path: Path, pieces: Iterator[bytes], expected: Checksum) -> None:
    """Write a file. Raises BundleTampered as soon as it is larger than `expected`, before it fills the disk."""
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            if file.tell() > expected.size:
                raise BundleTampered(f"{path.name} has more than the {expected.size} bytes that are recorded.")


def _remove_abandoned(root: Path) -> None:
    """Remove the directories of killed downloads. Younger ones may belong to a running process."""
    oldest_wanted = time.time() - _ABANDONED_AFTER_S
    for draft in root.parent.glob(f".{root.name}-*"):
        if draft.stat().st_mtime < oldest_wanted:
            shutil.rmtree(draft, ignore_errors=True)
