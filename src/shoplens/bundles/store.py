"""Where bundles are: the models directory, packed files, and a store that several machines share.

The models directory has `<name>/<version>/`.

A packed bundle is one file: an uncompressed tar of the bundle's files, without times and owners, so the same bundle
gives the same bytes. Unpacking accepts only plain files directly in the archive, checks their number and size before
writing, and works in a temporary directory that gets its name after the bundle has been verified.

A shared store has, for each bundle,

<name>/<version>/<SHA-256 of a file>    the content of a file
<name>/<version>/signature.json         its signature, if it is signed
<name>/<version>/checksums.json         the bundle's list of files; written last, and only if it does not exist

So a bundle is complete or invisible, and a version never changes. Decision 0013 has the reasons.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from shoplens.bundles.builtin import builtin_names, prepare_builtin, require_own_build
from shoplens.bundles.bundle import (
    CHECKSUMS,
    MAX_BYTES,
    MAX_FILES,
    Bundle,
    Checksum,
    atomic_dir,
    open_bundle,
    open_installed,
    read_checksums,
)
from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.bundles.signing import SIGNATURE, Trust, signer_of, write_signature
from shoplens.errors import (
    BlobNotFound,
    BundleError,
    BundleIncomplete,
    BundleInvalid,
    BundleTampered,
    Misconfigured,
    ModelNotFound,
    StorageUnavailable,
)
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger

Check: TypeAlias = Callable[[Path], None]

NO_TRUST: Final = Trust()
"""No signature is required."""

_PIECE_BYTES: Final = 1 << 20
_ABANDONED_AFTER_S: Final = 3_600
_NAME: Final = re.compile(NAME_PATTERN)
_log: Final = get_logger(__name__)


def resolve_bundle(
    name_or_path: str,
    models_dir: Path,
    shared: SharedBundles | None = None,
    trust: Trust = NO_TRUST,
    *,
    without: Collection[str] = (),
) -> Bundle:
    """The bundle that `name_or_path` means, verified and trusted.

    It is the path of a bundle directory, `name@version`, or a name. A name means the latest version in `models_dir`
    and `shared`, leaving out the versions `without`. A built-in model is built if it is missing; a version that only
    `shared` has is downloaded into `models_dir`. If `shared` cannot be reached, the installed versions are enough.

    Raises ModelNotFound, StorageUnavailable, and as `open_bundle`, `require_trust` and `SharedBundles.fetch`.
    """
    bundle = _resolve(name_or_path, models_dir, shared, trust, without)
    require_trust(bundle, trust)
    return bundle


def require_trust(bundle: Bundle, trust: Trust) -> None:
    """Raises BundleUntrusted if `trust` requires a signature that `bundle` has not.

    A built-in model needs none if it is, byte for byte, what this program builds: it is trusted as the program is.
    """
    if trust.required and bundle.signed_by not in trust.keys and bundle.ref.name in builtin_names():
        require_own_build(bundle)
    else:
        trust.check(bundle)


def _resolve(
    name_or_path: str, models_dir: Path, shared: SharedBundles | None, trust: Trust, without: Collection[str]
) -> Bundle:
    if (
        "/" in name_or_path
        or "\\" in name_or_path
        or name_or_path in (".", "..")
        or (Path(name_or_path) / "bundle.json").is_file()
    ):
        return open_bundle(name_or_path)
    name, _, version = name_or_path.partition("@")
    if name in builtin_names():
        prepared = prepare_builtin(name, models_dir)
        if version in ("", prepared.ref.version):
            return prepared
    installed = {path.parent.name for path in (models_dir / name).glob("[!.]*/bundle.json")}
    published = set[str]()
    if shared is not None and version not in installed:
        try:
            published = shared.versions(name)
        except StorageUnavailable as error:
            if version or not installed:
                raise
            _log.warning("model.newest_not_known", model=name, served=max(installed, key=by_number), reason=str(error))
    wanted = version or max((installed | published).difference(without), key=by_number, default="")
    if wanted in installed:
        again = (
            f"it is downloaded again from {shared.place}"
            if wanted in published and shared
            else ("install the model again with `shoplens models install` or `shoplens models import`")
        )
        return open_installed(models_dir / name / wanted, remedy=f"Remove this folder; {again}.")
    if shared is None or wanted not in published:
        raise ModelNotFound(_not_found(name_or_path, models_dir, shared))
    bundle = shared.fetch(ModelRef(name=name, version=wanted), models_dir, trust)
    _log.info("model.fetched", model=str(bundle.ref), source=shared.place, size_bytes=bundle.size_bytes)
    return bundle


def bundle_folders(models_dir: Path) -> list[Path]:
    """The folders of `models_dir` that should be bundles, by name and rising version, the unreadable ones included."""
    folders = (path.parent for path in models_dir.glob("[!.]*/[!.]*/bundle.json"))
    return sorted(folders, key=lambda folder: (folder.parent.name, by_number(folder.name)))


def installed_bundles(models_dir: Path) -> list[Bundle]:
    """The readable bundles of `models_dir` by name and rising version. File contents are not verified."""
    bundles = []
    for folder in bundle_folders(models_dir):
        try:
            bundles.append(open_bundle(folder, verify=False))
        except BundleError:
            continue
    return bundles


def pack_bundle(bundle_dir: Path, file: Path) -> Path:
    """Write the bundle in `bundle_dir`, verified, as the one file `file`. Raises as `open_bundle`."""
    root = open_bundle(bundle_dir).root
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with (
            os.fdopen(handle, "wb") as target,
            tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for path in sorted(root.iterdir(), key=lambda path: (path.name != CHECKSUMS, path.name)):
                entry = tarfile.TarInfo(path.name)
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as source:
                    archive.addfile(entry, source)
        Path(draft).chmod(0o644)
        Path(draft).replace(file)
    finally:
        Path(draft).unlink(missing_ok=True)
    return file


def unpack_bundle(file: Path, models_dir: Path, trust: Trust = NO_TRUST, check: Check | None = None) -> Bundle:
    """Install the packed bundle `file`, verified, as `<models_dir>/<name>/<version>/`. `check` as in `install_bundle`.

    Raises BundleIncomplete if there is no such file, BundleTampered for an archive with anything but plain files,
    BundleInvalid if it cannot be read or is too large; and as `install_bundle`.
    """
    if not file.is_file():
        raise BundleIncomplete(f"There is no file {file}.")
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=models_dir) as folder:
        try:
            with tarfile.open(file, mode="r:") as archive:
                _extract(archive, Path(folder))
        except (tarfile.TarError, EOFError, UnicodeError, ValueError, FileExistsError) as error:
            raise BundleInvalid(f"{file.name} is not a packed bundle, or it is damaged: {error}.") from error
        return install_bundle(Path(folder), models_dir, trust, check)


def install_bundle(source: Path, models_dir: Path, trust: Trust = NO_TRUST, check: Check | None = None) -> Bundle:
    """Copy the bundle directory `source`, verified and trusted, to `<models_dir>/<name>/<version>/`.

    `check` is called with the folder before anything of its graph is loaded here; what it raises ends the installation.
    The same bundle may be installed again, also to add its signature. Raises BundleInvalid if another bundle has its
    name and version; and as `open_bundle` and `require_trust`.
    """
    if check is not None:
        check(source)
    bundle = open_bundle(source)
    require_trust(bundle, trust)
    root = models_dir / bundle.ref.name / bundle.ref.version
    with atomic_dir(root) as draft:
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, draft / path.name)
    installed = open_bundle(root)
    if installed.digest != bundle.digest:
        raise BundleInvalid(f"Another bundle is installed as {bundle.ref}. Give this one another version.")
    if bundle.signed_by is not None and installed.signed_by != bundle.signed_by:
        write_signature(root, (source / SIGNATURE).read_bytes())
        installed = open_bundle(root)
    return installed


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedBundle:
    """A complete bundle in a store. `digest` and `signed_by` as of `Bundle`, from its list of files and signature."""

    ref: ModelRef
    digest: str
    size_bytes: int
    signed_by: str | None


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

    def describe(self, ref: ModelRef) -> PublishedBundle | None:
        """What is published as `ref`, without its contents; None where that is nothing.

        Raises BundleError for a list of files or a signature that is damaged.
        """
        listed = self._listed(ref)
        if listed is None:
            return None
        try:
            signature = self._signature(ref)
            return PublishedBundle(
                ref=ref,
                digest=hashlib.sha256(listed).hexdigest(),
                size_bytes=sum(each.size for each in read_checksums(listed).values()) + len(listed) + len(signature),
                signed_by=signer_of(signature, listed) if signature else None,
            )
        except BundleError as error:
            raise type(error)(f"The model {ref} at {self.place} is refused: {error}") from error

    def push(self, bundle: Bundle) -> bool:
        """Publish `bundle`, or complete an interrupted push. Returns False if it was published already.

        Its signature is published in both cases.

        Raises BundleInvalid if another bundle has its name and version, BundleTampered if a file changes meanwhile.
        """
        listed = (bundle.root / CHECKSUMS).read_bytes()
        self._require_same(bundle.ref, listed)
        own = read_checksums(listed)
        for name, expected in own.items():
            key = _content_key(bundle.ref, expected)
            if not self._store.exists(key):
                self._store.put_pieces(key, _pieces(bundle.root / name, expected))
        if bundle.signed_by is not None:
            self._store.put_pieces(_signature_key(bundle.ref), [(bundle.root / SIGNATURE).read_bytes()])
        if self._store.put_if(_marker(bundle.ref), listed, seen=None):
            return True
        try:
            self._require_same(bundle.ref, listed)
        except BundleInvalid:
            # Another push took the version meanwhile: delete what was uploaded here and is not a part of that bundle.
            theirs = {each.sha256 for each in read_checksums(self._listed(bundle.ref) or b"{}").values()}
            for expected in own.values():
                if expected.sha256 not in theirs:
                    self._store.delete(_content_key(bundle.ref, expected))
            raise
        return False

    def fetch(self, ref: ModelRef, models_dir: Path, trust: Trust = NO_TRUST) -> Bundle:
        """Download the bundle, verify it and its signature, and install it as `<models_dir>/<name>/<version>/`.

        Several processes may do this at once. Raises ModelNotFound, BundleError if the verification fails, and
        Misconfigured if `models_dir` cannot be written.
        """
        root = models_dir / ref.name / ref.version
        listed = self._listed(ref)
        if listed is None:
            raise ModelNotFound(f"There is no model {ref} at {self.place}.")
        try:
            for draft in root.parent.glob(f".{root.name}-*"):  # left by killed downloads, unless it is young
                if draft.stat().st_mtime < time.time() - _ABANDONED_AFTER_S:
                    shutil.rmtree(draft, ignore_errors=True)
            with atomic_dir(root) as draft:
                self._download(ref, listed, draft)
                bundle = open_bundle(draft)
                if bundle.ref != ref:
                    raise BundleTampered(f"it contains the model {bundle.ref}.")
                require_trust(bundle, trust)
        except BundleError as error:
            digest = hashlib.sha256(listed).hexdigest()[:12]
            raise type(error)(f"The model {ref} at {self.place}, digest {digest}, is refused: {error}") from error
        except OSError as error:
            raise Misconfigured(f"The model {ref} cannot be written to {models_dir}: {error.strerror}.") from error
        return open_bundle(root)

    def _download(self, ref: ModelRef, listed: bytes, draft: Path) -> None:
        """Download the files into `draft`. Raises as soon as one is too large, before it fills the disk."""
        (draft / CHECKSUMS).write_bytes(listed)
        sums = read_checksums(listed)
        if len(sums) > MAX_FILES or sum(each.size for each in sums.values()) > MAX_BYTES:
            raise BundleInvalid(f"it holds more than {MAX_FILES} files or {MAX_BYTES:,} bytes.")
        if signature := self._signature(ref):
            (draft / SIGNATURE).write_bytes(signature)
        for name, expected in sums.items():
            try:
                with (draft / name).open("xb") as file:
                    for piece in self._store.pieces(_content_key(ref, expected)):
                        file.write(piece)
                        if file.tell() > expected.size:
                            raise BundleTampered(f"{name} has more than the {expected.size} bytes that are recorded.")
            except BlobNotFound as error:
                raise BundleIncomplete(f"{name} is missing; push the model again.") from error

    def _require_same(self, ref: ModelRef, listed: bytes) -> None:
        there = self._listed(ref)
        if there is not None and there != listed:
            raise BundleInvalid(f"Another bundle is published as {ref} at {self.place}. Give this one another version.")

    def _listed(self, ref: ModelRef) -> bytes | None:
        """The bundle's list of files, None if it is not published. The first piece is larger than any valid list."""
        try:
            return b"".join(islice(self._store.pieces(_marker(ref)), 1))
        except BlobNotFound:
            return None

    def _signature(self, ref: ModelRef) -> bytes:
        """The bundle's signature, empty if it has none."""
        try:
            return b"".join(islice(self._store.pieces(_signature_key(ref)), 1))
        except BlobNotFound:
            return b""


def _marker(ref: ModelRef) -> str:
    return f"{ref.name}/{ref.version}/{CHECKSUMS}"


def _signature_key(ref: ModelRef) -> str:
    return f"{ref.name}/{ref.version}/{SIGNATURE}"


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


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Copy the entries one by one and check the limits before writing each."""
    total = 0
    for count, entry in enumerate(archive, start=1):
        total += max(0, entry.size)
        if count > MAX_FILES or total > MAX_BYTES:
            raise BundleInvalid(f"The archive holds more than {MAX_FILES} files or {MAX_BYTES:,} bytes.")
        if not entry.isreg():
            raise BundleTampered(f"The archive holds {entry.name!r}, which is not a plain file.")
        if entry.name in {"", ".", ".."} or entry.name != Path(entry.name).name or "\\" in entry.name:
            raise BundleTampered(f"The archive holds {entry.name!r}, which is outside the bundle.")
        source = archive.extractfile(entry)
        with (folder / entry.name).open("xb") as target:
            shutil.copyfileobj(source or io.BytesIO(), target, _PIECE_BYTES)


def _not_found(name_or_path: str, models_dir: Path, shared: SharedBundles | None) -> str:
    known = {folder.parent.name for folder in bundle_folders(models_dir)} | set(builtin_names())
    where = ""
    if shared is not None:
        known |= {ref.name for ref in shared.published()}
        where = f" in {models_dir} or at {shared.place}"
    return f"There is no model {name_or_path!r}{where}. Known models: {', '.join(sorted(known))}."


def by_number(version: str) -> list[tuple[int, int | str]]:
    """Sort key that compares numbers as numbers: 1.10 comes after 1.9."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]
