"""The models directory, `<name>/<version>/`: find, list, pack and install bundles.

A packed bundle is one file: an uncompressed tar of the bundle's files, without times and owners, so the same bundle
gives the same bytes. Unpacking accepts only plain files directly in the archive, checks their number and size before
writing, and works in a temporary directory that gets its name after the bundle has been verified.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import structlog

from shoplens.bundles.builtin import builtin_names, prepare_builtin
from shoplens.bundles.bundle import Bundle, atomic_dir, open_bundle
from shoplens.bundles.checksums import CHECKSUMS, MAX_BYTES, MAX_FILES
from shoplens.bundles.manifest import ModelRef
from shoplens.bundles.sharing import SharedBundles
from shoplens.errors import (
    BundleError,
    BundleIncomplete,
    BundleInvalid,
    BundleTampered,
    ModelNotFound,
    StorageUnavailable,
)

_BLOCK_BYTES: Final = 1 << 20
_log: Final = structlog.get_logger(__name__)


def resolve_bundle(name_or_path: str, models_dir: Path, shared: SharedBundles | None = None) -> Bundle:
    """The bundle that `name_or_path` means, verified.

    It is the path of a bundle directory, `name@version`, or a name. A name means the latest version in `models_dir`
    and `shared`. A built-in model is built if it is missing; a version that only `shared` has is downloaded into
    `models_dir`. If `shared` cannot be reached, the installed versions are enough.

    Raises ModelNotFound, StorageUnavailable, and as `open_bundle` and `SharedBundles.fetch`.
    """
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
            _log.warning("model.newest_not_known", model=name, served=max(installed, key=_by_number), reason=str(error))
    wanted = version or max(installed | published, key=_by_number, default="")
    if wanted in installed:
        return open_bundle(models_dir / name / wanted)
    if shared is None or wanted not in published:
        raise ModelNotFound(_not_found(name_or_path, models_dir, shared))
    bundle = shared.fetch(ModelRef(name=name, version=wanted), models_dir)
    _log.info("model.fetched", model=str(bundle.ref), source=shared.place, size_bytes=bundle.size_bytes)
    return bundle


def bundle_folders(models_dir: Path) -> list[Path]:
    """The folders of `models_dir` that should be bundles, by name and rising version, the unreadable ones included."""
    folders = (path.parent for path in models_dir.glob("[!.]*/[!.]*/bundle.json"))
    return sorted(folders, key=lambda folder: (folder.parent.name, _by_number(folder.name)))


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


def unpack_bundle(file: Path, models_dir: Path) -> Bundle:
    """Install the packed bundle `file`, verified, as `<models_dir>/<name>/<version>/`.

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
        except (tarfile.TarError, EOFError, UnicodeError, ValueError, OSError) as error:
            raise BundleInvalid(f"{file.name} is not a packed bundle, or it is damaged: {error}.") from error
        return install_bundle(Path(folder), models_dir)


def install_bundle(source: Path, models_dir: Path) -> Bundle:
    """Copy the bundle directory `source`, verified, to `<models_dir>/<name>/<version>/`.

    The same bundle may be installed again. Raises BundleInvalid if another bundle has its name and version; and as
    `open_bundle`.
    """
    bundle = open_bundle(source)
    root = models_dir / bundle.ref.name / bundle.ref.version
    with atomic_dir(root) as draft:
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, draft / path.name)
    installed = open_bundle(root)
    if installed.digest != bundle.digest:
        raise BundleInvalid(f"Another bundle is installed as {bundle.ref}. Give this one another version.")
    return installed


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
            shutil.copyfileobj(source or io.BytesIO(), target, _BLOCK_BYTES)


def _not_found(name_or_path: str, models_dir: Path, shared: SharedBundles | None) -> str:
    known = {folder.parent.name for folder in bundle_folders(models_dir)} | set(builtin_names())
    where = ""
    if shared is not None:
        known |= {ref.name for ref in shared.published()}
        where = f" in {models_dir} or at {shared.place}"
    return f"There is no model {name_or_path!r}{where}. Known models: {', '.join(sorted(known))}."


def _by_number(version: str) -> list[tuple[int, int | str]]:
    """Sort key that compares numbers as numbers: 1.10 comes after 1.9."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]
