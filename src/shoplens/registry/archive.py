"""Models of a registry as one tar archive, to carry them to another registry or to keep them.

metadata.csv               a row per version: digest, when, by whom and why it was published, figures, alias
history.csv                every change of an alias; for reading, it is not imported
<name>/<version>/<file>    the files of each bundle
SHA256SUMS                 the SHA-256 of every other file, as `sha256sum --check` reads it

An import reads the whole archive and verifies every byte before it publishes anything.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from shoplens.accounts.entities import Principal
from shoplens.bundles.bundle import CHECKSUMS, MAX_BYTES, MAX_FILES, Bundle, open_bundle, read_checksums
from shoplens.bundles.manifest import NAME_PATTERN, ModelRef
from shoplens.bundles.signing import Trust
from shoplens.errors import BundleInvalid, BundleTampered, ModelNotFound, RequestInvalid
from shoplens.registry.entities import ALIASES, MAX_WHY, HistoryEntry, RegisteredVersion
from shoplens.registry.errors import AliasUnchanged
from shoplens.registry.publishing import RegistryService
from shoplens.registry.registry import Registry
from shoplens.spreadsheets import csv_chunks

METADATA: Final = "metadata.csv"
HISTORY: Final = "history.csv"
SUMS: Final = "SHA256SUMS"

_COLUMNS: Final = (
    "name",
    "version",
    "digest",
    "created_at",
    "by",
    "why",
    "figures",
    "signed_by",
    "size_bytes",
    "alias",
)
_HISTORY_COLUMNS: Final = ("at", "name", "alias", "before", "after", "by", "why", "figures")
_MAX_TABLE_BYTES: Final = 50_000_000
_MAX_VERSIONS: Final = 10_000
_PIECE_BYTES: Final = 1 << 20
_ENTRY: Final = re.compile(rf"(?P<name>{NAME_PATTERN})/(?P<version>{NAME_PATTERN})/(?P<file>[^/\\]+)")
_FIGURES: Final = TypeAdapter(dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: the versions that are published now, and the aliases that it changed."""

    published: tuple[ModelRef, ...]
    changes: tuple[HistoryEntry, ...]


def export_models(registry: Registry, names: Iterable[str], file: Path, trust: Trust) -> int:
    """Write all versions of these models to `file`, completely or not at all; how many there are.

    Raises BundleError for a version that is damaged, and as `Registry.fetch`.
    """
    sums: dict[str, str] = {}
    rows: list[tuple[object, ...]] = []
    changes: list[HistoryEntry] = []
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as folder:
        draft = Path(folder) / "archive"
        with tarfile.open(draft, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in names:
                aliases = {version: alias for alias, version in registry.aliases(name).by_alias.items()}
                for version in registry.versions(name):
                    bundle = registry.fetch(version.ref, Path(folder), trust)
                    _add_bundle(archive, bundle, sums)
                    rows.append(_row(version, aliases.get(version.ref.version, "")))
                    shutil.rmtree(bundle.root)
                changes += registry.history(name)
            _add_text(archive, METADATA, csv_chunks(_COLUMNS, rows), sums)
            _add_text(archive, HISTORY, csv_chunks(_HISTORY_COLUMNS, map(_history_row, changes)), sums)
            _add_text(archive, SUMS, [f"{sums[name]}  {name}\n" for name in sorted(sums)], {})
        draft.replace(file)
    return len(rows)


def import_models(
    registry: RegistryService, file: Path, principal: Principal, *, aliases: bool, scratch: Path
) -> Imported:
    """Publish the versions of the archive `file`, and with `aliases` make its champions and challengers those here.

    The archive is unpacked in a temporary folder in `scratch`. Raises RequestInvalid for a file that is no such
    archive, BundleTampered if anything in it differs from its checksums, BundleInvalid if another bundle is published
    under one of its versions, and as `RegistryService.publish`; nothing is published then.
    """
    if not file.is_file():
        raise RequestInvalid(f"There is no file {file}.")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=scratch) as folder:
        root = Path(folder)
        _unpack(file, root)
        versions = [(_read_row(row), row["alias"]) for row in _rows(root / METADATA)]
        bundles = [_verified(root, version) for version, _ in versions]
        for bundle in bundles:
            _require_free(registry, bundle)
        published = [
            registry.publish(bundle, principal, why=_origin(version), figures=version.figures).ref
            for bundle, (version, _) in zip(bundles, versions, strict=True)
        ]
    changes = []
    for version, held in versions if aliases else []:
        for alias in (each for each in ALIASES if each == held):
            try:
                why = f"Imported from {file.name}."
                changes.append(registry.set_alias(version.ref.name, alias, version.ref.version, principal, why=why))
            except AliasUnchanged:
                continue
    return Imported(published=tuple(published), changes=tuple(changes))


def _add_bundle(archive: tarfile.TarFile, bundle: Bundle, sums: dict[str, str]) -> None:
    """The files of a verified bundle: its list has their sums, except for two small files."""
    known = read_checksums((bundle.root / CHECKSUMS).read_bytes())
    for path in sorted(bundle.root.iterdir()):
        name = f"{bundle.ref.name}/{bundle.ref.version}/{path.name}"
        sums[name] = known[path.name].sha256 if path.name in known else hashlib.sha256(path.read_bytes()).hexdigest()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = path.stat().st_size, 0o644
        with path.open("rb") as source:
            archive.addfile(entry, source)


def _add_text(archive: tarfile.TarFile, name: str, chunks: Iterable[str], sums: dict[str, str]) -> None:
    data = "".join(chunks).encode()
    sums[name] = hashlib.sha256(data).hexdigest()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _row(version: RegisteredVersion, alias: str) -> tuple[object, ...]:
    at = version.created_at.isoformat() if version.created_at else ""
    figures = orjson.dumps(version.figures).decode()
    told = (at, version.by, version.note, figures)
    return (
        version.ref.name, version.ref.version, version.digest, *told, version.signed_by, version.size_bytes, alias
    )  # fmt: skip


def _history_row(entry: HistoryEntry) -> tuple[object, ...]:
    figures = orjson.dumps(entry.figures).decode()
    return (entry.at.isoformat(), entry.name, entry.alias, entry.before, entry.after, entry.by, entry.why, figures)


def _unpack(file: Path, root: Path) -> None:
    """Write the archive's files below `root` and compare each with SHA256SUMS."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(file, mode="r:") as archive:
            for entry in archive:
                if entry.name in found or len(found) > _MAX_VERSIONS * MAX_FILES:
                    raise BundleTampered(f"{file.name} holds {entry.name!r} twice, or too many files.")
                path = _place(root, entry)
                path.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(entry)
                assert source is not None  # `_place` refuses what is no plain file
                digest = hashlib.sha256()
                with path.open("xb") as target:
                    while piece := source.read(_PIECE_BYTES):
                        digest.update(piece)
                        target.write(piece)
                found[entry.name] = digest.hexdigest()
    except (tarfile.TarError, EOFError, UnicodeError, FileExistsError, NotADirectoryError) as error:
        raise RequestInvalid(f"{file.name} is not an archive of models, or it is cut off: {error}.") from error
    if SUMS not in found or METADATA not in found:
        raise RequestInvalid(f"{file.name} is not an archive of models: it has no {SUMS} or no {METADATA}.")
    del found[SUMS]
    lines = (root / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            raise BundleTampered(f"{name} in {file.name} is missing, unlisted or changed: it is not as in {SUMS}.")


def _place(root: Path, entry: tarfile.TarInfo) -> Path:
    """Where an entry is written. Raises BundleTampered for what cannot be in an archive of models."""
    if not entry.isreg() or entry.issparse():  # holes would fill the disk from a small file
        raise BundleTampered(f"The archive holds {entry.name!r}, which is not a plain file.")
    if entry.name in (METADATA, HISTORY, SUMS):
        most, place = _MAX_TABLE_BYTES, root / entry.name
    else:
        parts = _ENTRY.fullmatch(entry.name)
        if parts is None or parts["file"] in (".", "..") or "\0" in entry.name:
            raise BundleTampered(f"The archive holds {entry.name[:80]!r}, which is no file of a model.")
        most, place = MAX_BYTES, root / parts["name"] / parts["version"] / parts["file"]
    if entry.size > most:
        raise BundleInvalid(f"{entry.name} in the archive has more than {most:,} bytes.")
    return place


def _rows(file: Path) -> Sequence[dict[str, str]]:
    try:
        with file.open(encoding="utf-8", newline="") as source:
            reader = csv.DictReader(source, strict=True)
            rows = list(reader)
    except (csv.Error, UnicodeError) as error:
        raise RequestInvalid(f"{METADATA} cannot be read: {error}.") from error
    missing = set(_COLUMNS) - set(reader.fieldnames or ())
    if missing or any(None in row.values() for row in rows):
        raise RequestInvalid(
            f"{METADATA} has rows or columns that are missing: {', '.join(sorted(missing)) or 'rows'}."
        )
    return rows


def _read_row(row: dict[str, str]) -> RegisteredVersion:
    try:
        figures = _FIGURES.validate_json(row["figures"] or "{}")
    except ValidationError as error:
        raise RequestInvalid(f"{METADATA}: the figures of {row['name']}@{row['version']} cannot be read.") from error
    return RegisteredVersion(
        ref=ModelRef(name=row["name"], version=row["version"]),
        digest=row["digest"],
        created_at=None,
        size_bytes=0,
        signed_by=row["signed_by"] or None,
        figures=figures,
        note=f"{row['why']} (published {row['created_at'][:10]} by {row['by']})" if row["by"] else row["why"],
    )


def _verified(root: Path, version: RegisteredVersion) -> Bundle:
    """The unpacked bundle of a row."""
    ref = version.ref
    if not _ENTRY.fullmatch(f"{ref.name}/{ref.version}/x"):
        raise RequestInvalid(f"{METADATA} names {str(ref)[:80]!r}, which cannot be a model.")
    bundle = open_bundle(root / ref.name / ref.version)
    if bundle.ref != ref or bundle.digest != version.digest:
        raise BundleTampered(
            f"{ref} in the archive is {bundle.ref} with the digest {bundle.digest[:12]}, but {METADATA} says "
            f"{version.digest[:12]}."
        )
    return bundle


def _require_free(registry: RegistryService, bundle: Bundle) -> None:
    """Raises BundleInvalid if another bundle is published under this version."""
    try:
        there = {each.ref: each.digest for each in registry.model(bundle.ref.name).versions}
    except ModelNotFound:
        return
    if there.get(bundle.ref, bundle.digest) != bundle.digest:
        raise BundleInvalid(f"Another bundle is published as {bundle.ref} at {registry.place}. Nothing was imported.")


def _origin(version: RegisteredVersion) -> str:
    return (version.note.strip() or "Imported.")[:MAX_WHY]
