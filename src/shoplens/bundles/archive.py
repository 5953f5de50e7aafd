"""One file for one bundle and back: a plain, uncompressed tar of its files with nothing of the machine in it.

The same bundle gives the same bytes. Unpacking believes nothing: only plain files directly in the archive, of known
number and size, in a temporary directory that takes its name when the bundle has been verified.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Final

from shoplens.bundles.bundle import Bundle, appearing, open_bundle
from shoplens.bundles.checksums import CHECKSUMS
from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTampered

SUFFIX: Final = ".shoplens"
MAX_FILES: Final = 16
MAX_BYTES: Final = 4_000_000_000
_BLOCK: Final = 1 << 20


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
    with appearing(root) as draft:
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
