"""`checksums.json`: the size and the SHA-256 of every file of a bundle. Its own SHA-256 is the bundle's digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from shoplens.errors import BundleIncomplete, BundleInvalid, BundleTampered

CHECKSUMS: Final = "checksums.json"
REQUIRED: Final = ("bundle.json", "card.json", "labels.json", "model.onnx")
MAX_FILES: Final = 16
MAX_BYTES: Final = 4_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """Size in bytes and SHA-256 in lower-case hex of one file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


_ADAPTER: Final = TypeAdapter(dict[str, Checksum])


def write_checksums(root: Path) -> str:
    """Write `checksums.json` for all other files in `root`. Returns the bundle's digest."""
    sums = {path.name: checksum_of(path) for path in sorted(root.iterdir()) if path.name != CHECKSUMS}
    data = _ADAPTER.dump_json(sums, indent=1) + b"\n"
    (root / CHECKSUMS).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def check_files(root: Path, *, contents: bool) -> str:
    """Compare the files in `root` with `checksums.json`, with `contents` their SHA-256 too. Returns the digest.

    Raises BundleIncomplete for a missing file, BundleTampered for a changed, unlisted or linked one, BundleInvalid
    for unreadable checksums.
    """
    data = read_plain(root, CHECKSUMS)
    sums = read_checksums(data)
    for name in sorted({*REQUIRED, *sums}):
        if not (root / name).is_symlink() and not (root / name).exists():
            raise BundleIncomplete(f"{name} is missing from the bundle {root.name!r}.")
    for name in sorted({*REQUIRED, *(path.name for path in root.iterdir())} - {CHECKSUMS, *sums}):
        raise BundleTampered(f"{name} is not listed in {CHECKSUMS}. Remove it, or make the bundle again.")
    for name, expected in sums.items():
        _check_file(root / name, expected, contents=contents)
    return hashlib.sha256(data).hexdigest()


def read_plain(root: Path, name: str) -> bytes:
    """The bytes of a file directly in `root`. Raises BundleIncomplete if absent, BundleTampered for a link."""
    path = root / name
    if path.is_symlink():
        raise BundleTampered(f"{name} is a link. A bundle consists of plain files.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleIncomplete(f"{name} is missing from the bundle {root.name!r}.") from error
    except OSError as error:
        raise BundleInvalid(f"{name} cannot be read: {error.strerror}.") from error


def checksum_of(path: Path) -> Checksum:
    """Size and SHA-256 of the file at `path`."""
    with path.open("rb") as file:
        return Checksum(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def read_checksums(data: bytes) -> dict[str, Checksum]:
    """The files by name. Raises BundleInvalid."""
    try:
        sums = _ADAPTER.validate_json(data, strict=True, extra="forbid")
    except ValidationError as error:
        raise BundleInvalid(f"{CHECKSUMS}: {error.errors(include_url=False)[0]['msg']}.") from error
    for name in sums:
        if name in {"", ".", "..", CHECKSUMS} or "/" in name or "\\" in name or "\0" in name:
            raise BundleInvalid(f"{CHECKSUMS} lists {name!r}, which is not the name of a file of the bundle.")
    return sums


def _check_file(path: Path, expected: Checksum, *, contents: bool) -> None:
    if path.is_symlink() or not path.is_file():
        raise BundleTampered(f"{path.name} is not a plain file.")
    if path.stat().st_size != expected.size:
        raise BundleTampered(f"{path.name} has {path.stat().st_size} bytes, not {expected.size} as recorded.")
    if contents and checksum_of(path) != expected:
        raise BundleTampered(f"{path.name} was changed after the bundle was made: its checksum differs.")
