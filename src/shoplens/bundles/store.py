"""The bundles of a models directory, `<name>/<version>/`: list them, find one by name, version or path.

What a models directory lacks may come from a place that many machines share.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Final

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

SUFFIX: Final = ".shoplens"
_BLOCK: Final = 1 << 20
_log: Final = structlog.get_logger(__name__)


def resolve_bundle(name_or_path: str, models_dir: Path, shared: SharedBundles | None = None) -> Bundle:
    """The bundle that `name_or_path` means, verified.

    It is the path of a bundle directory, `name@version`, or a name: the latest version in `models_dir` and `shared`,
    else the built-in model, which is made if need be. What only `shared` has is brought into `models_dir`. While
    `shared` is away, a version that is here will do.

    Raises ModelNotFound, StorageUnavailable, what `open_bundle` raises and what `SharedBundles.fetch` raises.
    """
    if _looks_like_path(name_or_path):
        return open_bundle(name_or_path)
    name, _, version = name_or_path.partition("@")
    if name in builtin_names():
        prepared = prepare_builtin(name, models_dir)
        if version in ("", prepared.ref.version):
            return prepared
    here = _versions(models_dir / name)
    there = _shared_versions(shared, name, version, here)
    known = sorted({*here, *there}, key=_version_order)
    wanted = version or (known[-1] if known else "")
    if wanted in here:
        return open_bundle(models_dir / name / wanted)
    if shared is None or wanted not in there:
        raise ModelNotFound(_unknown(name_or_path, models_dir, shared))
    bundle = shared.fetch(ModelRef(name=name, version=wanted), models_dir)
    _log.info("model.fetched", model=str(bundle.ref), source=shared.place, size_bytes=bundle.size_bytes)
    return bundle


def installed_bundles(models_dir: Path) -> list[Bundle]:
    """The readable bundles of `models_dir` by name and rising version; contents are not compared with checksums."""
    found = []
    for path in sorted(models_dir.glob("[!.]*/[!.]*/bundle.json"), key=_order):
        try:
            found.append(open_bundle(path.parent, verify=False))
        except BundleError:
            continue
    return found


def known_names(models_dir: Path) -> list[str]:
    """The names that `resolve_bundle` takes: installed and built in."""
    installed = {path.parent.parent.name for path in models_dir.glob("[!.]*/[!.]*/bundle.json")}
    return sorted(installed | set(builtin_names()))


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text in (".", "..") or (Path(text) / "bundle.json").is_file()


def _versions(folder: Path) -> list[str]:
    """The installed versions, oldest first."""
    return sorted((path.parent.name for path in folder.glob("[!.]*/bundle.json")), key=_version_order)


def _shared_versions(shared: SharedBundles | None, name: str, version: str, here: list[str]) -> set[str]:
    """Those that others have; none is looked for where it is not needed. Raises StorageUnavailable."""
    if shared is None or (version and version in here):
        return set()
    try:
        return shared.versions(name)
    except StorageUnavailable as error:
        if version or not here:
            raise
        _log.warning("model.newest_not_known", model=name, served=here[-1], reason=str(error))
        return set()


def _unknown(name_or_path: str, models_dir: Path, shared: SharedBundles | None) -> str:
    known, place = set(known_names(models_dir)), ""
    if shared is not None:
        known |= {ref.name for ref in shared.published()}
        place = f", neither in {models_dir} nor at {shared.place}"
    return f"There is no model {name_or_path!r}{place}; known are {', '.join(sorted(known))}."


def _order(path: Path) -> tuple[str, list[tuple[int, int | str]]]:
    return path.parent.parent.name, _version_order(path.parent.name)


def _version_order(version: str) -> list[tuple[int, int | str]]:
    """With its numbers compared as numbers: 1.10 comes after 1.9."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]


def pack_bundle(bundle_dir: Path, file: Path) -> Path:
    """Write the bundle in `bundle_dir`, verified, as the one file `file`, which appears whole or not at all.

    Raises what `open_bundle` raises.
    """
    bundle = open_bundle(bundle_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as draft:
            _write(bundle.root, draft)
        Path(name).chmod(0o644)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
    return file


def unpack_bundle(file: Path, into: Path) -> Bundle:
    """The bundle in `file`, verified, as `<into>/<name>/<version>/`.

    A bundle that is there already is left as it is if it is the same. Raises BundleIncomplete when there is no such
    file, BundleTampered for an archive with anything but plain files, BundleInvalid where it cannot be read, is too
    large, or another bundle has its name and version; and what `open_bundle` raises.
    """
    if not file.is_file():
        raise BundleIncomplete(f"There is no file {file}.")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=into) as folder:
        _extract(file, Path(folder))
        return install_bundle(Path(folder), into)


def install_bundle(source: Path, into: Path) -> Bundle:
    """A copy of the bundle directory `source`, verified, as `<into>/<name>/<version>/`. Raises as `unpack_bundle`."""
    bundle = open_bundle(source)
    root = into / bundle.ref.name / bundle.ref.version
    with atomic_dir(root) as draft:
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, draft / path.name)
    installed = open_bundle(root)
    if installed.digest != bundle.digest:
        raise BundleInvalid(f"Another bundle is already installed as {bundle.ref}; give this one another version.")
    return installed


def _write(root: Path, draft: IO[bytes]) -> None:
    with tarfile.open(fileobj=draft, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(root.iterdir(), key=lambda path: (path.name != CHECKSUMS, path.name)):
            entry = tarfile.TarInfo(path.name)
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as source:
                archive.addfile(entry, source)


def _extract(file: Path, folder: Path) -> None:
    try:
        with tarfile.open(file, mode="r:") as archive:
            _extract_entries(archive, folder)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OSError) as error:
        raise BundleInvalid(f"{file.name} is not a packed bundle, or it is damaged: {error}.") from error


def _extract_entries(archive: tarfile.TarFile, folder: Path) -> None:
    """Copy entry by entry, so that a limit is met before the disk is full."""
    total = 0
    for count, entry in enumerate(archive, start=1):
        total += max(0, entry.size)
        if count > MAX_FILES or total > MAX_BYTES:
            raise BundleInvalid(f"The archive holds more than {MAX_FILES} files or {MAX_BYTES:,} bytes.")
        _refuse_odd(entry)
        source = archive.extractfile(entry)
        with (folder / entry.name).open("xb") as target:
            shutil.copyfileobj(source or io.BytesIO(), target, _BLOCK)


def _refuse_odd(entry: tarfile.TarInfo) -> None:
    if not entry.isreg():
        raise BundleTampered(f"The archive holds {entry.name!r}, which is not a plain file.")
    if entry.name in {"", ".", ".."} or entry.name != Path(entry.name).name or "\\" in entry.name:
        raise BundleTampered(f"The archive holds {entry.name!r}, which would lie outside the bundle.")
